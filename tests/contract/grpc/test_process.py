"""The control plane as a process: ready line, signals, restarts, standing by, and refusals."""

import asyncio
import json
import os
import signal
import socket
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sqlalchemy import Connection

from controlplane.domain.clock import Instant
from controlplane.edges.grpc_server.server import ListenRefusedError
from controlplane.edges.store import lease
from controlplane.edges.store.errors import StoreError
from controlplane.edges.store.store import Store
from controlplane.edges.wall_clock import WallClock
from controlplane.main import BROKEN, ControlPlane, main, running, serve
from headrace.api.generated import admin_pb2, jobs_pb2, jobs_pb2_grpc, nodes_pb2
from tests.contract.grpc.harness import (
    PATIENCE_SECONDS,
    Agent,
    a_request,
    an_api,
    eventually,
    launches,
    over,
    refusal,
    run,
    settings,
)


@dataclass(slots=True)
class Child:
    """A control plane in a process of its own."""

    process: asyncio.subprocess.Process
    told: dict[str, Any]

    async def ends(self) -> int:
        """Its exit code."""
        return await self.process.wait()


async def start(folder: Path, *flags: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "controlplane",
        *flags,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "HEADRACE_DATABASE_URL": f"sqlite:///{folder / 'headrace.db'}"},
    )


@asynccontextmanager
async def a_child(folder: Path, *flags: str) -> AsyncIterator[Child]:
    process = await start(
        folder, "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", *flags
    )
    assert process.stdout is not None
    assert process.stderr is not None
    drain = asyncio.create_task(process.stderr.read())
    try:
        line = await process.stdout.readline()
        yield Child(process, json.loads(line))
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await drain


def test_a_process_says_where_it_listens_and_stops_on_sigterm(tmp_path: Path) -> None:
    async def test() -> None:
        async with a_child(tmp_path, "--ready-file", str(tmp_path / "ready")) as child:
            told = child.told
            async with grpc.aio.insecure_channel(told["grpc"]) as channel:
                api = over(None, channel)  # type: ignore[arg-type]
                created = await api.submit()
            child.process.send_signal(signal.SIGTERM)
            code = await child.ends()
        assert told["ready"] is True
        assert json.loads((tmp_path / "ready").read_text()) == told
        assert code == 0
        async with an_api(tmp_path) as later:
            assert (await later.job(created.uid)).name == "train"

    run(test())


def test_what_was_acknowledged_survives_kill_9_and_is_adopted(tmp_path: Path) -> None:
    async def test() -> None:
        async with (
            a_child(tmp_path, "--holder", "test") as child,
            grpc.aio.insecure_channel(child.told["grpc"]) as channel,
        ):
            api = over(None, channel)  # type: ignore[arg-type]
            await api.be_patient()
            created = await api.submit()
            agent = Agent(api)
            await agent.register()
            launch = (await agent.assigned(launches)).launches[0]
            await agent.started(launch)
            await agent.progressed(launch, 5, 2.0)
            child.process.kill()
            await child.ends()
        async with an_api(tmp_path) as api:
            recovering = await api.admin.GetCluster(admin_pb2.GetClusterRequest())
            held_back = await api.job(created.uid)
            again = Agent(api)
            silent = await again.report()
            await again.register(
                running=[
                    nodes_pb2.RunningUnit(
                        uid=launch.uid,
                        attempt=launch.attempt,
                        unit=unit.index,
                        accelerators=unit.accelerators,
                    )
                    for unit in launch.units
                ],
                highest_attempts=[nodes_pb2.SeenAttempt(uid=launch.uid, attempt=1)],
                highest_term=agent.term,
            )
            kept = await again.assigned(launches)

            async def decides() -> bool:
                cluster = await api.admin.GetCluster(admin_pb2.GetClusterRequest())
                return cluster.state == "deciding"  # type: ignore[no-any-return]

            await eventually(decides)
            await again.progressed(launch, 6, 1.9)
            job = await api.until_step(created.uid, 6)
            losses = await api.jobs.GetLosses(jobs_pb2.GetLossesRequest(uid=created.uid))
        assert recovering.state == "recovering"
        running_said = {c.type: c.status for c in held_back.status.conditions}["Running"]
        assert running_said == "Unknown"
        assert silent.register_again
        assert kept.term > agent.term
        assert [(x.attempt, x.intent) for x in kept.launches] == [(1, nodes_pb2.Launch.INTENT_RUN)]
        assert job.status.attempt == 1
        assert [point.step for point in losses.points] == [5, 6]

    run(test())


