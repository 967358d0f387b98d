"""Observed run times: of which workload, on which platform, beside which others."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

MOST_CO_RUNNERS = 3
"""Of one run, so at most four workloads share a platform (section 2 of the paper)."""
NOBODY = -1
"""In place of a co-runner that is not there."""
LEAST_SECONDS, MOST_SECONDS = 1e-9, 1e9
"""What is outside was not measured: a nanosecond, and thirty years."""

_ROUNDS = 4
_SUSPICIOUS = float(np.log(200.0))

Ids = NDArray[np.int64]
Reals = NDArray[np.float64]


class RunTimeError(ValueError):
    """A run time that cannot be; says in which row, what was wanted and what came."""


@dataclass(frozen=True, slots=True)
class RunTimes:
    """Rows of observations.

    Attributes:
        workload: (n,) index of what ran.
        platform: (n,) index of where.
        beside: (n, 3) indices of its co-runners, filled up with ``NOBODY``; their order means
            nothing.
        seconds: (n,) how long it took.
    """

    workload: Ids
    platform: Ids
    beside: Ids
    seconds: Reals

    @classmethod
    def of(
        cls,
        workload: Sequence[int] | Ids,
        platform: Sequence[int] | Ids,
        seconds: Sequence[float] | Reals,
        beside: Sequence[Sequence[int]] | Ids | None = None,
    ) -> Self:
        """The same from any sequences.

        Args:
            workload: (n,) indices.
            platform: (n,) indices.
            seconds: (n,) times.
            beside: (n, at most 3) indices of co-runners, or nobody's.

        Raises:
            RunTimeError: They are not of one length, or there are more than three co-runners.
        """
        rows = len(seconds)
        padded = np.full((rows, MOST_CO_RUNNERS), NOBODY, dtype=np.int64)
        if beside is not None:
            given = np.asarray(beside, dtype=np.int64).reshape(len(beside), -1)
            if given.shape[1] > MOST_CO_RUNNERS:
                raise RunTimeError(
                    f"wanted at most {MOST_CO_RUNNERS} co-runners, found {given.shape[1]}"
                )
            if len(given) != rows:
                raise RunTimeError(f"wanted co-runners of {rows} rows, found {len(given)}")
            padded[:, : given.shape[1]] = given
        found = cls(
            np.asarray(workload, dtype=np.int64),
            np.asarray(platform, dtype=np.int64),
            padded,
            np.asarray(seconds, dtype=np.float64),
        )
        for name, column in (("workload", found.workload), ("platform", found.platform)):
            if column.shape != (rows,):
                raise RunTimeError(f"wanted {rows} values of {name}, found {column.shape}")
        return found

    def __len__(self) -> int:
        return len(self.seconds)

    @property
    def degree(self) -> Ids:
        """(n,) how many workloads shared the platform, 1 to 4: the pool of the row."""
        return np.asarray(1 + np.count_nonzero(self.beside != NOBODY, axis=1), dtype=np.int64)

    @property
    def log_seconds(self) -> Reals:
        """(n,) natural logarithm of the times; all is learnt and bounded there."""
        return np.log(self.seconds)

    def rows(self, chosen: NDArray[np.bool_] | Ids) -> Self:
        """Some of the rows."""
        return type(self)(
            self.workload[chosen], self.platform[chosen], self.beside[chosen], self.seconds[chosen]
        )

    def and_also(self, more: Self) -> Self:
        """These rows and then those."""
        return type(self)(
            np.concatenate([self.workload, more.workload]),
            np.concatenate([self.platform, more.platform]),
            np.concatenate([self.beside, more.beside]),
            np.concatenate([self.seconds, more.seconds]),
        )


def check(runs: RunTimes, workloads: Sequence[str], platforms: Sequence[str]) -> None:
    """Refuses what was not measured, before anything is learnt from it.

    Args:
        runs: Observations.
        workloads: Names, by index.
        platforms: Names, by index.

    Raises:
        RunTimeError: The first few faults, each with its row, and how many there are.
    """
    faults = list(_faults(runs, workloads, platforms)) or list(_other_units(runs))
    if faults:
        told = "; ".join(faults[:3])
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise RunTimeError(f"nothing was taken: {told}{more}")


def _faults(runs: RunTimes, workloads: Sequence[str], platforms: Sequence[str]) -> Iterator[str]:
    for what, column, names in (
        ("workload", runs.workload, workloads),
        ("platform", runs.platform, platforms),
    ):
        for row in np.flatnonzero((column < 0) | (column >= len(names))):
            yield f"row {row}: no {what} {column[row]}, wanted 0 to {len(names) - 1}"
    beyond = (runs.beside < NOBODY) | (runs.beside >= len(workloads))
    for row in np.flatnonzero(beyond.any(axis=1)):
        yield f"row {row}: no co-runner {runs.beside[row].min()}, wanted 0 to {len(workloads) - 1}"
    good = np.isfinite(runs.seconds) & (runs.seconds >= LEAST_SECONDS)
    for row in np.flatnonzero(~(good & (runs.seconds <= MOST_SECONDS))):
        yield (
            f"row {row}: {runs.seconds[row]:g} s, wanted a time between {LEAST_SECONDS:g} and "
            f"{MOST_SECONDS:g} s"
        )
    yield from _twice(runs)


def _twice(runs: RunTimes) -> Iterator[str]:
    """The same time of the same run to the last digit is one observation that was copied."""
    key = np.column_stack(
        [runs.workload, runs.platform, np.sort(runs.beside, axis=1), runs.seconds.view(np.int64)]
    )
    _, first, which = np.unique(key, axis=0, return_index=True, return_inverse=True)
    for row in np.flatnonzero(first[which.ravel()] != np.arange(len(runs))):
        yield f"row {row}: the same observation as row {first[which.ravel()[row]]}"


def _other_units(runs: RunTimes) -> Iterator[str]:
    """Times that are some thousand times what their workload and platform take elsewhere.

    Workloads and platforms explain a time up to a factor of ten or so; whoever tells milliseconds
    among seconds is 1000 off.
    """
    residual = runs.log_seconds
    for _ in range(_ROUNDS):
        for column in (runs.workload, runs.platform):
            residual = residual - _medians(column, residual)[column]
    for row in np.flatnonzero(np.abs(residual) > _SUSPICIOUS):
        times = np.exp(np.abs(residual[row]))
        yield (
            f"row {row}: {runs.seconds[row]:g} s is {times:.0f} times "
            f"{'more' if residual[row] > 0 else 'less'} than its workload and platform take "
            "elsewhere; wanted seconds, so milliseconds or microseconds have to be divided"
        )


def _medians(column: Ids, values: Reals) -> Reals:
    """(most + 1,) the median of the values by index."""
    order = np.lexsort((values, column))
    counts = np.bincount(column)
    ends = np.cumsum(counts)
    middle = np.maximum(ends - (counts + 1) // 2, 0)
    return np.where(counts > 0, values[order][np.minimum(middle, len(values) - 1)], 0.0)
