"""What is known of jobs and nodes beyond what they asked for: attempts, progress, contact."""

from dataclasses import dataclass, field
from enum import StrEnum

from controlplane.domain.clock import Duration, Instant
from controlplane.domain.ids import AcceleratorId, Attempt, JobUid, NodeId
from controlplane.domain.job import Job
from controlplane.domain.lifecycle import Stage
from controlplane.domain.node import Closed, ClosedNode, Contact, Node
from controlplane.domain.placement import LaunchUnit, Placement
from controlplane.domain.reason import RECONFIGURES, Reason, ReasonCode
from controlplane.domain.refusal import Refusal
from controlplane.domain.suspicion import Suspicion
from controlplane.domain.switch import PlanChange, Restart, Switch
from headrace.api.plan import ExecutionPlan

NOWHERE: frozenset[NodeId] = frozenset()
"""No node."""


class Intent(StrEnum):
    """What the agents shall do with an attempt."""

    RUN = "Run"
    STOP = "Stop"
    """Agree on a step, checkpoint there, exit."""
    END = "End"
    """Exit now; nothing needs to be saved."""


class Outcome(StrEnum):
    """How one launch unit's processes ended."""

    SUCCEEDED = "Succeeded"
    STOPPED = "Stopped"
    FAILED = "Failed"
    LOST = "Lost"
    NEVER_STARTED = "NeverStarted"


