"""What happened, in the past tense. State changes only by folding these.

Each carries ``at``, the control plane's UTC when it came through the door; order is the sequence
number that the log gives it. ``kind`` names it in the store, where no module path may stand.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Discriminator

from controlplane.domain.action import Action
from controlplane.domain.clock import Instant
from controlplane.domain.forecast import Forecasts
from controlplane.domain.ids import (
    AcceleratorId,
    Attempt,
    JobUid,
    NodeId,
    QueueName,
    SequenceNumber,
    Term,
)
from controlplane.domain.job import Job
from controlplane.domain.node import ClosedNode, Node
from controlplane.domain.policy import PolicySettings
from controlplane.domain.proposal import Proposal
from controlplane.domain.queue import Queue
from controlplane.domain.reason import Reason
from controlplane.domain.record import Progress, RunningUnit, UnitExit
from controlplane.domain.refusal import Refusal
from controlplane.domain.step_time_fit import StepTimeFit
from headrace.api.profile_rows import PlanRow


@dataclass(frozen=True, slots=True)
class JobSubmitted:
    """A job was accepted. The same uid and generation a second time changes nothing."""

    job: Job
    at: Instant = Instant(0)
    kind: Literal["JobSubmitted"] = "JobSubmitted"


@dataclass(frozen=True, slots=True)
class JobUpdated:
    """A job's spec was replaced under a higher generation."""

    job: Job
    at: Instant = Instant(0)
    kind: Literal["JobUpdated"] = "JobUpdated"


@dataclass(frozen=True, slots=True)
class JobWithdrawn:
    """Someone asked that this uid goes. For an unknown uid it is the order to end strays of it."""

    uid: JobUid
    purge: bool = False
    at: Instant = Instant(0)
    kind: Literal["JobWithdrawn"] = "JobWithdrawn"


@dataclass(frozen=True, slots=True)
class NodeRegistered:
    """An agent introduced its node, with all that runs there.

    Attributes:
        running: Every launch unit alive on the node.
        highest_attempts: Highest attempt seen for each job, so that a restored store does not
            give an old number out again.
    """

    node: Node
    running: tuple[RunningUnit, ...] = ()
    highest_attempts: tuple[tuple[JobUid, Attempt], ...] = ()
    at: Instant = Instant(0)
    kind: Literal["NodeRegistered"] = "NodeRegistered"


@dataclass(frozen=True, slots=True)
class NodeLost:
    """A node's agent was silent for longer than allowed."""

    node: NodeId
    at: Instant = Instant(0)
    kind: Literal["NodeLost"] = "NodeLost"


@dataclass(frozen=True, slots=True)
class NodeDrained:
    """Someone asked that nothing runs on this node, or took that back."""

    node: NodeId
    drained: bool
    at: Instant = Instant(0)
    kind: Literal["NodeDrained"] = "NodeDrained"


@dataclass(frozen=True, slots=True)
class NodesClosed:
    """An operator told which nodes Kubernetes keeps work off: these, and no others.

    Attributes:
        operator: Name of its lease; what other operators told stays.
    """

    operator: str
    nodes: tuple[ClosedNode, ...] = ()
    at: Instant = Instant(0)
    kind: Literal["NodesClosed"] = "NodesClosed"


@dataclass(frozen=True, slots=True)
class NodeRemoved:
    """Someone asked to forget a node that is lost."""

    node: NodeId
    at: Instant = Instant(0)
    kind: Literal["NodeRemoved"] = "NodeRemoved"


@dataclass(frozen=True, slots=True)
class AcceleratorHealthChanged:
    """An agent found an accelerator unhealthy (``problem`` says why), or well again (empty)."""

    node: NodeId
    accelerator: AcceleratorId
    problem: str
    at: Instant = Instant(0)
    kind: Literal["AcceleratorHealthChanged"] = "AcceleratorHealthChanged"


@dataclass(frozen=True, slots=True)
class RendezvousBound:
    """Unit 0 of an attempt listens; the other units may be started with this address.

    Attributes:
        node: Whose agent says so; empty in events that 0.1.0 stored.
    """

    uid: JobUid
    attempt: Attempt
    address: str
    at: Instant = Instant(0)
    node: NodeId = NodeId("")
    kind: Literal["RendezvousBound"] = "RendezvousBound"


