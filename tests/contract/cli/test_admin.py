"""What those who run a cluster do on the command line."""

import json
import re
import stat
import time
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.generated import admin_pb2
from headrace.api.measured_plan import row_to_wire
from headrace.api.profile_file import rows_in
from headrace.api.profile_rows import Asked, Machine, PlanRow, Status
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
    headrace("queue", "set", "research", "--quota", "4", "--borrow", "2")
    headrace("queue", "set", "research", "--submitter", "ann")
    queue = plane.queues["research"]
    assert (queue.quota_accelerators, queue.borrowing_accelerators) == (4, 2)
    assert headrace("queue", "list").stdout.splitlines()[2].split()[1:4] == ["0", "4", "2"]
    headrace("queue", "set", "research", "--from-namespace", "team-a")
    headrace("queue", "set", "research", "--quota", "4")
    assert list(plane.queues["research"].namespaces) == ["team-a"]
    assert "team-a" in headrace("queue", "list").stdout
    headrace("queue", "set", "research", "--from-namespace", "*")
    assert not plane.queues["research"].namespaces
    plane.queue_warnings = ["the quota is larger than the cluster"]
    warned = headrace("queue", "set", "research", "--borrow", "-1")
    assert plane.queues["research"].borrowing_accelerators == -1
    assert warned.stdout == "queue/research changed\n"
    assert warned.stderr == "headrace: the quota is larger than the cluster\n"
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


def test_what_a_setting_means_is_told_with_its_range(headrace: Headrace) -> None:
    told = headrace("policy", "get", "period_seconds").stdout
    assert "Longest time between two decisions. Default 5.0, allowed 0.05 to 3600." in told
    assert "0.05 to 3600" in headrace("policy", "get", "-o", "wide").stdout
    whole = json.loads(headrace("policy", "get", "-o", "json").stdout)
    assert (whole["version"], whole["descriptions"][0]["highest"]) == (7, 3600)


def a_change(name: str, before: str, after: str) -> admin_pb2.SettingChange:
    return admin_pb2.SettingChange(name=name, before=before, after=after)


def test_the_history_of_the_settings_fits_a_terminal(
    headrace: Headrace, plane: FakeControlPlane
) -> None:
    at = Timestamp(seconds=int(time.time()) - 7000)
    some = [a_change("policy", '"fifo"', '"rubick"'), a_change("period_seconds", "5.0", "2.0")]
    who = "spiffe://example.org/a-person-with-a-long-name/of-a-large-department"
    plane.policy_versions = [
        admin_pb2.PolicyVersion(version=1),
        admin_pb2.PolicyVersion(version=2, at=at, who=who, changes=some),
        admin_pb2.PolicyVersion(version=3, at=at, who="ann", changes=some, rolls_back_to=1),
    ]
    table = headrace("policy", "history").stdout
    lines = table.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["VERSION", "WHEN", "WHO", "CHANGED"]
    assert [line.split()[0] for line in lines if line[:7].strip()] == ["VERSION", "3", "2", "1"]
    assert "as version 1: policy fifo" in table
    assert lines[-1].split() == ["1", "-", "-", "-"]
    newest, *_ = json.loads(headrace("policy", "history", "-o", "json").stdout)["items"]
    assert (newest["version"], newest["who"], newest["rollsBackTo"]) == (3, "ann", 1)
    assert newest["changes"][1] == {"name": "period_seconds", "before": 5.0, "after": 2.0}


def test_a_dry_run_tells_the_difference_and_sets_nothing(
    headrace: Headrace, plane: FakeControlPlane
) -> None:
    before = dict(plane.settings)
    plane.tried = admin_pb2.TryPolicyResponse(
        changes=[a_change("policy", '"equal-share"', '"fifo"')],
        differences=[
            admin_pb2.PolicyDifference(
                namespace="default",
                name="train",
                kind="PutOff",
                before="4 on node-a, node-b as dp4",
                after="nothing (waits behind other, which came first and wants 8 accelerators)",
            )
        ],
    )
    told = headrace("policy", "set", "policy=fifo", "--dry-run")
    lines = told.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "policy: equal-share -> fifo (dry run)"
    assert lines[2].startswith("train  be put off  4 on node-a, node-b")
    assert plane.settings == before
    assert [name for name, _ in plane.asked] == ["TryPolicy"]
    headrace("policy", "rollback", "3", "--dry-run")
    assert plane.asked[-1][1].version == 3
    plane.tried = admin_pb2.TryPolicyResponse(changes=plane.tried.changes)
    same = headrace("policy", "set", "policy=fifo", "--dry-run")
    assert same.stderr == "the next decision would be the same\n"
    plane.tried = admin_pb2.TryPolicyResponse(refused="policy fifo gave no usable decision: no")
    refused = headrace("policy", "set", "policy=fifo", "--dry-run")
    assert (refused.exit_code, "no usable decision" in refused.stderr) == (ExitCode.REFUSED, True)