def test_nothing_is_decided_while_known_nodes_are_silent(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            await Agent(api).register()
            await Agent(api, "node-b").register()
        async with an_api(tmp_path) as api:
            created = await api.submit()
            await Agent(api).register()
            cluster = await api.admin.GetCluster(admin_pb2.GetClusterRequest())
            waiting = await api.job(created.uid)
            await Agent(api, "node-b").register()
            await api.until_stage(created.uid, "Starting")
        assert cluster.state == "recovering"
        assert waiting.status.stage == "Queued"

    run(test())


def test_a_second_control_plane_stands_by_and_takes_over(tmp_path: Path) -> None:
    async def test() -> None:
        first = ControlPlane(settings(tmp_path, holder="first"))
        deciding = asyncio.create_task(first.run())
        await first.ready.wait()
        second = ControlPlane(settings(tmp_path, holder="second"))
        standing_by = asyncio.create_task(second.run())

        async def stands_by() -> bool:
            return bool(second.address) and "first" in second.condition

        await eventually(stands_by)
        async with grpc.aio.insecure_channel(second.address) as channel:
            api = over(second, channel)
            submitted = await refusal(api.jobs.SubmitJob(a_request()))
            cluster = await api.admin.GetCluster(admin_pb2.GetClusterRequest())
            health = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest()
            )
            first.stop()
            assert await deciding == 0
            await second.ready.wait()
            accepted = await api.submit()
        second.stop()
        assert await standing_by == 0
        assert submitted.code() is grpc.StatusCode.UNAVAILABLE
        assert "first" in (submitted.details() or "")
        assert (cluster.term, "standing by" in cluster.state) == (0, True)
        assert health.status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert accepted.result == "created"

    run(test())


def test_a_control_plane_whose_term_is_taken_ends_with_a_code(tmp_path: Path) -> None:
    async def test() -> None:
        ours = settings(tmp_path)
        plane = ControlPlane(ours)
        task = asyncio.create_task(plane.run())
        await plane.ready.wait()
        store = Store.open(ours.database_url)
        try:
            # The same holder gets in at once: somebody started it twice.
            store.acquire_term("test", WallClock().now())
        finally:
            store.close()
        async with grpc.aio.insecure_channel(plane.address) as channel:
            error = await refusal(over(plane, channel).jobs.SubmitJob(a_request()))
        assert await task == 3
        # The second is gRPC's answer to a call that reaches a server which is ending already.
        assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)

    run(test())


