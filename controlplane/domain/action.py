"""What to do, in the imperative. Actions are logged before anything is done about them."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Discriminator

from controlplane.domain.ids import Attempt, JobUid
from controlplane.domain.placement import LaunchUnit, Placement
from controlplane.domain.reason import Reason
from headrace.api.plan import ExecutionPlan


@dataclass(frozen=True, slots=True)
class StartAttempt:
    """Start the job here, under this attempt number."""

    uid: JobUid
    attempt: Attempt
    placement: Placement
    reason: Reason
    kind: Literal["StartAttempt"] = "StartAttempt"


@dataclass(frozen=True, slots=True)
class StopAttempt:
    """Let the attempt checkpoint at a step that its ranks agree on, and exit.

    ``then`` is where the job shall run next, as seen when this was decided; None for nowhere yet.
    """

    uid: JobUid
    attempt: Attempt
    reason: Reason
    then: Placement | None = None
    kind: Literal["StopAttempt"] = "StopAttempt"


@dataclass(frozen=True, slots=True)
class ChangePlan:
    """Let the attempt's ranks go on under another plan, without leaving.

    ``units`` are all that shall train then: those that train now and new ones after them, or the
    first of those that train now, while the others leave. Empty for the same ones.
    """

    uid: JobUid
    attempt: Attempt
    plan: ExecutionPlan
    reason: Reason
    units: tuple[LaunchUnit, ...] = ()
    kind: Literal["ChangePlan"] = "ChangePlan"


@dataclass(frozen=True, slots=True)
class EndAttempt:
    """End the attempt now."""

    uid: JobUid
    attempt: Attempt
    reason: Reason
    kind: Literal["EndAttempt"] = "EndAttempt"


@dataclass(frozen=True, slots=True)
class FailJob:
    """The job will not be tried again."""

    uid: JobUid
    reason: Reason
    kind: Literal["FailJob"] = "FailJob"


@dataclass(frozen=True, slots=True)
class ForgetJob:
    """Drop a withdrawn or expired job from the state; ``purge`` its checkpoints.

    Attributes:
        reason: How it ended: whoever comes after it is gone finds that here only.
        cause: Why it is forgotten.
    """

    uid: JobUid
    purge: bool = False
    reason: Reason | None = None
    cause: Reason | None = None
    kind: Literal["ForgetJob"] = "ForgetJob"


Action = Annotated[
    StartAttempt | StopAttempt | ChangePlan | EndAttempt | FailJob | ForgetJob,
    Discriminator("kind"),
]
