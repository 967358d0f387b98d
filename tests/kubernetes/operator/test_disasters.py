"""docs/operations/disaster.md, followed: its commands, on a real API server and control plane.

Every command that is run here is looked up in the page first, with the page's names for what a
cluster calls otherwise.
"""

import asyncio
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from headrace.api.generated import admin_pb2
from tests.architecture.source_tree import ROOT
from tests.kubernetes.api_server import ApiServer
from tests.kubernetes.control_plane import ControlPlane, own_control_plane
from tests.kubernetes.fixtures import expect_programs
from tests.kubernetes.operator.conftest import CRDS
from tests.kubernetes.operator.processes import (
    Node,
    Process,
    Stage,
    a_stage,
    end,
    eventually,
    run,
    start_control_plane,
)
from tests.kubernetes.programs import API_SERVER, ETCD_TOOLS, program

pytestmark = [
    pytest.mark.process,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        os.environ.get("HEADRACE_RECOVERIES") != "1",
        reason="takes minutes: `make recoveries`",
    ),
]

PAGE = (ROOT / "docs" / "operations" / "disaster.md").read_text(encoding="utf-8")
PROGRAMS = {
    "python": [sys.executable],
    "headrace": [sys.executable, "-m", "headrace.cli.entry"],
}


def follow(command: str, api_server: ApiServer, **names: str) -> str:
    """Runs a command of the page, with these words in the place of its own; what it wrote."""
    assert f"\n{command}\n" in PAGE, f"the page has no line {command!r}"
    for word, own in names.items():
        command = command.replace(word, own)
    first, *words = shlex.split(command)
    if first == "kubectl":
        return api_server.kubectl(*words)
    start = PROGRAMS.get(first) or [str(program(first))]
    ended = subprocess.run([*start, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@asynccontextmanager
async def another_plane(stage: Stage) -> AsyncIterator[Process]:
    """The control plane again, at the same address, on what is at its store's place now."""
    stage.plane = await start_control_plane(stage.folder, stage.plane.told["grpc"])
    try:
        yield stage.plane
    finally:
        await end(stage.plane)


async def names_of_jobs(stage: Stage) -> list[str]:
    return sorted(job.name for job in await stage.jobs())


def remove_store(folder: Path) -> None:
    for file in folder.glob("headrace.db*"):
        file.unlink()


def test_a_lost_store_gets_its_jobs_from_the_objects(
    api_server: ApiServer, namespace: str, tmp_path: Path
) -> None:
    async def test() -> None:
        async with a_stage(api_server, namespace, tmp_path) as stage:
            operator = await stage.operator(identity="pod")
            async with Node(stage):
                done = stage.create("done")["metadata"]["uid"]
                await stage.condition("done", "Succeeded", "True")
            stage.create("waits", suspend=True)
            before = await stage.condition("waits", "Suspended", "True")
            await end(stage.plane)
            remove_store(tmp_path)
            async with another_plane(stage):
                await eventually("its objects are jobs again", lambda: _are(stage, "waits"))
                [job] = await stage.jobs()
                assert job.uid == before["metadata"]["uid"]
                # What has ended is not begun again, and keeps what its object says.
                found = await stage.condition("done", "Succeeded", "True")
                assert found["metadata"]["uid"] == done
                assert operator.process.returncode is None
                for name in ("done", "waits"):
                    follow(
                        "kubectl delete trainingjob NAME -n NAMESPACE --timeout=90s",
                        api_server,
                        NAMESPACE=namespace,
                        NAME=name,
                    )
                await stage.no_jobs()

    run(test())


async def _are(stage: Stage, *names: str) -> bool:
    return await names_of_jobs(stage) == sorted(names)


def test_a_store_from_an_old_backup_becomes_what_the_objects_say(
    api_server: ApiServer, namespace: str, tmp_path: Path
) -> None:
    backup, restored = tmp_path / "old.backup", tmp_path / "restored.db"

    async def test() -> None:
        async with a_stage(api_server, namespace, tmp_path) as stage:
            await stage.operator(identity="pod")
            # The stage waits long for nodes, of which it has none; it is part of the backup.
            short = admin_pb2.SetPolicyRequest(settings={"recovery_grace_seconds": "1"})
            await stage.api.admin.SetPolicy(short)
            for name in ("before", "edited"):
                stage.create(name, suspend=True)
                await stage.condition(name, "Suspended", "True")
            address = stage.plane.told["grpc"]
            await asyncio.to_thread(
                follow,
                "headrace backup old.backup",
                api_server,
                **{"old.backup": f"{backup} --server {address}"},
            )
            # After the backup one goes, one changes and one comes.
            stage.delete("before")
            await stage.gone("before")
            stage.patch("edited", {"spec": {"priority": 9}})
            stage.create("after", suspend=True)
            await stage.condition("after", "Suspended", "True")
            await end(stage.plane)
            remove_store(tmp_path)
            command = "python -m controlplane restore --from old.backup --database-url DATABASE"
            names = {"old.backup": str(backup), "DATABASE": f"sqlite:///{restored}"}
            await asyncio.to_thread(follow, command, api_server, **names)
            restored.rename(tmp_path / "headrace.db")
            async with another_plane(stage):
                await eventually("it is as the objects say", lambda: _are(stage, "edited", "after"))

                async def is_changed() -> bool:
                    jobs = {job.name: job for job in await stage.jobs()}
                    return jobs["edited"].priority == 9

                await eventually("the change is there again", is_changed)

    run(test())


@pytest.fixture
def cluster() -> Iterator[ControlPlane]:
    """Its own, to be set back."""
    expect_programs((*API_SERVER, *ETCD_TOOLS))
    with own_control_plane() as cluster:
        cluster.api_server.kubectl("apply", "--server-side", "-f", str(CRDS))
        cluster.api_server.kubectl("wait", "--for=condition=Established", "-f", str(CRDS))
        cluster.api_server.new_namespace("training")
        yield cluster


def test_an_api_server_that_was_set_back_is_what_counts(
    cluster: ControlPlane, tmp_path: Path
) -> None:
    api_server = cluster.api_server
    snapshot, data = tmp_path / "etcd.snapshot", tmp_path / "restored-etcd"

    async def test() -> None:
        async with a_stage(api_server, "training", tmp_path) as stage:
            operator = await stage.operator(identity="pod")
            for name in ("stays", "went"):
                stage.create(name, suspend=True)
                await stage.condition(name, "Suspended", "True")
            await asyncio.to_thread(
                follow,
                "etcdctl --endpoints ENDPOINT snapshot save etcd.snapshot",
                api_server,
                **{"etcd.snapshot": str(snapshot), "ENDPOINT": cluster.etcd},
            )
            stage.delete("went")
            await stage.gone("went")
            stage.create("late", suspend=True)
            await stage.condition("late", "Suspended", "True")
            await eventually("both are known", lambda: _are(stage, "late", "stays"))

            command = (
                "etcdutl snapshot restore etcd.snapshot --data-dir DATA --bump-revision 1000000000 "
                "--mark-compacted"
            )
            names = {
                "etcd.snapshot": str(snapshot),
                # The member of this test has a name and an address of its own.
                "DATA": f"{data} --name test --initial-cluster test=http://127.0.0.1:0 "
                "--initial-advertise-peer-urls http://127.0.0.1:0",
            }
            await asyncio.to_thread(follow, command, api_server, **names)
            await asyncio.to_thread(cluster.restart, data)
            await eventually("the jobs follow", lambda: _are(stage, "stays", "went"))
            await stage.condition("went", "Suspended", "True")
            assert stage.find("late") is None
            assert operator.process.returncode in (None, 3)
            if operator.process.returncode is None:
                operator.send(signal.SIGTERM)
                assert await operator.ends() == 0

    run(test())


def test_without_control_plane_and_operator_an_object_goes_by_hand(
    api_server: ApiServer, namespace: str, tmp_path: Path
) -> None:
    async def test() -> None:
        async with a_stage(api_server, namespace, tmp_path) as stage:
            operator = await stage.operator(identity="pod")
            for name in ("abandoned", "freed"):
                stage.create(name, suspend=True)
                await stage.condition(name, "Suspended", "True")
            await end(stage.plane)
            for name in ("abandoned", "freed"):
                stage.delete(name)
            follow(
                "kubectl annotate trainingjob NAME -n NAMESPACE headrace.dev/abandon=true",
                api_server,
                NAMESPACE=namespace,
                NAME="abandoned",
            )
            await stage.gone("abandoned")
            assert stage.find("freed") is not None
            await end(operator)
            follow(
                "kubectl patch trainingjob NAME -n NAMESPACE --type=merge -p "
                """'{"metadata":{"finalizers":null}}'""",
                api_server,
                NAMESPACE=namespace,
                NAME="freed",
            )
            await stage.gone("freed")

    run(test())
