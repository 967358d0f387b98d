"""The command line against the real control plane: the same words on both sides of the wire."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from headrace.api.manifest import TrainingJob, parse
from headrace.cli.exit_codes import ExitCode
from headrace.cli.local_cluster import database_url
from headrace.client.context import Context, write
from tests.contract.cli.conftest import unpointed
from tests.contract.cli.fake_control_plane import manifest

pytestmark = pytest.mark.process


def serve(home: Path) -> "subprocess.Popen[str]":
    """A control plane on the home's store; the home's context names it when this returns."""
    home.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "controlplane", "serve", "--listen", "127.0.0.1:0"]
    command += ["--metrics-listen", "none", "--database-url", database_url(home)]
    log = (home / "controlplane.log").open("a")
    with log:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    assert server.stdout is not None
    line = server.stdout.readline()
    assert line, (home / "controlplane.log").read_text()
    write(home, Context(json.loads(line)["grpc"], local=True))
    return server


def stop(server: "subprocess.Popen[str]") -> None:
    server.send_signal(signal.SIGTERM)
    server.communicate(timeout=60)


@pytest.fixture
def real(home: Path) -> Iterator[Path]:
    server = serve(home)
    try:
        yield home
    finally:
        if server.poll() is None:
            stop(server)


def test_a_job_comes_in_is_explained_and_goes(real: Path, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(manifest("a", env=[{"name": "TOKEN", "value": "hunter2"}])))
    assert unpointed("apply", "--dry-run", "-f", str(file)).exit_code == ExitCode.OK
    assert unpointed("get", "jobs", "-o", "name").stdout == ""
    assert unpointed("apply", "-f", str(file)).stdout == "job/a created\n"
    assert unpointed("apply", "-f", str(file)).stdout == "job/a unchanged\n"

    document = yaml.safe_load(unpointed("get", "job", "a", "-o", "yaml").stdout)
    found = parse(document)
    assert isinstance(found, TrainingJob), found
    assert found.metadata.generation == 1
    again = unpointed("apply", "-f", "-", stdin=json.dumps(document))
    assert again.stdout == "job/a unchanged\n", again.output

    deadline = time.monotonic() + 60
    while "NoMatchingAccelerator" not in (told := unpointed("explain", "a").stdout):
        assert time.monotonic() < deadline, told
    for command in (
        ("describe", "job", "a"),
        ("events", "-o", "json"),
        ("snapshot",),
        ("top",),
        ("what-if", "--add-nodes", "1x1:cpu"),
    ):
        result = unpointed(*command)
        assert result.exit_code == ExitCode.OK, (command, result.output)
        assert "hunter2" not in result.output, command

    assert unpointed("delete", "a", "--wait", "--timeout", "60").exit_code == ExitCode.OK
    assert unpointed("get", "job", "a").exit_code == ExitCode.NOT_FOUND


def test_what_the_control_plane_refuses_names_the_line(real: Path, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    wrong = manifest("a", queue="nowhere", managedBy="kueue.x-k8s.io/multikueue")
    file.write_text(yaml.safe_dump(wrong, sort_keys=False))
    line = file.read_text().splitlines().index("  managedBy: kueue.x-k8s.io/multikueue") + 1
    result = unpointed("apply", "-f", str(file))
    assert result.exit_code == ExitCode.REFUSED
    assert f"{file}:{line}: spec.managedBy:" in result.stderr


def test_queues_and_policies_are_kept(real: Path) -> None:
    assert unpointed("queue", "set", "research", "--quota", "2").exit_code == ExitCode.OK
    queues = json.loads(unpointed("get", "queues", "-o", "json").stdout)["items"]
    assert {each["name"]: each.get("quotaAccelerators") for each in queues}["research"] == 2
    assert unpointed("policy", "set", "policy=fifo").stdout == "policy: rubick -> fifo\n"
    wrong = unpointed("policy", "set", "policy=best")
    assert wrong.exit_code == ExitCode.REFUSED, wrong.output
    assert unpointed("drain", "node-x").exit_code == ExitCode.NOT_FOUND
    assert unpointed("queue", "delete", "research").exit_code == ExitCode.OK


def test_a_backup_restores_into_the_home_and_the_old_store_is_kept(
    real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = json.dumps(manifest("a"))
    assert unpointed("apply", "-f", "-", stdin=text).exit_code == ExitCode.OK
    file = tmp_path / "store.backup"
    assert unpointed("backup", str(file)).exit_code == ExitCode.OK
    fresh = tmp_path / "fresh"
    monkeypatch.setenv("HEADRACE_HOME", str(fresh))
    fresh.mkdir()
    (fresh / "headrace.db").write_bytes(b"an older store")
    (cut := tmp_path / "cut").write_bytes(file.read_bytes()[:-9])
    for unusable, code in ((cut, ExitCode.REFUSED), (tmp_path / "none", ExitCode.USAGE)):
        result = unpointed("restore", str(unusable))
        assert result.exit_code == code, result.output
        assert result.stderr.count("\n") == 1, "said once"
        assert str(unusable) in result.stderr
        assert [each.name for each in fresh.glob("*.db*")] == ["headrace.db"]
        assert (fresh / "headrace.db").read_bytes() == b"an older store"
    result = unpointed("restore", str(file))
    assert result.exit_code == ExitCode.OK, result.output
    assert (fresh / "headrace.db.before-restore-1").read_bytes() == b"an older store"
    again = unpointed("restore", str(file), "--database-url", database_url(fresh))
    assert again.exit_code == ExitCode.REFUSED, again.output
    server = serve(fresh)
    try:
        address = Context(json.loads((fresh / "context.json").read_text())["server"]).server
        told = unpointed("--server", address, "get", "jobs", "-o", "name")
        assert told.stdout == "job/a\n", told.output
    finally:
        stop(server)