@dataclass(frozen=True, slots=True)
class UnitExit:
    """The end of one launch unit.

    Attributes:
        unit: Index of the unit.
        outcome: How it ended.
        step: Optimizer step it had reached, if it said so; saved, if it succeeded or was stopped.
        reason: Why, for anything but success; the message holds the unit's last lines.
        at: When the control plane heard of it.
    """

    unit: int
    outcome: Outcome
    step: int = 0
    reason: Reason | None = None
    at: Instant = Instant(0)


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One start of a job, until all its units have been released.

    Attributes:
        number: Attempt number; higher than any before it.
        generation: Generation of the spec it runs.
        placement: Where it runs.
        intent: What agents shall do with it now.
        intent_reason: Why the intent is not RUN.
        intent_at: Since when it is not RUN.
        started_at: When it was decided.
        rendezvous: Address that unit 0 bound; empty until it is published.
        units_up: Units whose processes were reported as started.
        up_at: When the last of them was; None before.
        exits: Units that have released their accelerators.
        trained: Whether it has reported a step of its own.
        running_at: When its first step was reported; None before.
        manifest_json: The manifest that it runs, if the job's own was replaced since; else empty.
        then: Where the job shall run next, if that was why it was stopped.
        last_step_at: When it last reported a new step; 0 before.
        plan_change: A change of plan that its ranks were asked for and have not told the end of;
            ``placement`` has the new plan and units already.
        leaving: Units that are not, or soon not, of its placement any more, and still hold what
            they have.
        units_made: So many units it ever had, if some joined later; their indices are below it.
        joined: When units joined that were not there from its start, by index.
        observations: How often its ranks told what its plans take.
        observed_step: Up to which step they did; -1 before.
    """

    number: Attempt
    generation: int
    placement: Placement
    started_at: Instant
    intent: Intent = Intent.RUN
    intent_reason: Reason | None = None
    intent_at: Instant = Instant(0)
    rendezvous: str = ""
    units_up: frozenset[int] = frozenset()
    exits: tuple[UnitExit, ...] = ()
    trained: bool = False
    running_at: Instant | None = None
    manifest_json: str = ""
    then: Placement | None = None
    up_at: Instant | None = None
    last_step_at: Instant = Instant(0)
    plan_change: PlanChange | None = None
    leaving: tuple[LaunchUnit, ...] = ()
    units_made: int = 0
    joined: tuple[tuple[int, Instant], ...] = ()
    observations: int = 0
    observed_step: int = -1

    @property
    def units(self) -> tuple[LaunchUnit, ...]:
        """All that may hold something: those of its placement, and those that are leaving."""
        return (*self.placement.units, *self.leaving) if self.leaving else self.placement.units

    def unit(self, index: int) -> LaunchUnit | None:
        """The unit of that index; None if there is none, or none any more."""
        units = self.placement.units
        if 0 <= index < len(units) and units[index].index == index:
            return units[index]
        return next((unit for unit in self.units if unit.index == index), None)

    @property
    def next_unit(self) -> int:
        """The lowest index that no unit of it ever had."""
        return self.units_made or len(self.placement.units)

    @property
    def units_in_force(self) -> tuple[LaunchUnit, ...]:
        """The units whose ranks train, as far as they have told."""
        change = self.plan_change
        return change.units if change is not None and change.units else self.placement.units

    @property
    def joining(self) -> frozenset[int]:
        """Units that are to join those that train, and have not as far as is known."""
        change = self.plan_change
        return frozenset() if change is None or change.given_up else self.outside

    @property
    def outside(self) -> frozenset[int]:
        """Units that do not train as far as is known: that are to join, or were until the change
        was given up.
        """
        if self.plan_change is None or not self.plan_change.units:
            return frozenset()
        training = {unit.index for unit in self.plan_change.units}
        return frozenset(unit.index for unit in self.units if unit.index not in training)

    @property
    def own_exits(self) -> tuple[UnitExit, ...]:
        """The ends of units that were part of it: not of those that never came to join."""
        outside = self.outside
        if not outside:
            return self.exits
        return tuple(known for known in self.exits if known.unit not in outside)

    @property
    def all_up(self) -> bool:
        """Whether all units whose ranks are to train now were reported as started."""
        units = self.units_in_force
        return len(self.units_up) >= len(units) and all(u.index in self.units_up for u in units)

    @property
    def is_up(self) -> bool:
        """Whether all its units run."""
        return self.all_up and not self.own_exits

    @property
    def is_over(self) -> bool:
        """Whether all its units have released their accelerators."""
        if not self.exits:
            return False
        released = {known.unit for known in self.exits}
        return all(unit.index in released for unit in self.units)

    def held_since(self, unit: int) -> Instant:
        """Since when that unit has had its accelerators."""
        return dict(self.joined).get(unit, self.started_at) if self.joined else self.started_at

    @property
    def plan_in_force(self) -> ExecutionPlan:
        """The plan that its ranks train under, as far as they have told."""
        return self.placement.plan if self.plan_change is None else self.plan_change.before

    @property
    def change(self) -> tuple[Reason, Instant] | None:
        """Why its plan or place is being changed, by another attempt or in memory, and since
        when; None if neither is.
        """
        why = self.intent_reason
        if self.intent is Intent.STOP and why is not None and why.code in RECONFIGURES:
            return why, self.intent_at
        if self.intent is Intent.RUN and self.plan_change is not None:
            return self.plan_change.reason, self.plan_change.ordered_at
        return None

    def holds(self, unit: int) -> bool:
        """Whether that unit's accelerators are not released yet."""
        return all(known.unit != unit for known in self.exits)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job has come.

    Attributes:
        step: Optimizer steps done.
        checkpoint_step: Step of the last committed checkpoint.
        loss: Last training loss; None before the first step.
        step_seconds: Recent time of a step; 0 where unknown.
        at: When it was reported.
    """

    step: int = 0
    checkpoint_step: int = 0
    loss: float | None = None
    step_seconds: float = 0.0
    at: Instant = Instant(0)


@dataclass(frozen=True, slots=True)
class MissedCheckpoint:
    """A gap in a job's checkpoints.

    Attributes:
        step: Step of the last checkpoint that could not be made.
        reason: Why not.
        since: When the first one in a row was missed.
        until: When a later one was committed; None while the gap is open.
    """

    step: int
    reason: Reason
    since: Instant
    until: Instant | None = None


@dataclass(frozen=True, slots=True)
class Raised:
    """How an attempt ended by the doing of what it trained.

    Attributes:
        attempt: Its number.
        step: The step in which it ended.
        sentence: What was said, without where.
    """

    attempt: Attempt
    step: int
    sentence: str


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job and all that happened to it.

    Attributes:
        job: The job as last accepted.
        stage: Where it stands.
        reason: Why it stands there, as last decided.
        attempt: The attempt that may hold accelerators; None while idle or finished.
        attempts_made: Highest attempt number given out or heard of.
        attempt_floor: No number up to this one is given out: a future that was lost with its store
            may have used it. 0 where there was none.
        failures: Failed attempts that count against the retries.
        setbacks: Attempts in a row that nodes, Ray or hardware ended before they made progress.
        reconfigurations: Planned changes of plan or place so far.
        backoff_until: Not to be started before this.
        progress: How far it has come.
        held_ns: Time that ended attempts held accelerators, however many.
        held_accelerator_ns: The same times accelerators.
        withdrawn: Whether it shall go; ``purge`` also removes its checkpoints.
        finished_at: When it succeeded or failed.
        first_started_at: When it first got accelerators.
        next_placement: Where it was meant to run next when its last attempt ended. Not a promise:
            it lets a policy decide the same while jobs are on their way as when they have arrived.
        progress_reporters: Attempts and the nodes of their unit 0, which reports their progress;
            the last 16, newest last. A node that was out of touch reports late of an earlier one.
        ran_until: When an attempt of which all units ran last lost one; 0 if there was none.
        idle_since: When its last attempt released the last accelerator; 0 if there was none.
        reconfigured_at: When a change of plan, or a planned stop for one of plan or place, was last
            over; 0 if there was none.
        out_of_memory: Types of accelerators, and plans under which its present spec ran out of
            memory on them.
        came_apart_at: Step before which a loss was last not finite, under its present spec; -1 for
            never.
        raised: How its last attempt that failed did so, under its present spec, if what it trains
            raised; else None.
        suspended_at: When it was last suspended, or resumed; 0 if it was not since its submission.
        missed: The last gap in its checkpoints; None if there was none.
        suspicions: Nodes where attempts failed in a way that the node may have caused, or which no
            unit could join from; those that the job keeps off still are ``avoids``.
        switches: Its last changes of plan or place that are over, newest last.
        restart: A planned stop after which it has not trained again yet; None if there is none.
        refusal: The last time that what a policy decided about it was refused, under its present
            spec and settings and since its last start; None if it was not.
        tries: Changes so far that were ordered to try a plan, whatever became of them.
    """

    job: Job
    stage: Stage = Stage.QUEUED
    reason: Reason | None = None
    attempt: AttemptRecord | None = None
    attempts_made: Attempt = Attempt(0)
    attempt_floor: Attempt = Attempt(0)
    failures: int = 0
    setbacks: int = 0
    reconfigurations: int = 0
    backoff_until: Instant = Instant(0)
    progress: Progress = field(default_factory=Progress)
    held_ns: Duration = Duration(0)
    held_accelerator_ns: Duration = Duration(0)
    withdrawn: bool = False
    purge: bool = False
    finished_at: Instant | None = None
    first_started_at: Instant | None = None
    next_placement: Placement | None = None
    progress_reporters: tuple[tuple[Attempt, NodeId], ...] = ()
    ran_until: Instant = Instant(0)
    idle_since: Instant = Instant(0)
    reconfigured_at: Instant = Instant(0)
    suspended_at: Instant = Instant(0)
    out_of_memory: tuple[tuple[str, ExecutionPlan], ...] = ()
    came_apart_at: int = -1
    raised: Raised | None = None
    missed: MissedCheckpoint | None = None
    suspicions: tuple[Suspicion, ...] = ()
    switches: tuple[Switch, ...] = ()
    restart: Restart | None = None
    refusal: Refusal | None = None
    tries: int = 0

    @property
    def uid(self) -> JobUid:
        """The job's uid."""
        return self.job.uid

    @property
    def next_attempt(self) -> Attempt:
        """The number that its next attempt gets."""
        return Attempt(max(self.attempts_made, self.attempt_floor) + 1)

    def refusal_at(self, at: Instant) -> Refusal | None:
        """Why no policy is asked about it at an instant; None if one is."""
        return self.refusal if self.refusal is not None and at < self.refusal.until else None

    def avoids(self, at: Instant) -> frozenset[NodeId]:
        """Nodes that it keeps off while there is room elsewhere."""
        if not self.suspicions:
            return NOWHERE
        return frozenset(each.node for each in self.suspicions if at < each.until)

    def cannot_be_joined_from(self, at: Instant) -> frozenset[NodeId]:
        """Of those, nodes where a unit could not join it while it trained."""
        if not self.suspicions:
            return NOWHERE
        of_joining = (each for each in self.suspicions if each.code is ReasonCode.PLAN_REFUSED)
        return frozenset(each.node for each in of_joining if at < each.until)


