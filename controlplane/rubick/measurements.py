"""Measured steps, as a fit takes them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.rubick.configurations import Configurations, Shares
from headrace.api.plan import ExecutionPlan
from headrace.api.profile_rows import PlanRow


@dataclass(frozen=True, slots=True)
class Measurement:
    """A measured step.

    Attributes:
        plan: What was run.
        shares: Accelerators of each node.
        samples: Global batch.
        seconds: Median time of a step.
        cpu_threads: Of each accelerator.
        positions: Of a sample; 0 for the model's own.
    """

    plan: ExecutionPlan
    shares: Shares
    samples: int
    seconds: float
    cpu_threads: float = 1.0
    positions: int = 0

    def __str__(self) -> str:
        """What it is about."""
        return f"{self.plan} on {'+'.join(map(str, self.shares))}"

    @classmethod
    def of_row(cls, row: PlanRow) -> "Measurement":
        """A row of a profile, or what a running job told.

        Raises:
            ValueError: The row has no time, or its placement is not a list of numbers.
        """
        if row.iteration is None:
            raise ValueError(f"{row.plan}: wanted a measured row, got one that is {row.status}")
        try:
            shares = tuple(int(share) for share in row.placement.split("+"))
        except ValueError as error:
            raise ValueError(
                f"{row.plan}: wanted a placement such as 4+4, got {row.placement!r}"
            ) from error
        return cls(
            plan=ExecutionPlan.parse(row.plan),
            shares=shares,
            samples=row.asked.global_batch,
            seconds=row.iteration,
            cpu_threads=float(row.machine.cpu_threads) if row.machine is not None else 1.0,
            positions=row.asked.sequence_length,
        )


def columns(rows: Sequence[Measurement]) -> Configurations:
    """What was measured, without the times."""
    return Configurations.of(
        [row.plan for row in rows],
        [row.shares for row in rows],
        [row.samples for row in rows],
        cpu_threads=[row.cpu_threads for row in rows],
        positions=[row.positions for row in rows],
    )


def refuse_unsound(rows: Sequence[Measurement]) -> None:
    """Accept only times that a clock can show.

    Raises:
        ValueError: One of them is not a positive, finite number; nothing was done with the others.
    """
    for index, row in enumerate(rows):
        if not (math.isfinite(row.seconds) and row.seconds > 0):
            raise ValueError(
                f"row {index} ({row}): wanted a finite time above 0 seconds, got {row.seconds}; "
                "leave out what was not measured"
            )
