"""How long things take in the virtual cluster."""

from dataclasses import dataclass

from controlplane.domain.clock import Instant, seconds
from controlplane.domain.ids import Attempt, JobUid
from controlplane.domain.placement import Placement
from simulator.scenario import Costs


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt in the virtual cluster.

    Attributes:
        uid: The job.
        attempt: Its attempt.
        placement: Where it runs.
        begins_at: When its next step begins: start-up, or a change of plan, is over.
        first_step: Steps done by then.
        saved_step: Checkpoint that it was started from.
        step_seconds: Time of one step on this placement.
        last_step: Step at which it ends by itself.
        fails: Whether it fails there instead of finishing.
    """

    uid: JobUid
    attempt: Attempt
    placement: Placement
    begins_at: Instant
    first_step: int
    saved_step: int
    step_seconds: float
    last_step: int
    fails: bool = False

    def steps_at(self, now: Instant) -> int:
        """Steps done at ``now``."""
        if now <= self.begins_at:
            return self.first_step
        done = int((now - self.begins_at) / 1e9 / self.step_seconds)
        return min(self.last_step, self.first_step + done)

    def reaches(self, step: int) -> Instant:
        """When ``step`` is done."""
        return Instant(self.begins_at + seconds((step - self.first_step) * self.step_seconds))


def step_seconds(single: float, accelerators: int, costs: Costs) -> float:
    """Time of a step that takes ``single`` seconds on one accelerator, on several."""
    speedup: float = accelerators**costs.scalingExponent
    return single / speedup
