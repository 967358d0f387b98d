"""NodeService: what agents say, and what they are told."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import structlog

from controlplane.domain.event import AcceleratorHealthChanged, AttemptReport, Event
from controlplane.domain.ids import TERM_MOST_AHEAD, NodeId, Term
from controlplane.edges.grpc_server.assignments import AssignmentBook
from controlplane.edges.grpc_server.contacts import Contacts
from controlplane.edges.grpc_server.door import Door
from controlplane.edges.grpc_server.errors import denied, invalid, precondition, unavailable
from controlplane.edges.grpc_server.gatekeeper import Context
from controlplane.edges.grpc_server.log_broker import LogBroker, LogChannel
from controlplane.edges.grpc_server.ports import Reign
from controlplane.edges.grpc_server.roles import caller
from controlplane.wire.translate import (
    NAME,
    NAME_RULE,
    launch_to_wire,
    registration,
    report_events,
)
from headrace.api.generated import nodes_pb2, nodes_pb2_grpc

log = structlog.get_logger(__name__)


class NodeService(nodes_pb2_grpc.NodeServiceServicer):
    """The agents' side of the control plane."""

    def __init__(
        self,
        *,
        door: Door,
        contacts: Contacts,
        assignments: AssignmentBook,
        logs: LogBroker,
        reign: Reign,
    ) -> None:
        self._door = door
        self._contacts = contacts
        self._assignments = assignments
        self._logs = logs
        self._reign = reign
        self._hearsay_from: set[NodeId] = set()

    async def RegisterNode(  # noqa: N802
        self, request: nodes_pb2.RegisterNodeRequest, context: Context
    ) -> nodes_pb2.RegisterNodeResponse:
        """Introduces a node with everything that runs there."""
        event = registration(request, self._door.now())
        node = _speaker(request.node.name, "node.name")
        self._check_term(request.highest_term)
        introduced = self._contacts.introduce(node, request.agent_id)
        try:
            await self._door.append(event)
        except BaseException:
            introduced.in_touch = False
            raise
        self._contacts.registered(node)
        self._assignments.release(node)
        return nodes_pb2.RegisterNodeResponse(
            term=self._reign.term, heartbeat_seconds=self._contacts.heartbeat_seconds
        )

    def _check_term(self, obeyed: int) -> None:
        """A restored store may have forgotten terms that agents have obeyed since."""
        if self._door.closed:
            raise unavailable(self._door.closed)
        if obeyed > self._reign.term + TERM_MOST_AHEAD:
            log.error("absurd term refused", agent=caller.get().identity, term=obeyed)
            raise precondition(
                f"this agent says that it has obeyed term {obeyed}; no control plane of this "
                f"cluster, which is at {self._reign.term}, can have given that. Its journal is "
                "damaged or another cluster's: once nothing of it runs any more, remove its state "
                "folder and start it again"
            )
        if obeyed > self._reign.term:
            self._reign.rise_above(Term(obeyed))
            raise unavailable(
                f"this agent has obeyed term {obeyed} and the control plane is at "
                f"{self._reign.term}: it takes a higher one now; register again"
            )

    async def WatchAssignments(  # noqa: N802
        self, request: nodes_pb2.WatchAssignmentsRequest, context: Context
    ) -> AsyncIterator[nodes_pb2.WatchAssignmentsResponse]:
        """The full numbered assignment at once, and again whenever it changes."""
        node = _speaker(request.node, "node")
        watcher = self._contacts.registration(node, request.agent_id)
        if watcher is None:
            raise precondition(f"node {node} is not registered here; register first")
        watcher.in_touch = True
        try:
            async for assignment in self._assignments.watch(node):
                yield nodes_pb2.WatchAssignmentsResponse(
                    term=assignment.term,
                    number=assignment.number,
                    launches=[launch_to_wire(launch) for launch in assignment.launches],
                )
        finally:
            watcher.in_touch = False

    async def Report(  # noqa: N802
        self, request: nodes_pb2.ReportRequest, context: Context
    ) -> nodes_pb2.ReportResponse:
        """What happened on a node; answered when it is durable. Empty: a heartbeat."""
        node = _speaker(request.node, "node")
        if self._contacts.registration(node, request.agent_id) is None:
            return nodes_pb2.ReportResponse(register_again=True)
        self._check_term(request.applied_term)
        self._contacts.heard(node)
        events = self._worth_storing(node, report_events(request, self._door.now()))
        if events:
            await self._door.append(*events)
        known = self._contacts.registration(node, request.agent_id) is not None
        return nodes_pb2.ReportResponse(register_again=not known)

    def _worth_storing(
        self, node: NodeId, reports: Sequence[AttemptReport | AcceleratorHealthChanged]
    ) -> list[Event]:
        """The reports without those that are not the node's to make.

        The fold would pass over them too, but losses become rows of their own before that.
        """
        kept: list[Event] = []
        for report in reports:
            if isinstance(report, AcceleratorHealthChanged) or self._assignments.concerns(report):
                kept.append(report)
            elif node not in self._hearsay_from:
                self._hearsay_from.add(node)
                log.warning(
                    "passed over what a node told of units that it does not hold now; "
                    "logged once a node",
                    node=node,
                    agent=caller.get().identity,
                    report=report.kind,
                    uid=report.uid,
                    attempt=report.attempt,
                )
        return kept

    async def ServeLogs(  # noqa: N802
        self,
        request_iterator: AsyncIterator[nodes_pb2.ServeLogsRequest],
        context: Context,
    ) -> AsyncIterator[nodes_pb2.ServeLogsResponse]:
        """Asks the agent for output and passes its answers on."""
        first = await anext(aiter(request_iterator), None)
        node = _speaker(first.node if first is not None else "", "node")
        channel = self._logs.connect(node)
        listening = asyncio.create_task(_listen(request_iterator, channel))
        try:
            async for request in channel.requests():
                yield request
        finally:
            listening.cancel()
            self._logs.disconnect(node, channel)


async def _listen(answers: AsyncIterator[nodes_pb2.ServeLogsRequest], channel: LogChannel) -> None:
    try:
        async for answer in answers:
            channel.answered(answer)
    finally:
        channel.close("the agent ended its stream; its output is kept on the node")


def _speaker(name: str, field: str) -> NodeId:
    """The node that the caller speaks for."""
    if NAME.fullmatch(name) is None:
        raise invalid(field, f"wanted {NAME_RULE}, got {name!r}")
    who = caller.get()
    if not who.speaks_for(name):
        raise denied(f"{who.identity} is not the agent of {name}")
    return NodeId(name)
