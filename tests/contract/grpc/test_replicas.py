"""Several control planes on one store: clients find who decides, probes say who is what."""

import asyncio
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc

from controlplane.main import ControlPlane
from headrace.api.generated import admin_pb2
from headrace.api.replicas import who_decides
from tests.contract.grpc.harness import eventually, over, run, settings

CLUSTER = admin_pb2.GetClusterRequest()


@asynccontextmanager
async def a_replica(folder: Path, name: str, database_url: str = "") -> AsyncIterator[ControlPlane]:
    told = settings(folder, holder=name)
    plane = ControlPlane(replace(told, database_url=database_url or told.database_url))
    task = asyncio.create_task(plane.run())

    async def listens() -> bool:
        return bool(plane.address)

    await eventually(listens)
    try:
        yield plane
    finally:
        plane.stop()
        await task


def page(plane: ControlPlane, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{plane.metrics_address}{path}") as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


async def says(plane: ControlPlane, words: str) -> tuple[int, str]:
    """What ``/ready`` answers, once it says that."""

    async def said() -> tuple[int, str] | None:
        told = await asyncio.to_thread(page, plane, "/ready")
        return told if words in told[1] else None

    return await eventually(said)


def test_calls_go_to_the_one_that_decides_also_when_that_is_another(tmp_path: Path) -> None:
    async def test() -> None:
        async with a_replica(tmp_path, "a") as decider:
            await decider.ready.wait()
            await takes_over(tmp_path, decider)

    async def takes_over(folder: Path, decider: ControlPlane) -> None:
        async with a_replica(folder, "b") as other:
            both = f"ipv4:{decider.address},{other.address}"
            async with grpc.aio.insecure_channel(both, options=who_decides("dns:///x")) as channel:
                api = over(decider, channel)
                await channel.channel_ready()
                # Both would be asked in turn by a client that does not ask for their health.
                for number in range(6):
                    await api.submit(f"job-{number}")
                decider.stop()

                async def goes_on() -> bool:
                    try:
                        await api.submit("later")
                    except grpc.aio.AioRpcError as error:
                        if error.code() is not grpc.StatusCode.UNAVAILABLE:
                            raise
                        return False
                    return True

                await eventually(goes_on)
            assert other.ready.is_set()

    run(test())


def test_who_stands_by_is_ready_and_says_so(tmp_path: Path) -> None:
    async def test() -> None:
        async with a_replica(tmp_path, "a") as decider:
            await decider.ready.wait()
            assert (await says(decider, "deciding"))[0] == 200
            async with a_replica(tmp_path, "b") as other:
                assert (await says(other, "standing by"))[0] == 200
            assert page(decider, "/live")[0] == 200
            assert "headrace_term" in page(decider, "/metrics")[1]

    run(test())


def test_without_its_store_it_is_live_and_not_ready(tmp_path: Path) -> None:
    async def test() -> None:
        away = "postgresql://nobody@127.0.0.1:1/headrace"
        async with a_replica(tmp_path, "a", away) as plane:
            code, said = await says(plane, "127.0.0.1")
            assert code == 503, said
            assert page(plane, "/live")[0] == 200

    run(test())
