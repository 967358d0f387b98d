"""An agent with a control plane one version newer or older: both ways, over a real socket.

The other version is played by messages that are made from descriptors: those of the release, or
today's with what a newer version may add to them.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from agent.control_plane_client import ControlPlaneClient, NodeDescription
from agent.journal import Journal
from agent.outbox import Outbox
from agent.units import Units, UnitSettings
from controlplane.domain.ids import AcceleratorId
from controlplane.domain.node import Accelerator
from headrace.api.generated import admin_pb2, jobs_pb2
from tests.contract.grpc.dialects import (
    INTENT_PAUSE,
    PACKAGE,
    Dialect,
    earlier_version,
    next_version,
)
from tests.contract.grpc.harness import Api, an_api, eventually, manifest, refusal, run
from tests.contract.grpc.test_agent import FullRay

DIALECTS = [earlier_version(), next_version()]
both = pytest.mark.parametrize("dialect", DIALECTS, ids=[one.name for one in DIALECTS])


class PlayedAgent:
    """Node-a's agent as another version has it: two slots, and it does as it is told."""

    def __init__(self, dialect: Dialect, api: Api) -> None:
        self.dialect = dialect
        self.api = api

    def call(self, method: str, request: Any) -> Any:
        return self.dialect.call(self.api.channel, method)(request)

    async def register(self) -> Any:
        said = self.dialect.message
        slots = [said("Accelerator", id=f"slot-{n}", type="cpu") for n in range(2)]
        node = said(
            "Node", name="node-a", address="127.0.0.1", accelerators=slots, agent_version="other"
        )
        request = said("RegisterNodeRequest", node=node)
        return await self.call("RegisterNode", request)

    async def assigned(self, holds: Callable[[Any], bool]) -> Any:
        """The first assignment that is as wanted."""
        request = self.dialect.message("WatchAssignmentsRequest", node="node-a")
        stream = self.call("WatchAssignments", request)
        try:
            async for assignment in stream:
                if holds(assignment):
                    return assignment
        finally:
            stream.cancel()
        raise AssertionError("the stream of assignments ended")

    async def launch(self) -> Any:
        """The one launch that is ordered, once it is."""
        (launch,) = (await self.assigned(lambda one: bool(one.launches))).launches
        return launch

    async def report(self, launch: Any, **happened: Any) -> Any:
        """Says of each unit what happened: a list of the report, and what its entries hold."""
        names = {"started": "UnitStarted", "exited": "UnitExited", "paused": "UnitStarted"}
        entries = {
            kind: [
                self.dialect.message(
                    names[kind], uid=launch.uid, attempt=launch.attempt, unit=unit.index, **what
                )
                for unit in launch.units
            ]
            for kind, what in happened.items()
        }
        request = self.dialect.message("ReportRequest", node="node-a", **entries)
        return await self.call("Report", request)

    async def tell(self, launch: Any, kind: str, entry: str, **what: Any) -> Any:
        """Says one thing of a launch as a whole."""
        said = self.dialect.message(entry, uid=launch.uid, attempt=launch.attempt, **what)
        request = self.dialect.message("ReportRequest", node="node-a", **{kind: [said]})
        return await self.call("Report", request)


@both
def test_an_agent_of_another_version_runs_a_job_to_its_end(
    tmp_path: Path, dialect: Dialect
) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            uid = (await api.submit()).uid
            agent = PlayedAgent(dialect, api)
            registered = await agent.register()
            launch = await agent.launch()
            await agent.tell(launch, "rendezvous", "RendezvousBound", address="127.0.0.1:4000")
            await agent.report(launch, started={})
            met = await agent.assigned(lambda one: bool(one.launches[0].rendezvous))
            await agent.tell(
                launch,
                "progress",
                "ProgressReport",
                progress=dialect.message("Progress", step=7, loss=2.5, step_seconds=0.1),
                losses=[dialect.message("StepLoss", step=7, loss=2.5)],
            )
            running = await api.until_step(uid, 7)
            answer = await agent.report(launch, exited={"outcome": "Succeeded", "step": 100})
            await api.until_stage(uid, "Succeeded")
            empty = await agent.assigned(lambda one: not one.launches)
            (node,) = (await api.admin.ListNodes(admin_pb2.ListNodesRequest())).nodes
            losses = await api.jobs.GetLosses(jobs_pb2.GetLossesRequest(uid=uid))
        assert (registered.term, registered.heartbeat_seconds) == (1, 200.0)
        assert (launch.plan, launch.ranks_total, launch.intent) == ("dp2", 2, 1)
        assert met.launches[0].rendezvous == "127.0.0.1:4000"
        assert empty.number > met.number
        assert running.status.progress.loss == 2.5
        assert not answer.register_again
        assert (node.node.agent_version, node.contact) == ("other", "Online")
        assert [(point.step, point.loss) for point in losses.points] == [(7, 2.5)]

    run(test())


