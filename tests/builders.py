"""Readable worlds: ``a_job("j").wanting(1, 4)``, ``a_cluster().with_node("n1", 4).submit(...)``.

A test reads: this world, this event, that world. ``World`` keeps the log that a store would keep,
so that any moment of it can be folded again from the start.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from controlplane.baselines import BASELINES
from controlplane.domain.action import Action, StartAttempt
from controlplane.domain.clock import Instant, seconds
from controlplane.domain.event import (
    CycleDecided,
    Event,
    JobProgressed,
    JobSubmitted,
    JobUpdated,
    JobWithdrawn,
    NodeDrained,
    NodeLost,
    NodeRegistered,
    NodesClosed,
    PlanChanged,
    PlanRefused,
    PolicyChanged,
    QueueChanged,
    RendezvousBound,
    UnitExited,
    UnitStarted,
)
from controlplane.domain.ids import (
    AcceleratorId,
    JobUid,
    NodeId,
    QueueName,
    SequenceNumber,
    Term,
)
from controlplane.domain.job import (
    AcceleratorRequest,
    Job,
    JobSpec,
    ServiceClass,
    Toleration,
    Topology,
)
from controlplane.domain.launch import Launch
from controlplane.domain.lifecycle import Stage
from controlplane.domain.memory import model_text
from controlplane.domain.node import Accelerator, Closed, ClosedNode, Node, Taint
from controlplane.domain.policy import Policy, PolicySettings
from controlplane.domain.queue import DEFAULT_QUEUE, Queue
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import (
    AttemptRecord,
    Intent,
    JobRecord,
    Outcome,
    Progress,
    RunningUnit,
    UnitExit,
)
from controlplane.domain.step_times import Shares, Way
from controlplane.engine.assignment import extra_launches, launches_of
from controlplane.engine.cycle import Outcome as CycleOutcome
from controlplane.engine.cycle import run_cycle
from controlplane.engine.state import ClusterState, SequencedEvent, in_replay_order
from controlplane.rubick.policy import Rubick
from headrace.api.memory import GIB
from headrace.api.plan import ExecutionPlan
from headrace.api.racks import RACK_LABEL


class NothingKnown:
    """Step times of which nobody knows any; see ``StepTimes``."""

    def ways(self, spec: JobSpec, kind: str) -> tuple[Way, ...]:
        """None."""
        return ()

    def way(self, spec: JobSpec, kind: str, plan: ExecutionPlan, shares: Shares) -> None:
        """None."""


NOTHING_KNOWN = NothingKnown()
POLICIES: Mapping[str, Policy] = {**BASELINES, "rubick": Rubick(lambda _: NOTHING_KNOWN)}
"""Those of a control plane, by name; Rubick where nothing is known of any job's steps."""


