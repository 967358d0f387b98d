"""How long things take in the virtual cluster."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isinf

from controlplane.domain.clock import FOREVER, SECOND, Instant, seconds
from controlplane.domain.ids import Attempt, JobUid
from controlplane.domain.job import JobSpec
from controlplane.domain.offering import plans_of, sizes
from controlplane.domain.placement import LaunchUnit, Placement
from controlplane.domain.step_times import Shares, Way
from headrace.api.plan import ExecutionPlan


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt in the virtual cluster, under one plan in one place.

    Attributes:
        uid: The job.
        attempt: Its attempt.
        version: Counts all runs; what was to come of an earlier one does not happen.
        placement: Where it runs.
        begins_at: When its next step begins: start-up, or a change of plan, is over.
        first_step: Steps done by then. A step that was begun is not lost by a planned stop, so
            this need not be a whole number.
        saved_step: Last step that a failure leaves.
        step_seconds: Time of one step on this placement.
        last_step: Step at which it ends by itself; infinite if it never does.
        fails: Whether it fails there instead of finishing.
        over: Whether it has ended, or was ended.
    """

    uid: JobUid
    attempt: Attempt
    version: int
    placement: Placement
    begins_at: Instant
    first_step: float
    saved_step: int
    step_seconds: float
    last_step: float
    fails: bool = False
    over: bool = False

    def steps_at(self, now: Instant) -> float:
        """Steps done at ``now``."""
        if now <= self.begins_at:
            return self.first_step
        done = (now - self.begins_at) / SECOND / self.step_seconds
        return min(self.last_step, self.first_step + done)

    @property
    def ends_at(self) -> Instant:
        """When the last step is done."""
        if isinf(self.last_step):
            return FOREVER
        left = (self.last_step - self.first_step) * self.step_seconds
        return Instant(self.begins_at + seconds(left))

    @property
    def first_unit(self) -> LaunchUnit:
        """The one that reports progress."""
        return self.placement.units[0]


class UnknownPlacementError(ValueError):
    """A policy put a job where nobody knows what its steps take."""


class ScaledStepTimes:
    """Step times of jobs of which nothing was measured: a power of the number of accelerators.

    A step that takes 1 s on one accelerator takes ``count ** -exponent`` s on several, wherever
    they lie and whatever the plan. How long it takes on one is each job's own pace.
    """

    def __init__(self, exponent: float) -> None:
        """``exponent`` is 1 for a job that scales perfectly, and 0 for one that does not."""
        self._exponent = exponent

    def ways(self, spec: JobSpec, kind: str) -> tuple[Way, ...]:
        """A way for each plan, on one node."""
        return tuple(
            self._way(plan, (size,)) for size in sizes(spec) for plan in plans_of(spec, size)
        )

    def way(self, spec: JobSpec, kind: str, plan: ExecutionPlan, shares: Shares) -> Way:
        """Any way is known."""
        return self._way(plan, shares)

    def _way(self, plan: ExecutionPlan, shares: Sequence[int]) -> Way:
        taken: float = sum(shares) ** -self._exponent
        return Way(plan, tuple(shares), taken, taken)
