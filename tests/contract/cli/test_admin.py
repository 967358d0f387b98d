"""What those who run a cluster do on the command line."""

import json
import stat
from pathlib import Path

from headrace.cli.exit_codes import ExitCode
from tests.contract.cli.conftest import Headrace
from tests.contract.cli.fake_control_plane import FakeControlPlane, a_node


def test_a_queue_is_created_then_changed_where_something_is_given(
    headrace: Headrace, plane: FakeControlPlane
) -> None:
    made = headrace("queue", "set", "research", "--quota", "8", "--submitter", "ann")
    assert made.stdout == "queue/research created\n"
    assert headrace("queue", "set", "research", "--quota", "4").stdout == "queue/research changed\n"
    queue = plane.queues["research"]
    assert (queue.quota_accelerators, list(queue.submitters)) == (4, ["ann"])
    headrace("queue", "set", "research", "--quota", "-1", "--submitter", "*")
    queue = plane.queues["research"]
    assert not queue.HasField("quota_accelerators")
    assert not queue.submitters
    assert "research" in headrace("queue", "list").stdout
    assert headrace("queue", "delete", "research").exit_code == ExitCode.OK
    assert headrace("queue", "delete", "research").exit_code == ExitCode.NOT_FOUND


def test_policy_settings_are_words_or_json(headrace: Headrace, plane: FakeControlPlane) -> None:
    told = headrace("policy", "set", "policy=fifo", "period_seconds=2")
    assert told.stdout == "policy: equal-share -> fifo\nperiod_seconds: 5.0 -> 2\n"
    assert plane.settings == {"policy": '"fifo"', "period_seconds": "2"}
    assert "fifo" in headrace("policy", "get").stdout
    got = json.loads(headrace("policy", "get", "period_seconds", "-o", "json").stdout)
    assert got["settings"] == {"period_seconds": 2}
    wrong = headrace("policy", "set", "priod_seconds=2")
    assert wrong.exit_code == ExitCode.REFUSED
    assert "did you mean period_seconds?" in wrong.stderr
    assert headrace("policy", "set", "fifo").exit_code == ExitCode.USAGE


def test_drain_and_uncordon_name_a_node(headrace: Headrace, plane: FakeControlPlane) -> None:
    plane.nodes = [a_node("node-a")]
    assert headrace("drain", "node-a").exit_code == ExitCode.OK
    assert "Online,drained" in headrace("get", "nodes").stdout
    assert headrace("uncordon", "node-a").exit_code == ExitCode.OK
    assert not plane.nodes[0].drained
    assert headrace("drain", "node-x").exit_code == ExitCode.NOT_FOUND
    assert headrace("remove-node", "node-a").exit_code == ExitCode.OK
    assert not plane.nodes


def test_snapshot_and_backup_are_files_of_their_owner(headrace: Headrace, tmp_path: Path) -> None:
    assert json.loads(headrace("snapshot").stdout) == {"jobs": {}}
    file = tmp_path / "store.backup"
    assert headrace("backup", str(file)).exit_code == ExitCode.OK
    assert file.read_bytes() == b"first half, second half"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_backup_that_is_there_is_replaced_only_by_force(
    headrace: Headrace, tmp_path: Path
) -> None:
    file = tmp_path / "store.backup"
    file.write_bytes(b"the only copy")
    refused = headrace("backup", str(file))
    assert refused.exit_code == ExitCode.REFUSED
    assert f"{file} is there already; --force" in refused.stderr
    assert file.read_bytes() == b"the only copy"
    assert headrace("backup", str(file), "--force").exit_code == ExitCode.OK
    assert file.read_bytes() == b"first half, second half"


def test_a_backup_that_cannot_be_written_names_the_file_that_was_wanted(
    headrace: Headrace, tmp_path: Path
) -> None:
    file = tmp_path / "no-such-folder" / "store.backup"
    result = headrace("backup", str(file))
    assert result.exit_code == ExitCode.FAILED
    assert result.stderr == f"headrace: {file} cannot be written: No such file or directory\n"


def test_half_a_backup_is_no_backup(
    headrace: Headrace, plane: FakeControlPlane, tmp_path: Path
) -> None:
    plane.refuse = "disk full"
    file = tmp_path / "store.backup"
    result = headrace("backup", str(file))
    assert result.exit_code == ExitCode.FAILED
    assert "disk full" in result.stderr
    assert list(tmp_path.glob("store*")) == []


def test_version_tells_both(headrace: Headrace) -> None:
    told = headrace("version").stdout
    assert "headrace " in told
    assert "control plane 0.1.0 at 127.0.0.1:" in told
