"""AdminService: what the people who run the cluster say."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

from controlplane.domain.event import (
    NodeDrained,
    NodeRemoved,
    NodesClosed,
    QueueChanged,
    QueueRemoved,
)
from controlplane.domain.ids import JobUid, NodeId, QueueName
from controlplane.domain.job import Owner
from controlplane.domain.lifecycle import FINISHED, HOLDING, Stage
from controlplane.domain.memory_loss import losses_of_others
from controlplane.domain.node import Contact
from controlplane.domain.offering import Misfit, memory_for, misfits
from controlplane.domain.policy import ExplainingPolicy, Policy
from controlplane.domain.queue import DEFAULT_QUEUE, Queue
from controlplane.domain.reason import ReasonCode
from controlplane.domain.record import JobRecord
from controlplane.domain.snapshot import Slot
from controlplane.edges.grpc_server import export
from controlplane.edges.grpc_server.directory import JobDirectory
from controlplane.edges.grpc_server.door import Door
from controlplane.edges.grpc_server.errors import not_found, precondition
from controlplane.edges.grpc_server.feed import StateFeed
from controlplane.edges.grpc_server.fits_desk import FitsDesk
from controlplane.edges.grpc_server.gatekeeper import Context
from controlplane.edges.grpc_server.history import History
from controlplane.edges.grpc_server.policy_desk import PolicyDesk
from controlplane.edges.grpc_server.ports import Reign
from controlplane.edges.grpc_server.queue_warnings import queue_warnings
from controlplane.edges.grpc_server.roles import Role, caller
from controlplane.engine.refusals import asked_about
from controlplane.engine.state import ClusterState
from controlplane.wire.closed_nodes import closed_nodes_from_wire, kept_closed
from controlplane.wire.forecasts import outcome_to_wire
from controlplane.wire.sentences import action_sentence, set_aside_sentence
from controlplane.wire.translate import (
    node_to_wire,
    observation_to_wire,
    queue_from_wire,
    queue_to_wire,
    reason_to_wire,
    running_unit_to_wire,
    switch_price_to_wire,
    timestamp,
)
from headrace.api.generated import admin_pb2, admin_pb2_grpc, common_pb2
from headrace.api.operator_term import OPERATOR_KEY

_DECISIONS_TOLD = 20
_HOLDERS_TOLD = 10
_MISFITS_TOLD = 5
_REFUSED_LAST = (
    "What was decided about it last was refused, so nothing of this is carried out yet; decided "
    "now it would be so:"
)


class AdminService(admin_pb2_grpc.AdminServiceServicer):
    """Queues, policy, nodes, and questions about all of it."""

    def __init__(
        self,
        *,
        feed: StateFeed,
        directory: JobDirectory,
        door: Door,
        history: History,
        reign: Reign,
        policies: Mapping[str, Policy],
        fits: FitsDesk,
        version: str,
        dashboard_url: str = "",
    ) -> None:
        self._feed = feed
        self._directory = directory
        self._door = door
        self._history = history
        self._reign = reign
        self._policies = policies
        self._desk = PolicyDesk(feed, door, policies)
        self._fits = fits
        self._version = version
        self._dashboard_url = dashboard_url

    @property
    def _state(self) -> ClusterState:
        return self._feed.state

    def _holders(self) -> dict[Slot, JobUid]:
        return dict(self._state.snapshot(self._door.now()).holders)

    async def GetCluster(  # noqa: N802
        self, request: admin_pb2.GetClusterRequest, context: Context
    ) -> admin_pb2.GetClusterResponse:
        """The cluster at a glance."""
        return admin_pb2.GetClusterResponse(
            version=self._version,
            term=self._reign.term,
            last_sequence=self._state.last_sequence,
            state=self._reign.condition,
            policy=self._state.settings.policy,
            accelerators_total=self._accelerators_total(),
            accelerators_held=len(self._holders()),
            dashboard_url=self._dashboard_url,
            now=timestamp(self._door.now()),
        )

    def _accelerators_total(self) -> int:
        return sum(
            len(node.node.accelerators)
            for node in self._state.nodes.values()
            if node.contact is not Contact.LOST
        )

    async def ListNodes(  # noqa: N802
        self, request: admin_pb2.ListNodesRequest, context: Context
    ) -> admin_pb2.ListNodesResponse:
        """Every node and who holds its accelerators."""
        holders: dict[NodeId, dict[str, str]] = {}
        for (name, slot), uid in self._holders().items():
            holders.setdefault(name, {})[slot] = uid
        return admin_pb2.ListNodesResponse(
            nodes=[
                admin_pb2.NodeStatus(
                    node=node_to_wire(node.node),
                    contact=node.contact.value,
                    drained=node.drained,
                    holders=holders.get(node.id, {}),
                    strays=[running_unit_to_wire(stray) for stray in node.strays],
                    last_change_at=timestamp(node.last_change_at),
                    closed=node.closed.closed.value if node.closed else "",
                    closed_reason=node.closed.why if node.closed else "",
                )
                for node in self._state.nodes.values()
            ]
        )

    async def ListObservations(  # noqa: N802
        self, request: admin_pb2.ListObservationsRequest, context: Context
    ) -> admin_pb2.ListObservationsResponse:
        """What plans take, as jobs told in passing; those told longest ago first. Then those that
        ran out of memory.
        """
        lost = (each.observation() for each in self._state.memory_losses.values())
        return admin_pb2.ListObservationsResponse(
            observations=map(observation_to_wire, [*self._state.observations.values(), *lost])
        )

    async def ImportMeasurements(  # noqa: N802
        self, request: admin_pb2.ImportMeasurementsRequest, context: Context
    ) -> admin_pb2.ImportMeasurementsResponse:
        """Takes in what was measured apart from any job."""
        return await self._fits.take_in(request)

    async def ListFits(  # noqa: N802
        self, request: admin_pb2.ListFitsRequest, context: Context
    ) -> admin_pb2.ListFitsResponse:
        """What was learnt of steps, and how well it fits."""
        return await self._fits.list()

    async def ListForecastOutcomes(  # noqa: N802
        self, request: admin_pb2.ListForecastOutcomesRequest, context: Context
    ) -> admin_pb2.ListForecastOutcomesResponse:
        """What came true of predictions that are counted."""
        return admin_pb2.ListForecastOutcomesResponse(
            outcomes=map(outcome_to_wire, self._state.forecast_outcomes)
        )

    async def ListSwitchPrices(  # noqa: N802
        self, request: admin_pb2.ListSwitchPricesRequest, context: Context
    ) -> admin_pb2.ListSwitchPricesResponse:
        """What changes of plan or place cost so far."""
        return admin_pb2.ListSwitchPricesResponse(
            prices=map(switch_price_to_wire, self._state.switch_prices.values())
        )

    async def DrainNode(  # noqa: N802
        self, request: admin_pb2.DrainNodeRequest, context: Context
    ) -> admin_pb2.DrainNodeResponse:
        """Moves work off a node and keeps it off, or takes that back."""
        node = self._node(request.node)
        if self._state.nodes[node].drained != request.drained:
            event = NodeDrained(node, request.drained, self._door.now())
            await self._door.append_and_fold(event)
        note = "" if request.drained else kept_closed(self._state.nodes[node])
        return admin_pb2.DrainNodeResponse(note=note)

    async def CloseNodes(  # noqa: N802
        self, request: admin_pb2.CloseNodesRequest, context: Context
    ) -> admin_pb2.CloseNodesResponse:
        """Keeps work off the nodes that Kubernetes keeps it off. What people drained stays so."""
        metadata = dict(context.invocation_metadata() or ())
        operator = str(metadata.get(OPERATOR_KEY, caller.get().identity))
        nodes = closed_nodes_from_wire(request.nodes)
        if self._state.closed_nodes.get(operator, ()) != nodes:
            await self._door.append_and_fold(NodesClosed(operator, nodes, self._door.now()))
        return admin_pb2.CloseNodesResponse()

    async def RemoveNode(  # noqa: N802
        self, request: admin_pb2.RemoveNodeRequest, context: Context
    ) -> admin_pb2.RemoveNodeResponse:
        """Forgets a lost node."""
        node = self._node(request.node)
        contact = self._state.nodes[node].contact
        if contact is not Contact.LOST:
            raise precondition(
                f"node {node} is {contact.lower()}; only a lost node can be removed: drain it, "
                "stop its agent, and wait until it counts as lost"
            )
        await self._door.append_and_fold(NodeRemoved(node, self._door.now()))
        return admin_pb2.RemoveNodeResponse()

    def _node(self, name: str) -> NodeId:
        if name not in self._state.nodes:
            there = ", ".join(sorted(self._state.nodes)[:_HOLDERS_TOLD]) or "none yet"
            raise not_found("node", name, f"there are {there}")
        return NodeId(name)

    async def PutQueue(  # noqa: N802
        self, request: admin_pb2.PutQueueRequest, context: Context
    ) -> admin_pb2.PutQueueResponse:
        """Creates or changes a queue."""
        queue = queue_from_wire(request.queue)
        self._check_owner(queue.name, "apply -f FILE")
        if caller.get().role is Role.OPERATOR:
            queue = replace(queue, owner=Owner.KUBERNETES)
        if self._state.queues.get(queue.name) != queue:
            await self._door.append_and_fold(QueueChanged(queue, self._door.now()))
        total = self._accelerators_total()
        return admin_pb2.PutQueueResponse(
            queue=self._queue_told(queue.name) or request.queue,
            warnings=queue_warnings(queue, self._state.queues | {queue.name: queue}, total),
        )

    async def DeleteQueue(  # noqa: N802
        self, request: admin_pb2.DeleteQueueRequest, context: Context
    ) -> admin_pb2.DeleteQueueResponse:
        """Removes a queue that no unfinished job needs."""
        name = QueueName(request.name)
        if name not in self._state.queues:
            raise not_found("queue", name, f"there are {', '.join(sorted(self._state.queues))}")
        self._check_owner(name, f"delete queues.headrace.dev {name}")
        if name == DEFAULT_QUEUE and caller.get().role is Role.OPERATOR:
            # Its object goes, and it is as it was at first.
            event = QueueChanged(Queue(DEFAULT_QUEUE), self._door.now())
            await self._door.append_and_fold(event)
            return admin_pb2.DeleteQueueResponse()
        if name == DEFAULT_QUEUE:
            raise precondition("the default queue stays: jobs that name no queue go there")
        users = [
            record.job.name
            for record in self._directory.all()
            if record.job.spec.queue == name and record.stage not in FINISHED
        ]
        if users:
            raise precondition(
                f"queue {name} has {len(users)} unfinished jobs ({', '.join(users[:5])}); "
                "delete them or move them to another queue first"
            )
        await self._door.append_and_fold(QueueRemoved(name, self._door.now()))
        return admin_pb2.DeleteQueueResponse()

    def _check_owner(self, name: QueueName, command: str) -> None:
        known = self._state.queues.get(name)
        of_kubernetes = known is not None and known.owner is Owner.KUBERNETES
        if of_kubernetes and caller.get().role is not Role.OPERATOR:
            raise precondition(
                f"queue {name} is owned by Kubernetes and read-only here; use `kubectl {command}`, "
                "or the same command of headrace with --kubeconfig"
            )

    async def ListQueues(  # noqa: N802
        self, request: admin_pb2.ListQueuesRequest, context: Context
    ) -> admin_pb2.ListQueuesResponse:
        """Every queue with what it holds."""
        told = (self._queue_told(name) for name in self._state.queues)
        return admin_pb2.ListQueuesResponse(queues=[queue for queue in told if queue is not None])

    def _queue_told(self, name: QueueName) -> common_pb2.Queue | None:
        queue = self._state.queues.get(name)
        if queue is None:
            return None
        mine = [r for r in self._state.jobs.values() if r.job.spec.queue == name]
        return queue_to_wire(
            queue,
            held_accelerators=sum(_held(record) for record in mine),
            jobs_running=sum(record.stage in HOLDING for record in mine),
            jobs_waiting=sum(_waits(record) for record in mine),
            waiting_accelerators=sum(
                record.job.spec.accelerators.minimum for record in mine if _waits(record)
            ),
        )

    async def GetPolicy(  # noqa: N802
        self, request: admin_pb2.GetPolicyRequest, context: Context
    ) -> admin_pb2.GetPolicyResponse:
        """The settings with what they mean, and which policies there are."""
        return self._desk.get()

    async def SetPolicy(  # noqa: N802
        self, request: admin_pb2.SetPolicyRequest, context: Context
    ) -> admin_pb2.SetPolicyResponse:
        """Changes some settings."""
        return await self._desk.set(request.settings)

    async def TryPolicy(  # noqa: N802
        self, request: admin_pb2.TryPolicyRequest, context: Context
    ) -> admin_pb2.TryPolicyResponse:
        """What the next decision would do differently under other settings."""
        return await self._desk.try_(request)

    async def ListPolicyVersions(  # noqa: N802
        self, request: admin_pb2.ListPolicyVersionsRequest, context: Context
    ) -> admin_pb2.ListPolicyVersionsResponse:
        """Which settings there were, who set them, and when."""
        return self._desk.versions()

    async def RollBackPolicy(  # noqa: N802
        self, request: admin_pb2.RollBackPolicyRequest, context: Context
    ) -> admin_pb2.RollBackPolicyResponse:
        """Sets what a version had."""
        return await self._desk.roll_back(request.version)

    async def Explain(  # noqa: N802
        self, request: admin_pb2.ExplainRequest, context: Context
    ) -> admin_pb2.ExplainResponse:
        """Why a job stands where it stands."""
        uid = JobUid(request.uid)
        record = self._directory.find(uid)
        if record is None:
            raise not_found("job with uid", uid)
        # All of one moment: the loop goes on while decisions are read from the store.
        record = self._feed.as_of_now(record)
        backs_off = record.stage is Stage.BACKING_OFF
        unfit = self._unfit(record)
        holders = self._holders_told(record)
        position = self._position(record)
        decisions = await self._history.decisions(uid, _DECISIONS_TOLD)
        return admin_pb2.ExplainResponse(
            stage=record.stage.value,
            reason=reason_to_wire(record.reason),
            holders=holders,
            decisions=[
                admin_pb2.ExplainedDecision(
                    sequence=decision.sequence,
                    at=timestamp(decision.at),
                    reason=reason_to_wire(decision.reason),
                    action=action_sentence(decision.action) if decision.action else "",
                )
                for decision in decisions
            ],
            position=position,
            retry_at=timestamp(record.backoff_until) if backs_off else None,
            does_not_fit=[
                admin_pb2.PlanThatDoesNotFit(
                    plan=str(each.plan),
                    type=each.type,
                    missing_bytes=each.missing_bytes,
                    message=each.message,
                )
                for each in unfit[:_MISFITS_TOLD]
            ],
            more_that_do_not_fit=max(0, len(unfit) - _MISFITS_TOLD),
            because=await self._because(record),
        )

    async def _because(self, record: JobRecord) -> Sequence[str]:
        policy = self._policies.get(self._state.settings.policy)
        if record.stage in FINISHED:
            return ()
        snapshot = self._state.snapshot(self._door.now())
        refusal = record.refusal_at(snapshot.at)
        if refusal is not None:
            return (set_aside_sentence(record, refusal, snapshot.at),)
        if not isinstance(policy, ExplainingPolicy):
            return ()
        asked = asked_about(snapshot)
        # Beside the event loop: it decides about the whole cluster once more.
        told = await asyncio.to_thread(policy.explanation, asked, record.uid)
        if record.reason is None or record.reason.code is not ReasonCode.POLICY_REFUSED:
            return told
        return (_REFUSED_LAST, *told) if told else ()

    def _unfit(self, record: JobRecord) -> list[Misfit]:
        if record.stage in FINISHED:
            return []
        seen = self._state.snapshot(self._door.now())
        spec = record.job.spec
        lost = losses_of_others(record, seen.memory_losses, seen.memory)
        return [
            *(Misfit(each.plan, each.type, 0, each.sentence) for each in lost),
            *misfits(spec, memory_for(seen, spec.accelerators)),
        ]

    def _holders_told(self, record: JobRecord) -> list[admin_pb2.Holder]:
        """Who holds what the job lacks, as its reason says."""
        if record.reason is None:
            return []
        held = Counter(self._holders().values())
        told = []
        for uid in record.reason.holders[:_HOLDERS_TOLD]:
            holder = self._directory.find(uid)
            told.append(
                admin_pb2.Holder(
                    uid=uid,
                    namespace=holder.job.namespace if holder else "",
                    name=holder.job.name if holder else "",
                    accelerators=held[uid],
                )
            )
        return told

    def _position(self, record: JobRecord) -> int:
        if not _waits(record):
            return 0
        queue = record.job.spec.queue
        waiting = [r for r in self._directory.all() if _waits(r) and r.job.spec.queue == queue]
        waiting.sort(key=lambda r: (-r.job.spec.priority, r.job.submitted_at))
        return 1 + [r.uid for r in waiting].index(record.uid)

    async def ExportSnapshot(  # noqa: N802
        self, request: admin_pb2.ExportSnapshotRequest, context: Context
    ) -> AsyncIterator[admin_pb2.ExportSnapshotResponse]:
        """The state as the loop sees it, without anything that may be secret."""
        pieces = export.pieces(self._state)
        # In a thread, for agents and the lease do not wait for a snapshot.
        while piece := await asyncio.to_thread(next, pieces, b""):
            yield admin_pb2.ExportSnapshotResponse(data=piece)

    async def Backup(  # noqa: N802
        self, request: admin_pb2.BackupRequest, context: Context
    ) -> AsyncIterator[admin_pb2.BackupResponse]:
        """A consistent copy of the store while it runs."""
        async for piece in self._history.backup():
            yield admin_pb2.BackupResponse(data=piece)


def _held(record: JobRecord) -> int:
    attempt = record.attempt
    if attempt is None:
        return 0
    return sum(len(unit.accelerators) for unit in attempt.units if attempt.holds(unit.index))


def _waits(record: JobRecord) -> bool:
    return record.stage in (Stage.QUEUED, Stage.BACKING_OFF) and not record.withdrawn