def test_what_only_a_newer_agent_can_say_breaks_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            uid = (await api.submit(retries={"max": 0})).uid
            agent = PlayedAgent(next_version(), api)
            await agent.register()
            launch = await agent.launch()
            # A kind of report that is not known here, beside one that is.
            await agent.report(launch, paused={}, started={})
            paused = agent.dialect.message("WatchAssignmentsRequest", node="node-a")
            unheard_of = await refusal(agent.call("PauseNode", paused))
            reason = agent.dialect.message("Reason", code="CosmicRay", message="a bit flipped")
            await agent.report(launch, exited={"outcome": "Evaporated", "reason": reason})
            failed = (await api.until_stage(uid, "Failed")).status.reason.message
        assert unheard_of.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "CosmicRay: a bit flipped" in failed

    run(test())


class PlayedControlPlane:
    """A control plane of another version, as far as an agent sees it.

    Attributes:
        assignment: What it orders.
        reports: What the agent has said.
        registrations: How the agent has introduced itself.
    """

    def __init__(self, dialect: Dialect, assignment: Any) -> None:
        self.dialect = dialect
        self.assignment = assignment
        self.reports: list[Any] = []
        self.registrations: list[Any] = []

    async def register(self, request: Any, _context: Any) -> Any:
        self.registrations.append(request)
        return self.dialect.message("RegisterNodeResponse", term=3, heartbeat_seconds=0.05)

    async def watch(self, _request: Any, _context: Any) -> AsyncIterator[Any]:
        yield self.assignment
        await asyncio.Event().wait()

    async def report(self, request: Any, _context: Any) -> Any:
        self.reports.append(request)
        return self.dialect.message("ReportResponse")

    def service(self) -> "grpc.GenericRpcHandler[Any, Any]":
        """The node service without the methods that came after this version's."""
        calls = {
            "RegisterNode": (grpc.unary_unary_rpc_method_handler, self.register),
            "WatchAssignments": (grpc.unary_stream_rpc_method_handler, self.watch),
            "Report": (grpc.unary_unary_rpc_method_handler, self.report),
        }
        return grpc.method_handlers_generic_handler(
            f"{PACKAGE}.NodeService",
            {
                name: make(
                    serve,
                    request_deserializer=self.dialect.requests(name),
                    response_serializer=lambda answer: answer.SerializeToString(),
                )
                for name, (make, serve) in calls.items()
            },
        )


def orders(dialect: Dialect) -> Any:
    """An assignment with a launch to run and, if the version knows it, one to pause."""
    intents = {"train": 1}
    if dialect.name == "next":
        intents["pausing"] = INTENT_PAUSE
    return dialect.message(
        "WatchAssignmentsResponse",
        term=3,
        number=8,
        launches=[
            dialect.message(
                "Launch",
                uid=f"uid-of-{name}",
                attempt=1,
                intent=intent,
                job_name=name,
                namespace="default",
                manifest_json=json.dumps(manifest(name)),
                plan="dp1",
                units=[
                    dialect.message("LaunchUnit", index=0, node="node-a", accelerators=["slot-0"])
                ],
                ranks_total=1,
                units_total=1,
            )
            for name, intent in intents.items()
        ],
    )


@asynccontextmanager
async def todays_agent(folder: Path, address: str) -> AsyncIterator[Units]:
    """The agent of this version with a Ray that has room for nothing."""
    wake = asyncio.Event()
    journal, outbox = Journal(folder / "journal.jsonl"), Outbox()
    slot = Accelerator(AcceleratorId("slot-0"), "cpu")
    units = Units(
        UnitSettings("node-a", folder), {"slot-0": slot}, journal, outbox, FullRay(), wake.set
    )
    node = NodeDescription("node-a", "127.0.0.1")
    client = ControlPlaneClient(address, node, units, journal, outbox, wake)
    working = asyncio.create_task(client.run())
    try:
        yield units
    finally:
        await units.close(end_units=False)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        journal.close()


@both
def test_todays_agent_obeys_a_control_plane_of_another_version(
    tmp_path: Path, dialect: Dialect
) -> None:
    """That one knows no ServeLogs: as if it were from before there was such a call."""

    async def test() -> None:
        plane = PlayedControlPlane(dialect, orders(dialect))
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((plane.service(),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()

        async def answered() -> Any:
            return [exited for report in plane.reports for exited in report.exited]

        async def beats_on() -> bool:
            return len(plane.reports) > heard + 3

        try:
            with capture_logs() as log:
                async with todays_agent(tmp_path, f"127.0.0.1:{port}") as units:
                    exits = await eventually(answered)
                    heard = len(plane.reports)
                    await eventually(beats_on)
                    assert units.assignment is not None
                    obeyed = [launch.uid for launch in units.assignment.launches]
                bad = [entry for entry in log if entry["log_level"] in ("warning", "error")]
        finally:
            await server.stop(None)
        assert len(plane.registrations) == 1
        assert plane.registrations[0].node.accelerators[0].id == "slot-0"
        assert {exited.uid for exited in exits} == {"uid-of-train"}
        assert "this Ray is full" in exits[0].reason.message
        # What it does not understand it leaves alone, and says that it has obeyed the rest.
        assert obeyed == ["uid-of-train"]
        assert (plane.reports[-1].applied_term, plane.reports[-1].applied_number) == (3, 8)
        assert bad == []

    run(test())
