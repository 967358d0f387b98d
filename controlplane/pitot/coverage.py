"""Promised coverage against what was reached: per pool, per platform and per workload."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from controlplane.pitot.run_times import RunTimes

Kind = Literal["pool", "platform", "workload"]
_Z = 1.96
"""Of the interval that is told beside each share: 95 %."""


@dataclass(frozen=True, slots=True)
class Reached:
    """How often the bounds of some runs held.

    Attributes:
        kind: What the runs have in common.
        name: Of it; a pool's is how many workloads shared the platform.
        promised: The coverage that was stated.
        runs: How many were measured.
        held: How many of them kept to their bounds.
        low: The least share that goes with so many (95 %, Wilson).
        high: The largest.
    """

    kind: Kind
    name: str
    promised: float
    runs: int
    held: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """Of runs that kept to their bounds."""
        return self.held / self.runs

    @property
    def short(self) -> bool:
        """Whether it is less than promised by more than chance."""
        return self.high < self.promised


def coverage_reached(
    runs: RunTimes,
    held: np.ndarray,
    promised: float,
    names: tuple[Sequence[str], Sequence[str]],
) -> tuple[Reached, ...]:
    """A row for each pool, platform and workload that ran, in this order and by index.

    Args:
        runs: What was measured.
        held: (n,) whether each kept to its bounds.
        promised: The coverage that was stated for all of them.
        names: Of workloads and of platforms, by index.

    Raises:
        ValueError: There are not as many answers as runs, or no such coverage.
    """
    if held.shape != (len(runs),):
        raise ValueError(f"wanted {len(runs)} answers whether bounds held, found {held.shape}")
    if not 0.0 < promised < 1.0:
        raise ValueError(f"wanted a coverage between 0 and 1, found {promised:g}")
    workloads, platforms = names
    degrees = [str(degree) for degree in range(int(runs.degree.max(initial=0)) + 1)]
    return tuple(
        row
        for kind, column, told in (
            ("pool", runs.degree, degrees),
            ("platform", runs.platform, platforms),
            ("workload", runs.workload, workloads),
        )
        for row in _rows(kind, column, held, promised, told)  # type: ignore[arg-type]
    )


def _rows(
    kind: Kind, column: np.ndarray, held: np.ndarray, promised: float, names: Sequence[str]
) -> Iterator[Reached]:
    counts = np.bincount(column)
    kept = np.bincount(column, weights=held).astype(np.int64)
    for index in np.flatnonzero(counts).tolist():
        runs, inside = int(counts[index]), int(kept[index])
        low, high = wilson(inside, runs)
        yield Reached(kind, names[index], promised, runs, inside, low, high)


def wilson(held: int, runs: int) -> tuple[float, float]:
    """The interval of shares that goes with so many of so many runs (95 %)."""
    share, square = held / runs, _Z**2 / runs
    middle = (share + square / 2) / (1 + square)
    half = _Z * np.sqrt(share * (1 - share) / runs + square / (4 * runs)) / (1 + square)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))