def test_a_store_that_is_away_is_told_and_survived(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            created = await api.submit()
            health = health_pb2_grpc.HealthStub(api.channel)

            async def status() -> int:
                answer = await health.Check(health_pb2.HealthCheckRequest())
                return int(answer.status)

            async def serving() -> bool:
                return bool(await status() == health_pb2.HealthCheckResponse.SERVING)

            async def away() -> bool:
                return bool(await status() == health_pb2.HealthCheckResponse.NOT_SERVING)

            await eventually(serving)
            # Somebody else's transaction holds the only write lock there is.
            other = sqlite3.connect(tmp_path / "headrace.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            try:
                error = await refusal(api.jobs.SubmitJob(a_request("second"), timeout=30))
                await eventually(away)
                still = await api.job(created.uid)
            finally:
                other.execute("ROLLBACK")
                other.close()
            await eventually(serving)
            accepted = await api.submit("second")
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "locked" in (error.details() or "")
        assert still.name == "train"
        assert accepted.result == "created"

    run(test())


def test_a_deadline_is_honoured_while_the_store_is_slow(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            other = sqlite3.connect(tmp_path / "headrace.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            try:
                error = await refusal(api.jobs.SubmitJob(a_request(), timeout=0.3))
            finally:
                other.execute("ROLLBACK")
                other.close()
            # Whether it was stored is found out by asking again: one job, whatever happened.
            answer = await api.submit()
            listed = await api.jobs.ListJobs(jobs_pb2.ListJobsRequest())
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert answer.result in ("created", "unchanged")
        assert [job.uid for job in listed.jobs] == [answer.uid]

    run(test())


def test_a_process_that_cannot_start_says_why(tmp_path: Path) -> None:
    async def test() -> None:
        process = await start(tmp_path, "--listen", "0.0.0.0:0")
        _, errors = await process.communicate()
        assert process.returncode == 2
        assert "--insecure-listen" in errors.decode()

    run(test())


def test_a_store_that_breaks_in_mid_reign_is_not_told_as_one_that_cannot_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = tmp_path / "ready"

    async def test() -> int:
        serving = asyncio.create_task(serve(settings(tmp_path, ready_file=told)))

        async def ready() -> bool:
            return told.exists()

        await eventually(ready)
        with sqlite3.connect(tmp_path / "headrace.db") as database:
            refused = (
                "CREATE TRIGGER t BEFORE INSERT ON decisions BEGIN SELECT RAISE(ABORT, 'no'); END"
            )
            database.execute(refused)
        async with grpc.aio.insecure_channel(json.loads(told.read_text())["grpc"]) as channel:
            jobs = jobs_pb2_grpc.JobServiceStub(channel)  # type: ignore[no-untyped-call]
            await jobs.SubmitJob(a_request())
            return await serving

    assert run(test()) == BROKEN
    assert "the control plane ends: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "kind", "told"),
    [
        ({"listen": "0.0.0.0:0"}, ListenRefusedError, "--insecure-listen"),
        ({"metrics_listen": "0.0.0.0:0"}, ListenRefusedError, "--insecure-listen"),
        (
            {"metrics_listen": "192.0.2.1:1", "insecure_listen": True},
            ListenRefusedError,
            "for metrics",
        ),
        ({"database_url": "mysql://x/y"}, StoreError, "mysql"),
    ],
)
def test_what_cannot_start_is_refused_with_a_sentence(
    changes: dict[str, Any], kind: type[Exception], told: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=told):
        run(ControlPlane(settings(tmp_path, **changes)).run())


def test_an_address_that_is_taken_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ListenRefusedError, match=f"cannot listen on {address}"):
            run(ControlPlane(settings(tmp_path, listen=address)).run())


def test_the_lease_is_renewed_while_a_large_state_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one that stands by takes the term from a starter that has not begun."""
    renewed = threading.Event()
    loaded: list[bool] = []
    renew, load = lease.renew, Store.load

    def noted(connection: Connection, now: Instant) -> None:
        renew(connection, now)
        renewed.set()

    def slow(store: Store, kind: Any) -> Any:
        loaded.append(renewed.wait(PATIENCE_SECONDS / 2))
        return load(store, kind)

    monkeypatch.setattr(lease, "renew", noted)
    monkeypatch.setattr(Store, "load", slow)

    async def test() -> None:
        async with an_api(tmp_path) as api:
            assert api.plane.condition == "deciding"

    run(test())
    assert loaded == [True]


def test_restoring_what_is_not_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = f"sqlite:///{tmp_path / 'new.db'}"
    arguments = ["restore", "--from", str(tmp_path / "missing"), "--database-url", target]
    assert main(arguments) == 2
    assert "nothing was restored" in capsys.readouterr().err


def test_an_open_address_is_accepted_when_someone_insists(tmp_path: Path) -> None:
    async def test() -> None:
        open_to_all = settings(tmp_path, listen="0.0.0.0:0", insecure_listen=True)
        async with running(open_to_all) as plane:
            port = plane.address.rpartition(":")[2]
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                assert (await over(plane, channel).submit()).result == "created"

    run(test())


def test_a_control_plane_at_rest_is_small(tmp_path: Path) -> None:
    async def test() -> None:
        async with a_child(tmp_path) as child:
            async with grpc.aio.insecure_channel(child.told["grpc"]) as channel:
                api = over(None, channel)  # type: ignore[arg-type]
                await api.admin.GetCluster(admin_pb2.GetClusterRequest())
            path = Path(f"/proc/{child.process.pid}/status")
            status = await asyncio.to_thread(path.read_text)
        resident_kib = int(status.split("VmRSS:")[1].split()[0])
        assert resident_kib < 150 * 1024

    run(test())