@dataclass(frozen=True, slots=True)
class RunningUnit:
    """A launch unit that an agent says is alive on its node."""

    uid: JobUid
    attempt: Attempt
    unit: int
    accelerators: tuple[AcceleratorId, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A node and what its agent last said.

    Attributes:
        node: As registered.
        contact: Whether it can be heard.
        drained: Whether people asked that nothing runs there.
        closed: What Kubernetes keeps off it, whatever people asked; None while it is open.
        strays: Units alive there that no job's present attempt accounts for: of unknown jobs
            (kept until an explicit order) or of fenced attempts (to be ended). Their
            accelerators are not free.
        last_change_at: When contact last changed.
    """

    node: Node
    contact: Contact = Contact.ONLINE
    drained: bool = False
    strays: tuple[RunningUnit, ...] = ()
    last_change_at: Instant = Instant(0)
    closed: ClosedNode | None = None

    @property
    def id(self) -> NodeId:
        """The node's name."""
        return self.node.id

    @property
    def usable(self) -> bool:
        """Whether new work may be placed here."""
        return self.contact is Contact.ONLINE and not self.drained and self.closed is None

    @property
    def must_be_left(self) -> bool:
        """Whether nothing may run here now."""
        if self.drained or self.contact is Contact.LOST:
            return True
        return self.closed is not None and self.closed.closed is Closed.TO_ALL_WORK

    @property
    def only_goes_on(self) -> bool:
        """Whether what runs here stays, and nothing may be placed here."""
        return not self.usable and not self.must_be_left
