"""Why: the closed set of reasons that decisions, conditions and events may give.

A reason is data. Its sentence is made from its fields, so two equal reasons read the same and an
unchanged reason can be recognised and need not be told again.

What a waiting job lacks is a fact about the job. Who holds that, and who is ahead, are facts about
others: they pass with every start and finish, and a queue of thousands would fill the log with
them. So they are no news (``repeats``), and whoever asks is told them as the last cycle saw them.
"""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from controlplane.domain.ids import JobUid
from controlplane.domain.preemption import Preemption

_HOLDERS_NAMED = 5

WITHOUT_A_WORD = "without saying why"
"""Agents say so of a rank that somebody killed, or that crashed."""


class ReasonCode(StrEnum):
    """Every reason there is; the names are the CamelCase reasons of Kubernetes conditions."""

    # Why a job waits.
    WAITING_FOR_ACCELERATORS = "WaitingForAccelerators"
    WAITING_FOR_FASTER = "WaitingForFasterAccelerators"
    BEHIND_EARLIER_JOB = "BehindEarlierJob"
    QUOTA_EXCEEDED = "QuotaExceeded"
    QUEUE_MISSING = "QueueMissing"
    QUEUE_NOT_FOR_NAMESPACE = "QueueNotForNamespace"
    NO_MATCHING_ACCELERATOR = "NoMatchingAccelerator"
    EXCEEDS_CLUSTER = "ExceedsCluster"
    DOES_NOT_FIT = "DoesNotFit"
    BATCH_NOT_DIVISIBLE = "BatchNotDivisible"
    WAITING_FOR_RELEASE = "WaitingForRelease"
    RECOVERING = "ControlPlaneRecovering"
    SUSPENDED = "Suspended"
    BACKING_OFF = "BackingOff"
    POLICY_REFUSED = "PolicyRefused"
    # Why a job runs, or is laid out anew.
    STARTED = "Started"
    RUNNING = "RunningAsPlanned"
    SHRUNK_FOR_OTHERS = "ShrunkForOthers"
    GROWN_INTO_FREE = "GrownIntoFreeAccelerators"
    MOVED_OFF_NODE = "MovedOffNode"
    SPEC_CHANGED = "SpecChanged"
    PLAN_CHANGED = "PlanChanged"
    TRIES_PLAN = "TriesPlan"
    PLAN_REFUSED = "PlanRefused"
    PLAN_NOT_TAKEN_UP = "PlanNotTakenUp"
    PREEMPTED = "Preempted"
    # Why an attempt, or the job, ended.
    SUCCEEDED = "Succeeded"
    WITHDRAWN = "Withdrawn"
    RANK_FAILED = "RankFailed"
    OUT_OF_MEMORY = "OutOfMemory"
    LOSS_NOT_FINITE = "LossNotFinite"
    RANK_LOST = "RankLost"
    RANK_HUNG = "RankHung"
    COMMUNICATION_FAILED = "CommunicationFailed"
    START_REFUSED = "StartRefused"
    POD_NOT_STARTED = "PodNotStarted"
    CANNOT_BE_TRAINED = "CannotBeTrained"
    STORE_NOT_SHARED = "CheckpointStoreNotShared"
    CHECKPOINT_FAILED = "CheckpointFailed"
    CHECKPOINT_CORRUPT = "CheckpointCorrupt"
    CHECKPOINT_STORE_FULL = "CheckpointStoreFull"
    NODE_LOST = "NodeLost"
    RAY_LOST = "RayLost"
    ACCELERATOR_UNHEALTHY = "AcceleratorUnhealthy"
    FENCED = "FencedByNewerAttempt"
    RETRIES_EXHAUSTED = "RetriesExhausted"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    MAX_RUN_TIME_EXCEEDED = "MaxRunTimeExceeded"
    # Why somebody should look at a job that runs.
    OVERDUE_FORECAST = "OverdueForecast"
    # What a condition that does not hold says.
    NOT_SUSPENDED = "NotSuspended"
    NOT_FAILED = "NotFailed"
    CHECKPOINT_NOT_MISSED = "CheckpointNotMissed"
    # What an operator says of an object's newest spec.
    ACCEPTED = "Accepted"
    SUBMISSION_REFUSED = "SubmissionRefused"
    CONTROL_PLANE_UNREACHABLE = "ControlPlaneUnreachable"
    # What an operator says of a job's own pods.
    PODS_READY = "PodsReady"
    PODS_STARTING = "PodsStarting"
    # Why a finished job is forgotten, where nobody withdrew it.
    TIME_TO_LIVE_OVER = "TimeToLiveOver"
    MADE_ROOM = "MadeRoom"


RECONFIGURES = frozenset(
    {
        ReasonCode.SHRUNK_FOR_OTHERS,
        ReasonCode.GROWN_INTO_FREE,
        ReasonCode.MOVED_OFF_NODE,
        ReasonCode.SPEC_CHANGED,
        ReasonCode.PLAN_CHANGED,
        ReasonCode.TRIES_PLAN,
        ReasonCode.PLAN_REFUSED,
        ReasonCode.PLAN_NOT_TAKEN_UP,
    }
)
"""Reasons to stop an attempt that another one follows at once, or to change its plan."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason with its numbers.

    Attributes:
        code: Which of the closed set.
        message: One sentence for people: what was wanted, what there was, what would help.
        wanted: Accelerators asked for, where that is what it is about.
        available: Accelerators there were for it.
        holders: Jobs that hold what is missing, largest holder first, at most five.
        more_holders: Jobs beyond those that hold some of it.
        type: Type of the accelerators; empty where any will do.
        behind: The job that comes first and waits for the same; empty if none does.
        of_quota: Whether that is a share of the queue's quota, and not accelerators.
        preemption: For whom the job makes room, where it is preempted for another one.
    """

    code: ReasonCode
    message: str = ""
    wanted: int = 0
    available: int = 0
    holders: tuple[JobUid, ...] = ()
    more_holders: int = 0
    type: str = ""
    behind: JobUid = JobUid("")
    of_quota: bool = False
    preemption: Preemption | None = None

    @property
    def deficit(self) -> int:
        """Accelerators missing."""
        return max(0, self.wanted - self.available)

    def repeats(self, told: "Reason | None") -> bool:
        """Whether who was told ``told`` learns nothing new: holders, and who is ahead, aside."""
        return (
            told is not None
            and self.code is told.code
            and self.wanted == told.wanted
            and self.available == told.available
            and self.type == told.type
            and self.of_quota == told.of_quota
            and (self.message == told.message or bool(self.behind and told.behind))
        )


def named_holders(held: Mapping[JobUid, int]) -> tuple[tuple[JobUid, ...], int]:
    """Of those who hold something the few that a reason names, and how many more there are."""
    largest = heapq.nsmallest(_HOLDERS_NAMED, held.items(), key=lambda item: (-item[1], item[0]))
    return tuple(uid for uid, _ in largest), len(held) - len(largest)