@dataclass(frozen=True)
class JobBuilder:
    """A job in the making; each method returns the next one."""

    job: Job

    def _spec(self, **changes: object) -> "JobBuilder":
        return JobBuilder(replace(self.job, spec=replace(self.job.spec, **changes)))  # type: ignore[arg-type]

    def _request(self, **changes: object) -> "JobBuilder":
        request = replace(self.job.spec.accelerators, **changes)  # type: ignore[arg-type]
        return self._spec(accelerators=request)

    def wanting(self, minimum: int, maximum: int | None = None) -> "JobBuilder":
        """From ``minimum`` to ``maximum`` accelerators; rigid without a maximum."""
        return self._request(minimum=minimum, maximum=maximum or minimum)

    def of_type(self, kind: str) -> "JobBuilder":
        """Only accelerators of this model."""
        return self._request(type=kind)

    def selecting(self, **labels: str) -> "JobBuilder":
        """Only nodes with these labels."""
        return self._request(selector=tuple(sorted(labels.items())))

    def tolerating(self, key: str) -> "JobBuilder":
        """Also nodes with this taint."""
        return self._request(tolerations=(Toleration(key),))

    def on_one_node(self) -> "JobBuilder":
        """All ranks on one node."""
        return self._request(topology=Topology.SAME_NODE)

    def in_one_rack(self) -> "JobBuilder":
        """All ranks in one rack."""
        return self._request(topology=Topology.SAME_RACK)

    def needing(self, cores: int) -> "JobBuilder":
        """CPU cores beside each accelerator."""
        return self._request(cpu_cores_each=cores)

    def with_batch(self, batch: int, micro: int = 0) -> "JobBuilder":
        """Global batch, which must divide evenly, and the most that a rank holds at once."""
        return self._spec(global_batch_size=batch, micro_batch_size_max=micro)

    def under(self, *plans: str) -> "JobBuilder":
        """The plans that it may run under, in their short form."""
        return self._spec(plans=tuple(map(ExecutionPlan.parse, plans)))

    def of_model(self, preset: str, *, length: int = 0, precision: str = "bf16") -> "JobBuilder":
        """It trains a built-in model, ``family-preset``, whose memory is estimated."""
        family, _, name = preset.partition("-")
        return self._spec(model=model_text(family, name, {}, length, precision))

    def measured_as(self, model_type: str) -> "JobBuilder":
        """Under this name what is measured of its steps is known."""
        return self._spec(model_type=model_type)

    def ignoring_the_estimate(self) -> "JobBuilder":
        """Of memory."""
        return self._spec(model="")

    def in_queue(self, name: str) -> "JobBuilder":
        """Its queue."""
        return self._spec(queue=QueueName(name))

    def with_priority(self, priority: int) -> "JobBuilder":
        """Higher goes first."""
        return self._spec(priority=priority)

    def guaranteed(self) -> "JobBuilder":
        """Not best effort."""
        return self._spec(service_class=ServiceClass.GUARANTEED)

    def suspended(self, suspend: bool = True) -> "JobBuilder":
        """Must not run now."""
        return self._spec(suspend=suspend)

    def running_a_command(self) -> "JobBuilder":
        """A user's own program: one unit a node, rigid, without steps."""
        return self._spec(unit_per_node=True, elastic=False, steps=0, global_batch_size=0)

    def retrying(self, count: int, backoff: int = 5, most: int = 300) -> "JobBuilder":
        """Failed attempts that are forgiven, and the waits between them in seconds."""
        return self._spec(max_retries=count, backoff_seconds=backoff, backoff_max_seconds=most)

    def within(self, deadline: int = 0, run: int = 0, ttl: int = -1) -> "JobBuilder":
        """Limits in seconds."""
        return self._spec(
            deadline_seconds=deadline, max_run_seconds=run, ttl_seconds_after_finish=ttl
        )

    def training(self, learning_rate: float) -> "JobBuilder":
        """A manifest that reaches the ranks and differs with ``learning_rate``."""
        manifest = {"spec": {"training": {"learningRate": learning_rate}}}
        return self._spec(manifest_json=json.dumps(manifest))

    def generation(self, number: int) -> "JobBuilder":
        """As a later change of the same job."""
        return JobBuilder(replace(self.job, generation=number))


def a_job(name: str = "job") -> JobBuilder:
    """An elastic job of one accelerator in the default queue."""
    request = AcceleratorRequest(minimum=1, maximum=1)
    spec = JobSpec(queue=DEFAULT_QUEUE, accelerators=request, steps=100)
    return JobBuilder(Job(JobUid(name), "default", name, 1, spec))


