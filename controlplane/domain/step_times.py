"""What a step takes under a plan on accelerators that lie so and so: what policies choose by, and
what the simulator plays. Either a table that was measured, or a model that was fitted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from controlplane.domain.job import JobSpec
from controlplane.domain.snapshot import ClusterSnapshot
from headrace.api.plan import ExecutionPlan

Shares = tuple[int, ...]
"""How many accelerators of each of its nodes a job has, most first: (8, 8), or (4, 2, 2)."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to run a job.

    Attributes:
        plan: The plan.
        shares: How its accelerators lie.
        seconds: What a step takes.
        seconds_upper: What it takes at most, with the coverage that the source states; the same as
            ``seconds`` where it was measured.
    """

    plan: ExecutionPlan
    shares: Shares
    seconds: float
    seconds_upper: float

    @property
    def accelerators(self) -> int:
        """Accelerators in all."""
        return sum(self.shares)

    @property
    def steps_per_second(self) -> float:
        """How fast it is."""
        return 1.0 / self.seconds


class StepTimes(Protocol):
    """Knows what steps take. Pure: the same answer to the same question, always."""

    def ways(self, spec: JobSpec, kind: str) -> tuple[Way, ...]:
        """Every way to run the job that is worth a look, in no certain order.

        A table gives what was measured; a model what fits into nodes as they are.

        Args:
            spec: Of the job; its plans, sizes and topology are kept to.
            kind: Type of the accelerators.
        """
        ...

    def way(self, spec: JobSpec, kind: str, plan: ExecutionPlan, shares: Shares) -> Way | None:
        """What one way takes; None if nobody can say, or the job cannot run so.

        Args:
            spec: Of the job.
            kind: Type of the accelerators.
            plan: The plan.
            shares: How the accelerators lie, most first.
        """
        ...


@runtime_checkable
class SourcedStepTimes(Protocol):
    """Step times that can say what they know their answers from."""

    def source(self, spec: JobSpec, kind: str) -> str:
        """A sentence on what is predicted of the job's steps, and from what.

        Args:
            spec: Of the job.
            kind: Type of the accelerators.
        """
        ...


StepTimesAt = Callable[[ClusterSnapshot], StepTimes]
"""What is known of steps at an instant: a table always knows the same, fitted models change."""