def test_a_roll_back_tells_what_it_changed(headrace: Headrace, plane: FakeControlPlane) -> None:
    plane.tried = admin_pb2.TryPolicyResponse(changes=[a_change("period_seconds", "2", "5")])
    told = headrace("policy", "rollback", "2")
    assert (told.exit_code, told.stdout) == (ExitCode.OK, "period_seconds: 2 -> 5\n")
    assert headrace("policy", "rollback", "0").exit_code == ExitCode.USAGE


def test_drain_and_uncordon_name_a_node(headrace: Headrace, plane: FakeControlPlane) -> None:
    plane.nodes = [a_node("node-a")]
    assert headrace("drain", "node-a").exit_code == ExitCode.OK
    assert "Online,drained" in headrace("get", "nodes").stdout
    assert headrace("uncordon", "node-a").exit_code == ExitCode.OK
    assert not plane.nodes[0].drained
    plane.nodes[0].closed, plane.nodes[0].closed_reason = "Cordoned", "it is cordoned"
    assert "Online,cordoned" in headrace("get", "nodes").stdout
    assert "Cordoned: it is cordoned" in headrace("describe", "node", "node-a").stdout
    assert "takes no jobs yet: kubectl" in headrace("uncordon", "node-a").stdout
    assert headrace("drain", "node-x").exit_code == ExitCode.NOT_FOUND
    assert headrace("remove-node", "node-a").exit_code == ExitCode.OK
    assert not plane.nodes


def an_observation(model: str, plan: str, ranks: int) -> tuple[PlanRow, admin_pb2.Observation]:
    """What a job told of a plan, as it was measured and as the control plane lists it."""
    row = PlanRow(
        Asked(model, ranks, 16, 1024, "bf16"),
        plan,
        Status.MEASURED,
        placement=str(ranks),
        steps=80,
        iteration=0.25,
        offload=0.0,
        peak_process=3 * 2**30,
        tokens_rate=65536.0,
        flops_rate=4e14,
        share_of_peak=0.404,
        machine=Machine("NVIDIA H200", 4, "2.11.0", "13.0", "2.29", "590.48", "0.1.0"),
        date="2026-11-27T00:00:00Z",
    )
    told = admin_pb2.Observation(uid="u", attempt=1, step=80, measured=row_to_wire(row))
    return row, told


def test_what_jobs_told_of_plans_reads_like_a_profile(
    headrace: Headrace, plane: FakeControlPlane, tmp_path: Path
) -> None:
    assert headrace("get", "observations").stderr == "no observations\n"
    (one, first), (two, second) = (
        an_observation("gpt2-1.26b", "tp2", 2),
        an_observation("bert-large", "dp1", 1),
    )
    plane.observations = [first, second]
    table = headrace("get", "observations").stdout
    assert max(map(len, table.splitlines())) <= 80
    assert [line.split() for line in table.splitlines()] == [
        ["MODEL", "PLAN", "ON", "BATCH", "MS", "TOKENS/S", "TFLOP/S", "SHARE", "PEAK", "GIB"],
        ["bert-large", "dp1", "1", "16", "250.0", "65536", "400.0", "40.4%", "3.00"],
        ["gpt2-1.26b", "tp2", "2", "16", "250.0", "65536", "400.0", "40.4%", "3.00"],
    ]
    assert "NVIDIA H200" in headrace("get", "observation", "-o", "wide").stdout
    lost = PlanRow(
        one.asked, "dp2", Status.OUT_OF_MEMORY, "2", "ran out of memory in job a on H200"
    )
    plane.observations = [first, second, admin_pb2.Observation(measured=row_to_wire(lost))]
    told = headrace("get", "observations").stdout.splitlines()
    assert told[-1] == "gpt2-1.26b dp2: out-of-memory: ran out of memory in job a on H200"
    plane.observations = [first, second]
    file = tmp_path / "rows.jsonl"
    items = json.loads(headrace("get", "observations", "-o", "json").stdout)["items"]
    file.write_text("".join(json.dumps(item) + "\n" for item in items))
    assert rows_in(file) == [two, one]
    named = headrace("get", "observations", "gpt2-1.26b", "t5-small", "-o", "name")
    assert (named.exit_code, named.stdout) == (
        ExitCode.NOT_FOUND,
        "observation/gpt2-1.26b/tp2\n",
    )
    assert "there are some of bert-large, gpt2-1.26b" in named.stderr
    watched = headrace("get", "observations", "--watch")
    assert (watched.exit_code, "only jobs" in watched.stderr) == (ExitCode.USAGE, True)