def a_node(
    name: str,
    count: int,
    kind: str = "cpu",
    *,
    labels: Mapping[str, str] | None = None,
    taints: Sequence[str] = (),
    cores_each: int = 1,
    gib: float = 0,
    host_gib_each: float = 0,
    rack: str = "",
    island_of: int = 0,
) -> Node:
    """A node with ``count`` accelerators of one type, ``island_of`` of them in an NVLink island
    each, and with so much memory; 0 for unknown.
    """
    accelerators = tuple(
        Accelerator(
            AcceleratorId(f"{name}-{index}"),
            kind,
            memory_bytes=round(gib * GIB),
            cpu_cores=tuple(range(index * cores_each, (index + 1) * cores_each)),
            host_memory_bytes=round(host_gib_each * GIB),
            island=str(index // island_of) if island_of else "",
        )
        for index in range(count)
    )
    return Node(
        NodeId(name),
        accelerators,
        labels=tuple(sorted((({RACK_LABEL: rack} if rack else {}) | dict(labels or {})).items())),
        taints=tuple(Taint(key) for key in taints),
        address=name,
    )


def launches_for(state: ClusterState, node: NodeId) -> tuple[Launch, ...]:
    """One node's full assignment, made anew from the state alone."""
    known = state.nodes.get(node)
    parts = (launches_of(record).get(node, ()) for record in state.jobs.values())
    extras = () if known is None else extra_launches(state, known)
    return (*extras, *(launch for part in parts for launch in part))


class World:
    """A cluster seen from its engine: what is told to it, what it decides, and its log."""

    def __init__(self, policy: str = "equal-share") -> None:
        self.state = ClusterState.empty()
        self.now = Instant(seconds(1_000_000))
        self.term = Term(1)
        self.policies: dict[str, Policy] = dict(POLICIES)
        self.log: list[SequencedEvent] = []
        self._pending: list[SequencedEvent] = []
        self._sequence = 0
        self.tell(PolicyChanged(PolicySettings(policy=policy)))

    # -- telling -------------------------------------------------------------------------

    def tell(self, *events: Event) -> "World":
        """These happened; they are folded at once."""
        self._arrive(*events)
        return self._fold_arrived()

    def _arrive(self, *events: Event) -> None:
        numbered = [self._number(replace(event, at=self.now)) for event in events]
        self.log += numbered
        self._pending += numbered

    def _fold_arrived(self) -> "World":
        self.state = self.state.fold(self._pending)
        self._pending = []
        return self

    def _number(self, event: Event) -> SequencedEvent:
        self._sequence += 1
        return SequencedEvent(SequenceNumber(self._sequence), event)

    def with_node(self, *nodes: Node) -> "World":
        """These nodes register, with nothing running."""
        return self.tell(*(NodeRegistered(node) for node in nodes))

    def with_nodes(self, count: int, accelerators: int) -> "World":
        """``n1`` to ``n<count>``, all alike."""
        return self.with_node(*(a_node(f"n{i + 1}", accelerators) for i in range(count)))

    def with_queue(
        self,
        name: str,
        quota: int | None = None,
        borrowing: int | None = 0,
        namespaces: tuple[str, ...] = (),
    ) -> "World":
        """A queue is made or changed."""
        queue = Queue(QueueName(name), quota, (), borrowing, namespaces)
        return self.tell(QueueChanged(queue))

    def with_settings(self, **changes: float) -> "World":
        """Other settings of the policy."""
        return self.tell(PolicyChanged(replace(self.state.settings, **changes)))  # type: ignore[arg-type]

    def under(self, policy: Callable[..., object]) -> "World":
        """Another policy decides."""
        self.policies["tried"] = policy  # type: ignore[assignment]
        return self.tell(PolicyChanged(replace(self.state.settings, policy="tried")))

    def submit(self, *jobs: JobBuilder) -> "World":
        """These jobs are accepted."""
        return self.tell(*(JobSubmitted(builder.job) for builder in jobs))

    def update(self, job: JobBuilder) -> "World":
        """The job's spec is replaced under the next generation."""
        known = self.job(job.job.uid).job.generation
        return self.tell(JobUpdated(job.generation(known + 1).job))

    def withdraw(self, name: str, *, purge: bool = False) -> "World":
        """Someone asks that the job goes."""
        return self.tell(JobWithdrawn(JobUid(name), purge=purge))

    def lose(self, name: str) -> "World":
        """The node falls silent for too long."""
        return self.tell(NodeLost(NodeId(name)))

    def register(self, node: Node, *running: RunningUnit) -> "World":
        """The node speaks again and says what runs there."""
        highest = {unit.uid: unit.attempt for unit in running}
        return self.tell(NodeRegistered(node, running, tuple(highest.items())))

    def drain(self, name: str, drained: bool = True) -> "World":
        """Nothing shall run there."""
        return self.tell(NodeDrained(NodeId(name), drained))

    def kubernetes_closes(
        self, *names: str, closed: Closed = Closed.TO_NEW_WORK, operator: str = "op"
    ) -> "World":
        """An operator tells that Kubernetes keeps work off these nodes, and no others."""
        nodes = tuple(ClosedNode(NodeId(name), closed, "it is cordoned") for name in names)
        return self.tell(NodesClosed(operator, nodes))

    # -- what agents say -----------------------------------------------------------------

    def all_up(self, name: str) -> "World":
        """Every unit of the job's attempt runs."""
        attempt = self.attempt(name)
        uid = JobUid(name)
        units = attempt.placement.units
        self.tell(RendezvousBound(uid, attempt.number, "host:1", node=units[0].node))
        return self.tell(
            *(UnitStarted(uid, attempt.number, u.index, node=u.node) for u in units),
        )

    def trains(self, name: str, step: int = 1, **progress: float) -> "World":
        """The job reports a step."""
        said = Progress(step=step, **({"loss": 1.0, "step_seconds": 0.1} | progress))  # type: ignore[arg-type]
        attempt = self.attempt(name)
        first = attempt.placement.units[0].node
        return self.tell(JobProgressed(JobUid(name), attempt.number, said, node=first))

    def takes_up(self, name: str, *, step: int = 1, refused: str = "") -> "World":
        """The job's ranks answer what they were asked: they went over, or keep their plan."""
        attempt, uid = self.attempt(name), JobUid(name)
        before, after = str(attempt.plan_in_force), str(attempt.placement.plan)
        node = attempt.placement.units[0].node
        if refused:
            return self.tell(PlanRefused(uid, attempt.number, after, refused, node))
        phases = (("parameters", 0.25), ("first_step", 0.5))
        told = PlanChanged(uid, attempt.number, before, after, step, 0.5, phases, node)
        for unit in attempt.placement.units:
            if unit.index in attempt.joining:
                self.tell(UnitStarted(uid, attempt.number, unit.index, node=unit.node))
        for unit in attempt.leaving:
            end = UnitExit(unit.index, Outcome.STOPPED, step)
            self.tell(UnitExited(uid, attempt.number, end, unit.node))
        return self.tell(told)

    def runs(self, *names: str) -> "World":
        """All units are up and the first step is reported."""
        for name in names:
            self.all_up(name)
            if self.job(name).job.spec.steps:
                self.trains(name)
        return self

    def exits(
        self,
        name: str,
        outcome: Outcome = Outcome.SUCCEEDED,
        *,
        reason: ReasonCode | None = None,
        units: Sequence[int] | None = None,
        step: int = 0,
    ) -> "World":
        """The units that still hold something (or just these) exit so."""
        attempt = self.attempt(name)
        why = Reason(reason, f"said {reason}") if reason is not None else None
        leaving = [u for u in attempt.units if attempt.holds(u.index)]
        for unit in leaving:
            if units is None or unit.index in units:
                end = UnitExit(unit.index, outcome, step, why)
                self.tell(UnitExited(JobUid(name), attempt.number, end, unit.node))
        return self

    def fails(self, name: str, code: ReasonCode = ReasonCode.RANK_FAILED) -> "World":
        """A rank fails for this reason, the others are ended."""
        self.exits(name, Outcome.FAILED, reason=code, units=[0])
        return self.exits(name, Outcome.LOST) if self.job(name).attempt else self

    # -- deciding ------------------------------------------------------------------------

    def cycle(self, *meanwhile: Event, usable: bool = True) -> CycleOutcome:
        """One cycle. ``meanwhile`` comes through the door before its decision is durable.

        Args:
            meanwhile: Events that the decision has not seen.
            usable: Whether the policy's decision must be one that can be carried out.
        """
        outcome = run_cycle(self.state, self.now, self.policies, self.term)
        assert not (usable and outcome.refused), outcome.refused
        self._arrive(*meanwhile)
        if not outcome.changes_nothing:
            decided = self._number(outcome.decided)
            self.log.append(decided)
            self.state = self.state.fold([decided])
        self._fold_arrived()
        return outcome

    def passes(self, count: float) -> "World":
        """Seconds pass."""
        self.now = Instant(self.now + seconds(count))
        return self

    def stopped_ones_leave(self) -> "World":
        """Every attempt that was told to stop or end does so."""
        for uid, record in list(self.state.jobs.items()):
            if record.attempt is not None and record.attempt.intent is not Intent.RUN:
                stop = record.attempt.intent is Intent.STOP
                self.exits(uid, Outcome.STOPPED if stop else Outcome.LOST)
        return self

    def settle(self, cycles: int = 12) -> "World":
        """Well-behaved agents follow until a cycle orders nothing."""
        for _ in range(cycles):
            outcome = self.cycle()
            told = len(self.log)
            self.stopped_ones_leave()
            for uid, record in list(self.state.jobs.items()):
                if record.attempt is not None and record.attempt.plan_change is not None:
                    self.takes_up(uid)
                if record.stage is Stage.STARTING:
                    self.runs(uid)
            if not outcome.decided.actions and len(self.log) == told:
                return self
        raise AssertionError(f"it does not come to rest: {outcome.decided.actions}")

    def replayed(self) -> ClusterState:
        """The state folded again from the whole log, as a restart does."""
        positions = {
            item.sequence: item.event.folded_up_to
            for item in self.log
            if isinstance(item.event, CycleDecided)
        }
        return ClusterState.empty().fold(in_replay_order(self.log, positions))

    # -- looking -------------------------------------------------------------------------

    def job(self, name: str) -> JobRecord:
        """All that is known of the job."""
        return self.state.jobs[JobUid(name)]

    def attempt(self, name: str) -> AttemptRecord:
        """Its present attempt."""
        attempt = self.job(name).attempt
        assert attempt is not None, f"{name} has no attempt, it is {self.job(name).stage}"
        return attempt

    def stage(self, name: str) -> Stage:
        """Where it stands."""
        return self.job(name).stage

    def why(self, name: str) -> Reason:
        """The reason it was given last."""
        reason = self.job(name).reason
        assert reason is not None, f"{name} was given no reason"
        return reason

    def code(self, name: str) -> ReasonCode:
        """Its code alone."""
        return self.why(name).code

    def held(self, name: str) -> int:
        """Accelerators that the job holds."""
        return sum(uid == name for uid in self.state.snapshot(self.now).holders.values())

    def nodes_of(self, name: str) -> set[str]:
        """Where it runs."""
        return set(self.attempt(name).placement.nodes)


def a_cluster(policy: str = "equal-share") -> World:
    """An empty one."""
    return World(policy)


def a_unit(world: World, name: str, unit: int = 0) -> RunningUnit:
    """One of the job's units as its agent would report it alive."""
    attempt = world.attempt(name)
    return RunningUnit(
        JobUid(name), attempt.number, unit, attempt.placement.units[unit].accelerators
    )


def started(actions: Sequence[Action]) -> dict[str, int]:
    """Accelerators of every job that the actions start."""
    return {
        action.uid: action.placement.accelerator_count
        for action in actions
        if isinstance(action, StartAttempt)
    }
