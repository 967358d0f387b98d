"""What is known of a row before it ever ran: a ridge from side information to what others learnt.

The towers stay as they are. To each workload or platform they gave a state, that is its linear
scaling and its embedding; a kernel ridge tells the state of a row that nothing was learnt of from
the states of those that are like it. How far such a guess is off is measured on known rows whose
whole group (a device with all its runtimes, a suite) was left out of the ridge: that is the
covariance a new row begins with, and why its first bounds are wide.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from controlplane.pitot.run_times import Reals
from controlplane.pitot.tower import Floats

_WIDTHS = (1.0, 3.0, 10.0)
"""Of the kernel, in mean squared differences of a standardised feature; one is chosen."""
_RIDGES = (1e-3, 1e-2, 1e-1)
_LEVEL = 10.0
"""Variance of what all rows have in common: far above that of their differences."""


@dataclass(frozen=True, slots=True)
class Belief:
    """What is thought of a row's state: a normal distribution.

    Attributes:
        mean: (d,).
        covariance: (d, d).
        runs: How many of its runs went into it.
    """

    mean: Reals
    covariance: Reals
    runs: int = 0

    def after(self, factors: Reals, log_seconds: Reals, noise: float) -> Self:
        """Ridge regression on a few runs, with this belief as what they are held against.

        Args:
            factors: (n, d) by which the state goes into each run's logarithm.
            log_seconds: (n,) measured, less what does not depend on the state.
            noise: Deviation of a run's logarithm around the model.
        """
        shared = factors @ self.covariance
        spread = shared @ factors.T + noise**2 * np.eye(len(factors))
        gain = np.linalg.solve(spread, shared).T
        mean = self.mean + gain @ (log_seconds - factors @ self.mean)
        covariance = self.covariance - gain @ shared
        return type(self)(mean, (covariance + covariance.T) / 2, self.runs + len(factors))

    def told(self, factors: Reals, noise: float) -> tuple[Reals, Reals]:
        """(n,) expected logarithms of runs, and (n,) their deviations, noise included."""
        variance = np.einsum("ni,ij,nj->n", factors, self.covariance, factors)
        return factors @ self.mean, np.sqrt(np.maximum(variance, 0.0) + noise**2)


@dataclass(frozen=True, slots=True)
class SideInformation:
    """The ridge.

    Attributes:
        known: (n, features) of the rows that something was learnt of; standardised.
        states: (n, d) what was learnt of them.
        without: (n, d) what the ridge tells of each from rows of other groups alone.
        width: Of the kernel.
        ridge: What is added to its diagonal.
    """

    known: Reals
    states: Reals
    without: Reals
    width: float
    ridge: float

    @classmethod
    def of(
        cls, known: Floats | Reals, states: Reals, groups: Sequence[str], weights: Reals
    ) -> Self:
        """Chooses width and ridge by what is off where groups are left out.

        Args:
            known: (n, features), standardised.
            states: (n, d) learnt.
            groups: (n,) names of what comes together; at least two different ones.
            weights: (d, d) second moment of the factors of runs: which errors of a state count.

        Raises:
            ValueError: All rows are of one group.
        """
        if len(set(groups)) < 2:
            raise ValueError(
                f"wanted rows of two groups or more to tell how far a new one is off, "
                f"found {len(set(groups))} among {len(groups)} rows"
            )
        rows, best = np.asarray(known, dtype=np.float64), None
        for width in _WIDTHS:
            for ridge in _RIDGES:
                off = _left_out(_kernel(rows, rows, width), states, groups, ridge)
                loss = float(np.einsum("ni,ij,nj->", off, weights, off))
                if best is None or loss < best[0]:
                    best = (loss, states - off, width, ridge)
        if best is None:  # pragma: no cover - the grid is not empty
            raise AssertionError
        return cls(rows, states, *best[1:])

    def begin(self, features: Floats | Reals) -> Belief:
        """Of a new row, given its (features,), standardised as the known ones were."""
        beside = _kernel(np.asarray(features, dtype=np.float64)[None, :], self.known, self.width)
        own = _kernel(self.known, self.known, self.width)
        own[np.diag_indices_from(own)] += self.ridge
        mean = (beside @ np.linalg.solve(own, self.states))[0]
        return Belief(mean, self._covariance(np.ones(len(self.states), dtype=np.bool_)))

    def begin_as_new(self, row: int, groups: Sequence[str]) -> Belief:
        """Of a known row, as it were had its group never been seen."""
        others = np.array([group != groups[row] for group in groups])
        return Belief(self.without[row], self._covariance(others))

    def _covariance(self, rows: np.ndarray) -> Reals:
        off = (self.states - self.without)[rows]
        found: Reals = off.T @ off / len(off)
        return found


def _kernel(first: Reals, second: Reals, width: float) -> Reals:
    """How like rows are: a level, a linear part, and one that falls with distance."""
    features = first.shape[1]
    product = first @ second.T
    squares = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1) - 2 * product
    found: Reals = _LEVEL + product / features + np.exp(-squares / (features * width))
    return found


def _left_out(kernel: Reals, states: Reals, groups: Sequence[str], ridge: float) -> Reals:
    """(n, d) what each state is off by, told from other groups; in closed form."""
    size = len(kernel)
    hat = np.linalg.solve(kernel + ridge * np.eye(size), kernel).T
    off, found = states - hat @ states, np.empty_like(states)
    names = np.asarray(groups)
    for group in np.unique(names):
        own = np.flatnonzero(names == group)
        found[own] = np.linalg.solve(np.eye(len(own)) - hat[np.ix_(own, own)], off[own])
    return found