@dataclass(frozen=True, slots=True)
class UnitStarted:
    """A launch unit's processes run.

    Attributes:
        node: Whose agent says so; empty in events that 0.1.0 stored.
    """

    uid: JobUid
    attempt: Attempt
    unit: int
    at: Instant = Instant(0)
    node: NodeId = NodeId("")
    kind: Literal["UnitStarted"] = "UnitStarted"


@dataclass(frozen=True, slots=True)
class JobProgressed:
    """An attempt reported steps.

    Attributes:
        losses: (step, training loss) since the report before. The store keeps them as rows of
            their own, so they are empty in an event that was read back.
        node: Whose agent says so; empty in events that 0.1.0 stored.
    """

    uid: JobUid
    attempt: Attempt
    progress: Progress
    losses: tuple[tuple[int, float], ...] = ()
    at: Instant = Instant(0)
    node: NodeId = NodeId("")
    kind: Literal["JobProgressed"] = "JobProgressed"


@dataclass(frozen=True, slots=True)
class UnitExited:
    """A launch unit ended and its accelerators are free."""

    uid: JobUid
    attempt: Attempt
    exit: UnitExit
    node: NodeId
    at: Instant = Instant(0)
    kind: Literal["UnitExited"] = "UnitExited"


@dataclass(frozen=True, slots=True)
class PlanChanged:
    """An attempt's ranks went over to another plan without leaving; or they train on under the one
    that they have, if that is the one that they were asked for.

    Plans are texts here: the ranks may be of a release that knows more plans.

    Attributes:
        before: The plan that they left.
        after: The plan that they took up.
        step: Last step under the plan that they left.
        stood_still_seconds: For how long they did not train.
        phases: Where that time went, as (name, seconds) in order.
        node: Whose agent says so.
    """

    uid: JobUid
    attempt: Attempt
    before: str
    after: str
    step: int
    stood_still_seconds: float
    phases: tuple[tuple[str, float], ...]
    node: NodeId
    at: Instant = Instant(0)
    kind: Literal["PlanChanged"] = "PlanChanged"


@dataclass(frozen=True, slots=True)
class PlanRefused:
    """An attempt's ranks cannot go over to the plan that they were asked for, and train on.

    Attributes:
        plan: What was asked for.
        message: Why not.
        node: Whose agent says so.
    """

    uid: JobUid
    attempt: Attempt
    plan: str
    message: str
    node: NodeId
    at: Instant = Instant(0)
    kind: Literal["PlanRefused"] = "PlanRefused"


@dataclass(frozen=True, slots=True)
class CheckpointMissed:
    """A checkpoint that was due could not be made; the attempt's ranks train on without it.

    Attributes:
        step: The step that it would have been of.
        reason: Why.
        node: Whose agent says so.
    """

    uid: JobUid
    attempt: Attempt
    step: int
    reason: Reason
    node: NodeId
    at: Instant = Instant(0)
    kind: Literal["CheckpointMissed"] = "CheckpointMissed"


@dataclass(frozen=True, slots=True)
class PlanObserved:
    """An attempt's ranks told in passing what steps under their plan take.

    Attributes:
        step: The last step that was looked at.
        row: What was measured, without the model's name and the placement.
        node: Whose agent says so.
    """

    uid: JobUid
    attempt: Attempt
    step: int
    row: PlanRow
    node: NodeId
    at: Instant = Instant(0)
    kind: Literal["PlanObserved"] = "PlanObserved"


AttemptReport = (
    RendezvousBound
    | UnitStarted
    | JobProgressed
    | PlanChanged
    | PlanRefused
    | PlanObserved
    | CheckpointMissed
    | UnitExited
)
"""What an agent tells of attempts."""


@dataclass(frozen=True, slots=True)
class QueueChanged:
    """A queue was created or changed."""

    queue: Queue
    at: Instant = Instant(0)
    kind: Literal["QueueChanged"] = "QueueChanged"


@dataclass(frozen=True, slots=True)
class QueueRemoved:
    """A queue was removed."""

    name: QueueName
    at: Instant = Instant(0)
    kind: Literal["QueueRemoved"] = "QueueRemoved"


