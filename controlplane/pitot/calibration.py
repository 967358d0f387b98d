"""Bounds that hold: conformalised quantile regression with a pool for each degree (section 3).

A bound is a quantile head's prediction and a margin, which is a quantile of what that head was off
by on runs that nothing was learnt from. Which head is taken is chosen on other runs than those that
the margin is computed from (the original uses one set for both, and for stopping), so the coverage
is a theorem where runs are exchangeable: at least as stated. Of one head it is at most 1/(n + 1)
more.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from controlplane.pitot.run_times import Reals, RunTimes

Side = Literal["lower", "upper"]

DEGREES = (1, 2, 3, 4)
"""Of interference: how many workloads share the platform. Each has a pool of its own."""


class TooFewRunsError(ValueError):
    """A pool is too small for the coverage that was asked for.

    Attributes:
        degree: Of the pool.
        missing: How many observations more it takes.
    """

    def __init__(self, degree: int, have: int, wanted: int, coverage: float) -> None:
        self.degree = degree
        self.missing = wanted - have
        among = "alone" if degree == 1 else f"beside {degree - 1} other{'s' * (degree > 2)}"
        super().__init__(
            f"a bound that holds for {coverage:.4g} of runs {among} takes {wanted} observations "
            f"to calibrate, {self.missing} more than the {have} that there are"
        )


def observations_for(miss: float) -> int:
    """How many a pool needs at least, for a bound that is missed so often."""
    return max(1, math.ceil(1.0 / miss - 1e-9) - 1)


@dataclass(frozen=True, slots=True)
class Pool:
    """What the heads were off by, on runs of one degree.

    Attributes:
        degree: How many workloads shared the platform.
        residuals: (n, heads) measured less predicted logarithms.
        weights: (n,) how much each run counts; 1 where runs are missing at random.
    """

    degree: int
    residuals: Reals
    weights: Reals

    def __len__(self) -> int:
        return len(self.residuals)

    def upper_margin(self, head: int, miss: float, weight: float = 1.0) -> float:
        """What to add to a head's prediction, so that times are above it so rarely.

        Args:
            head: Which.
            miss: Between 0 and 1.
            weight: Of the run that is bounded (weighted conformal prediction).

        Raises:
            TooFewRunsError: No margin of these runs is known to be enough.
        """
        return float(self.upper_margins(head, miss, np.array([weight]))[0])

    def lower_margin(self, head: int, miss: float, weight: float = 1.0) -> float:
        """The same for times below it; what to add is mostly negative.

        Raises:
            TooFewRunsError: No margin of these runs is known to be enough.
        """
        return float(self.lower_margins(head, miss, np.array([weight]))[0])

    def upper_margins(self, head: int, miss: float, weights: Reals) -> Reals:
        """(n,) :meth:`upper_margin` of runs that have those weights.

        Raises:
            TooFewRunsError: For one of them no margin of these runs is known to be enough.
        """
        return self._margins(self.residuals[:, head], miss, weights)

    def lower_margins(self, head: int, miss: float, weights: Reals) -> Reals:
        """(n,) :meth:`lower_margin` of runs that have those weights.

        Raises:
            TooFewRunsError: For one of them no margin of these runs is known to be enough.
        """
        return -self._margins(-self.residuals[:, head], miss, weights)

    def _margins(self, residuals: Reals, miss: float, weights: Reals) -> Reals:
        """The least residuals that runs of weight 1 - miss do not exceed, the new one's at worst.

        A run that weighs more than those that are there needs more of them.
        """
        if not 0.0 < miss < 1.0:
            raise ValueError(f"wanted a rate of misses between 0 and 1, found {miss:g}")
        order = np.argsort(residuals, kind="stable")
        below = np.cumsum(self.weights[order])
        total = below[-1] if len(below) else 0.0
        wanted = (1.0 - miss) * (total + weights)
        places = np.searchsorted(below, wanted * (1.0 - 1e-12))
        if np.any(places >= len(order)):
            mean = total / max(len(order), 1) or 1.0
            least = math.ceil(observations_for(miss) * float(np.max(weights)) / mean - 1e-9)
            raise TooFewRunsError(self.degree, len(order), max(least, len(order) + 1), 1.0 - miss)
        found: Reals = residuals[order[places]]
        return found


@dataclass(frozen=True, slots=True)
class Calibration:
    """Pools, and which head was found to be tightest for which rate of misses.

    Attributes:
        quantiles: That of each head.
        pools: By degree; only those for which there are observations.
        upper_heads: By (degree, miss): the head for upper bounds.
        lower_heads: The same for lower bounds.
    """

    quantiles: tuple[float, ...]
    pools: Mapping[int, Pool]
    upper_heads: Mapping[tuple[int, float], int]
    lower_heads: Mapping[tuple[int, float], int]

    def upper(
        self, predicted: NDArray[np.floating], degree: int, miss: float
    ) -> NDArray[np.floating]:
        """(n,) logarithms of seconds that are exceeded so rarely, given (n, heads) predictions.

        Raises:
            TooFewRunsError: The pool is too small.
        """
        return self.bound("upper", lambda head: predicted[:, head], degree, miss)

    def lower(
        self, predicted: NDArray[np.floating], degree: int, miss: float
    ) -> NDArray[np.floating]:
        """The same for times that are so rarely shorter.

        Raises:
            TooFewRunsError: The pool is too small.
        """
        return self.bound("lower", lambda head: predicted[:, head], degree, miss)

    def bound(
        self,
        side: Side,
        predicted: Callable[[int], NDArray[np.floating]],
        degree: int,
        miss: float,
        weights: Reals | None = None,
    ) -> NDArray[np.floating]:
        """(n,) logarithms of seconds, given what tells the (n,) predictions of a head.

        Other rates have other heads, and of two heads now one, now the other is above. So a bound
        is the widest of its own and those of all larger rates that heads were chosen for, and of
        the median: more coverage is never a tighter bound of the same run.

        Args:
            side: Of the interval.
            predicted: What a head tells.
            degree: Of all these runs.
            miss: The rate of times beyond the bound.
            weights: (n,) of these runs, where those of the pool have weights; left out, 1.

        Raises:
            TooFewRunsError: The pool is too small.
        """
        pool = self._pool(degree, miss)
        upper, widest = side == "upper", predicted(self.median)
        counted = np.ones(1) if weights is None else weights
        for head, rate in self._heads(side, degree, miss):
            margins = pool.upper_margins if upper else pool.lower_margins
            margin = margins(head, rate, counted)
            found = predicted(head) + margin
            widest = np.maximum(widest, found) if upper else np.minimum(widest, found)
        return widest

    @property
    def median(self) -> int:
        """The head whose quantile is nearest to one half."""
        return _nearest(self.quantiles, 0.5)

    def _heads(self, side: Side, degree: int, miss: float) -> list[tuple[int, float]]:
        """The head of this rate, and those of all larger rates that were chosen for.

        A rate that was not chosen for has the head of the next smaller one, else of the smallest.
        """
        heads = self.upper_heads if side == "upper" else self.lower_heads
        rates = sorted(rate for pool, rate in heads if pool == degree)
        if not rates:
            quantile = 1.0 - miss if side == "upper" else miss
            return [(_nearest(self.quantiles, quantile), miss)]
        own = max((rate for rate in rates if rate <= miss), default=rates[0])
        larger = [(heads[degree, rate], rate) for rate in rates if rate > max(own, miss)]
        return [(heads[degree, own], miss), *larger]

    def _pool(self, degree: int, miss: float) -> Pool:
        if degree not in self.pools:
            raise TooFewRunsError(degree, 0, observations_for(miss), 1.0 - miss)
        return self.pools[degree]


def calibrate(
    quantiles: Sequence[float],
    choosing: tuple[RunTimes, NDArray[np.floating]],
    measuring: tuple[RunTimes, NDArray[np.floating]],
    *,
    misses: Iterable[float],
    weights: Reals | None = None,
) -> Calibration:
    """Chooses heads on some runs and measures margins on others.

    Args:
        quantiles: That of each head.
        choosing: Runs, and their (n, heads) predictions; nothing was learnt from them.
        measuring: The same, of other runs.
        misses: Rates of misses for which heads are chosen.
        weights: Of the runs for measuring; left out, all count alike.
    """
    first, second = _pools(*choosing, None), _pools(*measuring, weights)
    upper: dict[tuple[int, float], int] = {}
    lower: dict[tuple[int, float], int] = {}
    for degree, pool in first.items():
        for miss in misses:
            if len(pool) >= observations_for(miss):
                upper[degree, miss] = _tightest(pool, miss)
                mirrored = Pool(degree, -pool.residuals, pool.weights)
                lower[degree, miss] = _tightest(mirrored, miss)
    return Calibration(tuple(quantiles), second, upper, lower)


def _pools(
    runs: RunTimes, predicted: NDArray[np.floating], weights: Reals | None
) -> dict[int, Pool]:
    residuals = runs.log_seconds[:, None] - predicted
    counted = np.ones(len(runs)) if weights is None else weights
    found = {}
    for degree in DEGREES:
        rows = runs.degree == degree
        if rows.any():
            found[degree] = Pool(degree, residuals[rows], counted[rows])
    return found


def _tightest(pool: Pool, miss: float) -> int:
    """The head whose calibrated bound is nearest to what was measured (E |C / bound - 1|)."""

    def looseness(head: int) -> float:
        off = pool.residuals[:, head] - pool.upper_margin(head, miss)
        return float(np.mean(np.abs(np.expm1(off))))

    return min(range(pool.residuals.shape[1]), key=looseness)


def _nearest(values: Sequence[float], wanted: float) -> int:
    return min(range(len(values)), key=lambda at: abs(values[at] - wanted))