def test_what_switches_cost_is_listed_by_model(headrace: Headrace, plane: FakeControlPlane) -> None:
    assert headrace("get", "switches").stderr == "no switches\n"
    plane.switch_prices = [
        admin_pb2.SwitchPrice(
            model=model,
            accelerators_before=2,
            accelerators_after=after,
            kind=kind,
            count=3,
            seconds_total=4.5,
            median_seconds=1.25,
            p90_seconds=2,
            highest_seconds=2.125,
            last_at=Timestamp(seconds=int(time.time()) - 7000),
        )
        for model, after, kind in (("llama-2-7b", 4, "Memory"), ("gpt2-1.26b", 1, "Restart"))
    ]
    table = headrace("get", "switches").stdout
    assert max(map(len, table.splitlines())) <= 80
    assert [re.split("  +", line) for line in table.splitlines()[1:]] == [
        ["gpt2-1.26b", "2 -> 1", "restart", "3", "1.25 s", "2.00 s", "2.12 s", "116m"],
        ["llama-2-7b", "2 -> 4", "memory", "3", "1.25 s", "2.00 s", "2.12 s", "116m"],
    ]
    (found,) = json.loads(headrace("get", "switch", "llama-2-7b", "-o", "json").stdout)["items"]
    assert (found["acceleratorsAfter"], found["medianSeconds"], found["kind"]) == (
        4,
        1.25,
        "Memory",
    )
    assert headrace("get", "switches", "-o", "name").stdout == (
        "switch/gpt2-1.26b/2-1/restart\nswitch/llama-2-7b/2-4/memory\n"
    )
    assert headrace("get", "switches", "t5-small").exit_code == ExitCode.NOT_FOUND


def test_snapshot_and_backup_are_files_of_their_owner(headrace: Headrace, tmp_path: Path) -> None:
    assert json.loads(headrace("snapshot").stdout) == {"jobs": {}}
    file = tmp_path / "store.backup"
    assert headrace("backup", str(file)).exit_code == ExitCode.OK
    assert file.read_bytes() == b"first half, second half"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_if_plays_a_snapshot_of_the_live_cluster_and_keeps_none(
    headrace: Headrace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = headrace("what-if", "--add-nodes", "1x8:cpu", "-o", "json")
    assert result.exit_code == ExitCode.OK, result.output
    told = json.loads(result.stdout)
    assert (told["jobs"], told["changes"]) == ([], ["8 accelerators (cpu) join on what-if-1"])
    assert not list(tmp_path.glob("headrace-what-if-*"))


@pytest.mark.parametrize(
    ("command", "writes"),
    [
        (("restore",), "headrace backup"),
        (("what-if", "--snapshot"), "headrace snapshot"),
    ],
)
def test_a_file_that_is_not_there_is_wrong_use_and_who_writes_such_files_is_told(
    headrace: Headrace, tmp_path: Path, command: tuple[str, ...], writes: str
) -> None:
    missing = headrace(*command, str(tmp_path / "gone"))
    assert missing.exit_code == ExitCode.USAGE
    assert f"{tmp_path / 'gone'}: there is no such file" in missing.stderr
    assert writes in missing.stderr


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