@dataclass(frozen=True, slots=True)
class PolicyChanged:
    """Someone chose another policy or other settings.

    Attributes:
        settings: All of them, as they are now.
        who: Identity of who did; empty in events of before this was noted.
        rolls_back_to: The version whose settings these are; 0 if they were not chosen as such.
    """

    settings: PolicySettings
    at: Instant = Instant(0)
    who: str = ""
    rolls_back_to: int = 0
    kind: Literal["PolicyChanged"] = "PolicyChanged"


@dataclass(frozen=True, slots=True)
class ModelFitted:
    """What steps take was fitted to what was measured of them, beside the loop.

    Attributes:
        fit: The fit; it takes the place of the one before.
    """

    fit: StepTimeFit
    at: Instant = Instant(0)
    kind: Literal["ModelFitted"] = "ModelFitted"


@dataclass(frozen=True, slots=True)
class ProposalFound:
    """A longer search, beside the loop, found something better than a round.

    Attributes:
        proposal: What it found; it takes the place of the one before.
    """

    proposal: Proposal
    at: Instant = Instant(0)
    kind: Literal["ProposalFound"] = "ProposalFound"


@dataclass(frozen=True, slots=True)
class JobsForecast:
    """When jobs start and end was predicted, beside the loop.

    Attributes:
        forecasts: What is predicted; of each of its jobs it takes the place of the one before.
    """

    forecasts: Forecasts
    at: Instant = Instant(0)
    kind: Literal["JobsForecast"] = "JobsForecast"


@dataclass(frozen=True, slots=True)
class JobOverdue:
    """A job trains on past the upper end of what was predicted of it: once of each job.

    Attributes:
        reason: What was predicted and how it goes, with numbers.
        nodes: Where it trains.
    """

    uid: JobUid
    attempt: Attempt
    reason: Reason
    nodes: tuple[NodeId, ...] = ()
    at: Instant = Instant(0)
    kind: Literal["JobOverdue"] = "JobOverdue"


@dataclass(frozen=True, slots=True)
class MeasurementsImported:
    """Someone told what steps take that were measured apart from any job.

    Attributes:
        rows: Of a profile, all of them measured and each about something else.
        who: Identity of who did.
    """

    rows: tuple[PlanRow, ...]
    who: str
    at: Instant = Instant(0)
    kind: Literal["MeasurementsImported"] = "MeasurementsImported"


@dataclass(frozen=True, slots=True)
class OperatorTermRaised:
    """Another replica of an operator leads: calls under a lower term are refused from now on.

    Attributes:
        operator: Which operator, by the name of its lease.
        term: Its term, above any that it had.
    """

    operator: str
    term: int
    at: Instant = Instant(0)
    kind: Literal["OperatorTermRaised"] = "OperatorTermRaised"


@dataclass(frozen=True, slots=True)
class CycleDecided:
    """The loop decided. Folding it is how actions, once logged, become part of the state.

    Attributes:
        term: Reign in which it was decided.
        folded_up_to: Last event that the deciding cycle had seen. Replay puts this event right
            after that one, whatever came through the door in between.
        actions: What is to be done.
        reasons: Reasons that changed with this cycle.
        refused: Jobs about which the policy decided what breaks a rule, so that it is not asked
            about them for a while.
    """

    term: Term
    folded_up_to: SequenceNumber
    actions: tuple[Action, ...]
    reasons: tuple[tuple[JobUid, Reason], ...] = ()
    refused: tuple[tuple[JobUid, Refusal], ...] = ()
    at: Instant = Instant(0)
    kind: Literal["CycleDecided"] = "CycleDecided"


Event = Annotated[
    JobSubmitted
    | JobUpdated
    | JobWithdrawn
    | NodeRegistered
    | NodeLost
    | NodeDrained
    | NodesClosed
    | NodeRemoved
    | AcceleratorHealthChanged
    | RendezvousBound
    | UnitStarted
    | JobProgressed
    | PlanChanged
    | PlanRefused
    | PlanObserved
    | CheckpointMissed
    | UnitExited
    | QueueChanged
    | QueueRemoved
    | PolicyChanged
    | ModelFitted
    | ProposalFound
    | JobsForecast
    | JobOverdue
    | MeasurementsImported
    | OperatorTermRaised
    | CycleDecided,
    Discriminator("kind"),
]
