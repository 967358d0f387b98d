"""The agent's own client against the real control plane, over real sockets and mutual TLS."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from agent.control_plane_client import ControlPlaneClient, NodeDescription, Tls
from agent.journal import Journal
from agent.outbox import Outbox
from agent.units import Units, UnitSettings
from controlplane.domain.ids import AcceleratorId
from controlplane.domain.node import Accelerator
from controlplane.edges.grpc_server.roles import Role
from headrace.api.generated import admin_pb2
from tests.contract.grpc.certificates import Authority, Pair, write
from tests.contract.grpc.harness import Api, eventually, over, run
from tests.contract.grpc.secured import World, a_world


class FullRay:
    """A Ray that has room for nothing: every order is answered without starting a process."""

    async def wait_joined(self, seconds: float) -> bool:
        return True

    async def start_unit(self, name: str, spec: dict[str, Any]) -> str:
        return "this Ray is full"

    async def kill(self, name: str) -> None:
        pass

    async def head_answers(self) -> bool:
        return True

    def rejoin(self) -> None:
        pass


@asynccontextmanager
async def an_agent(folder: Path, world: World, pair: Pair) -> AsyncIterator[Units]:
    """An agent of node-a that shows this certificate, with a state folder of its own."""
    wake = asyncio.Event()
    journal, outbox = Journal(folder / "journal.jsonl"), Outbox()
    slot = Accelerator(AcceleratorId("slot-0"), "cpu")
    settings = UnitSettings("node-a", folder)
    units = Units(settings, {"slot-0": slot}, journal, outbox, FullRay(), wake.set)
    files = write(folder, ca=world.authority.pem, certificate=pair.certificate, key=pair.key)
    client = ControlPlaneClient(
        world.address,
        NodeDescription("node-a", "127.0.0.1"),
        units,
        journal,
        outbox,
        wake,
        Tls(**files),
    )
    working = asyncio.create_task(client.run())
    try:
        yield units
    finally:
        await units.close(end_units=False)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        journal.close()


async def nodes(api: Api) -> list[tuple[str, str]]:
    answer = await api.admin.ListNodes(admin_pb2.ListNodesRequest())
    return [(status.node.name, status.contact) for status in answer.nodes]


def told(log: Any, event: str) -> Any:
    """Whether an agent has logged it: an awaitable question."""

    async def answer() -> Any:
        return next((entry for entry in list(log) if entry["event"] == event), None)

    return answer


def test_an_agent_registers_gets_an_order_and_reports(tmp_path: Path) -> None:
    async def test() -> None:
        async with (
            a_world(tmp_path) as world,
            world.authority.channel(world.address, world.pairs[Role.ADMIN]) as channel,
            an_agent(tmp_path / "a", world, world.pairs[Role.AGENT]) as units,
        ):
            api = over(world.plane, channel)
            created = await api.submit(retries={"max": 0})
            failed = await api.until_stage(created.uid, "Failed")
            online = await nodes(api)
        assert units.assignment is not None
        assert units.assignment.term == 1
        assert "this Ray is full" in failed.status.reason.message
        assert online == [("node-a", "Online")]

    run(test())


@pytest.mark.parametrize("whose", ["node-b", "user", "nobody", "other authority"])
def test_an_agent_with_a_certificate_of_someone_else_is_refused(tmp_path: Path, whose: str) -> None:
    async def test() -> None:
        async with (
            a_world(tmp_path) as world,
            world.authority.channel(world.address, world.pairs[Role.ADMIN]) as channel,
        ):
            pair = {
                "node-b": world.authority.sign("node-b.example.org"),
                "user": world.pairs[Role.SUBMITTER],
                "nobody": world.authority.sign("nobody.example.org"),
                "other authority": Authority("another").sign("node-a.example.org"),
            }[whose]
            stranger = whose == "other authority"
            with capture_logs() as log:
                async with an_agent(tmp_path / "a", world, pair) as units:
                    await over(world.plane, channel).submit()
                    event = "control_plane_away" if stranger else "refused"
                    refused = await eventually(told(log, event))
            known = await nodes(over(world.plane, channel))
        assert refused["code"] == ("UNAVAILABLE" if stranger else "PERMISSION_DENIED")
        assert known == []
        assert units.assignment is None

    run(test())


def test_a_second_agent_says_who_is_there_already_and_disturbs_nobody(tmp_path: Path) -> None:
    async def test() -> None:
        async with a_world(tmp_path) as world:
            pair = world.pairs[Role.AGENT]
            with capture_logs() as log:
                async with an_agent(tmp_path / "a", world, pair) as first:

                    async def obeys() -> bool:
                        return first.assignment is not None

                    await eventually(obeys)
                    async with an_agent(tmp_path / "b", world, pair) as second:
                        refused = await eventually(told(log, "refused"))
                        barred = second.assignment is None
            again = [entry for entry in log if entry["event"] == "registered"]
        assert refused["code"] == "ALREADY_EXISTS"
        assert "another agent speaks for node-a" in refused["why"]
        assert barred
        assert len(again) == 1

    run(test())
