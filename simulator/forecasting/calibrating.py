"""Intervals that hold as often as they say: what was played is corrected by what came true.

Conformal prediction with a pool for what was said before a job's start and one for what was said
after it. What is compared is the logarithm of the time that was left, against that of the lower
end, the middle and the upper end that were played: three heads, as of a quantile regression
(``controlplane.pitot.calibration``). Newer outcomes count for more, and which rate of misses is
asked for follows those that happened (``controlplane.pitot.drift``): clusters drift.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import exp, log

import numpy as np

from controlplane.domain.clock import Instant, after, seconds
from controlplane.domain.forecast import (
    FORECAST_COVERAGE,
    ForecastOutcome,
    JobForecast,
    Span,
)
from controlplane.pitot.calibration import Pool, TooFewRunsError, observations_for
from controlplane.pitot.drift import AdaptiveMiss
from simulator.forecasting.playing import seconds_between

GRAIN_SECONDS = 30.0
"""Times are not told apart much finer: what is left is compared with this added, so that a job
that ends in two seconds instead of one does not count as twice as long."""

NEWEST, HALF_LIFE = 100, 400
"""Of a pool, so many outcomes count in full, and then each half as much as one so much newer."""

SPEED = 0.02
"""How far one miss moves the rate of misses that is asked for."""

_TAIL = (1.0 - FORECAST_COVERAGE) / 2.0
OUTCOMES_WANTED = observations_for(_TAIL)
"""So many outcomes of a pool it takes at least."""

_LEAST_MISS, _MOST_MISS = 0.002, 0.4
_LOW, _MEDIAN, _HIGH = range(3)


@dataclass(frozen=True, slots=True)
class Correction:
    """What makes an interval of what was played.

    Attributes:
        pool: What the heads were off by.
        low_miss: Rate of ends before the interval that is asked for now.
        high_miss: Rate of those after it.
    """

    pool: Pool
    low_miss: float
    high_miss: float

    def of(self, at: Instant, span: Span) -> tuple[Span, int]:
        """A span corrected, and how many outcomes are missing for that: 0 if it is."""
        try:
            median = self.pool.upper_margin(_MEDIAN, 0.5)
            low = self.pool.lower_margin(_LOW, self._asked(self.low_miss))
            high = self.pool.upper_margin(_HIGH, self._asked(self.high_miss))
        except TooFewRunsError:
            return span, max(1, OUTCOMES_WANTED - len(self.pool))
        middle = _later(at, span.median, median)
        first, last = _later(at, span.low, low), _later(at, span.high, high)
        return Span(min(first, middle), middle, max(last, middle)), 0

    def _asked(self, miss: float) -> float:
        """The rate of misses to ask for: where drift makes it one that these outcomes cannot tell
        of, the rarest that they can, if that is rare enough for what is promised.
        """
        rarest = 1.0 / (float(self.pool.weights.sum()) + 1.0)
        return max(miss, min(rarest * (1.0 + 1e-9), _TAIL))


@dataclass(frozen=True, slots=True)
class Calibrated:
    """Corrections, from outcomes.

    Attributes:
        ends: Of ends: of what is said before a start, and after it.
        starts: Of starts.
    """

    ends: tuple[Correction, Correction]
    starts: Correction

    @classmethod
    def by(cls, outcomes: Iterable[ForecastOutcome]) -> "Calibrated":
        """What outcomes teach, oldest first."""
        counted = [each for each in outcomes if each.is_counted]
        by_start = [[each for each in counted if each.forecast.started is b] for b in (False, True)]
        before, since = (_correction(each, _end_of) for each in by_start)
        return cls((before, since), _correction(by_start[0], _start_of))

    def correct(self, said: JobForecast) -> JobForecast:
        """A forecast with its intervals corrected."""
        end, start, missing, missing_starts = said.end, said.start, 0, 0
        if said.played_end is not None:
            end, missing = self.ends[said.started].of(said.made_at, said.played_end)
        if said.played_start is not None:
            start, missing_starts = self.starts.of(said.made_at, said.played_start)
        return replace(said, end=end, start=start, missing=missing, missing_starts=missing_starts)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was played and what was told of one instant, and what came true."""

    made_at: Instant
    played: Span
    told: Span
    calibrated: bool
    actual: Instant


def _end_of(outcome: ForecastOutcome) -> _Seen | None:
    said = outcome.forecast
    if said.played_end is None or said.end is None:
        return None
    return _Seen(said.made_at, said.played_end, said.end, not said.missing, outcome.ended_at)


def _start_of(outcome: ForecastOutcome) -> _Seen | None:
    said = outcome.forecast
    if said.played_start is None or said.start is None or outcome.started_at is None:
        return None
    told = not said.missing_starts
    return _Seen(said.made_at, said.played_start, said.start, told, outcome.started_at)


def _correction(
    outcomes: Sequence[ForecastOutcome], look: Callable[[ForecastOutcome], _Seen | None]
) -> Correction:
    seen = [each for outcome in outcomes if (each := look(outcome)) is not None]
    residuals = np.array(
        [
            [
                _log_left(each.made_at, each.actual) - _log_left(each.made_at, end)
                for end in (each.played.low, each.played.median, each.played.high)
            ]
            for each in seen
        ]
    ).reshape(len(seen), 3)
    older = np.maximum(np.arange(len(seen))[::-1] - NEWEST, 0)
    weights = 0.5 ** (older / HALF_LIFE)
    told = [each for each in seen if each.calibrated]
    follows = AdaptiveMiss.towards(_TAIL, SPEED)
    low = follows.after(each.actual < each.told.low for each in told)
    high = follows.after(each.actual > each.told.high for each in told)
    return Correction(Pool(1, residuals, weights), _within(low.now), _within(high.now))


def _within(miss: float) -> float:
    return min(max(miss, _LEAST_MISS), _MOST_MISS)


def _log_left(made_at: Instant, at: Instant) -> float:
    return log(max(0.0, seconds_between(made_at, at)) + GRAIN_SECONDS)


def _later(made_at: Instant, at: Instant, margin: float) -> Instant:
    left = exp(_log_left(made_at, at) + margin) - GRAIN_SECONDS
    return after(made_at, seconds(max(0.0, left)))
