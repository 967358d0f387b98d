"""The shared cluster lives exactly as long as somebody holds it, however its holders end."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from headrace.api.processes import Process, process
from tests.architecture.source_tree import ROOT
from tests.kubernetes.control_plane import NotStartedError, local_cluster
from tests.kubernetes.fixtures import expect_programs
from tests.kubernetes.keeper import SharedCluster
from tests.kubernetes.programs import API_SERVER, program
from tests.kubernetes.waiting import until

pytestmark = pytest.mark.process

HOLDING = """
import sys
from pathlib import Path
from tests.kubernetes.keeper import SharedCluster

held = SharedCluster.join(Path(sys.argv[1]))
print("holds", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a test run of its own."""
    expect_programs(API_SERVER)
    return tmp_path


@pytest.fixture
def other_worker(run: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds the cluster until it is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(run)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "holds\n"
        yield worker
        worker.kill()


def processes(cluster: SharedCluster) -> dict[str, Process]:
    found = {name: process(pid) for name, pid in cluster.pids.items()}
    assert set(found) >= {"etcd", "kube-apiserver", "kube-controller-manager", "keeper"}
    return {name: one for name, one in found.items() if one}


@pytest.mark.failure
def test_the_cluster_outlives_who_started_it_and_not_who_leaves_last(
    run: Path, other_worker: "subprocess.Popen[str]"
) -> None:
    cluster = SharedCluster.join(run)
    running = processes(cluster)
    # This worker may have children of its own, from other tests: none of the cluster is among them.
    assert {one.pid for one in psutil.Process().children()}.isdisjoint(cluster.pids.values())

    other_worker.kill()  # it started the cluster; the kernel closes its connection
    other_worker.wait()
    assert cluster.api_server.has_default_account("default")
    assert all(one.alive for one in running.values())

    cluster.leave()
    assert not cluster.folder.exists()
    until("all has ended", lambda: not any(one.alive for one in running.values()))


@pytest.mark.failure
def test_who_leaves_does_not_end_it_for_others(
    run: Path, other_worker: "subprocess.Popen[str]"
) -> None:
    first = SharedCluster.join(run)
    running = processes(first)
    first.leave()
    second = SharedCluster.join(run)
    assert processes(second) == running

    # Killed all at once, as by a machine that is out of patience.
    other_worker.kill()
    second.leave()
    until("all has ended", lambda: not any(one.alive for one in running.values()))


@pytest.mark.failure
def test_a_killed_keeper_takes_the_cluster_with_it_and_the_next_worker_starts_another(
    run: Path,
) -> None:
    first = SharedCluster.join(run)
    running = processes(first)
    running["keeper"].signal(signal.SIGKILL)
    until("all has ended", lambda: not any(one.alive for one in running.values()))

    second = SharedCluster.join(run)
    assert set(processes(second).values()).isdisjoint(running.values())
    assert second.api_server.has_default_account("default")
    second.leave()
    first.leave()
    shutil.rmtree(first.folder)  # its keeper could not


@pytest.mark.failure
def test_who_joins_a_broken_cluster_is_told(run: Path) -> None:
    cluster = SharedCluster.join(run)
    processes(cluster)["etcd"].signal(signal.SIGKILL)

    def refused() -> str:
        try:
            SharedCluster.join(run).leave()
        except NotStartedError as error:
            return str(error)
        return ""  # its threads are still ending

    assert "etcd ended with -9" in until("who joins is told", refused)
    cluster.leave()
    assert not cluster.folder.exists()


def test_what_does_not_start_is_told_with_what_it_wrote_last(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expect_programs(API_SERVER)
    (tmp_path / "etcd").symlink_to(program("etcd"))
    broken = tmp_path / "kube-apiserver"
    broken.write_text("#!/bin/sh\necho no such flag >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    with (
        pytest.raises(NotStartedError, match="kube-apiserver ended with 3:\nno such flag"),
        local_cluster(),
    ):
        pytest.fail("it started without an API server")


def test_a_cluster_for_a_with_block_needs_no_keeper() -> None:
    expect_programs(API_SERVER)
    before = set(psutil.Process().children())
    with local_cluster() as api_server:
        assert "kube-system" in api_server.kubectl("get", "namespaces")
        started = set(psutil.Process().children()) - before
        assert len(started) == 3
    assert not any(one.is_running() for one in started)
    assert not api_server.folder.exists()
