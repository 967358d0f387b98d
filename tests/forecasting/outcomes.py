"""Forecasts that came true by chance, for tests of what is made of that."""

import random
from collections.abc import Iterator
from dataclasses import replace
from math import exp
from typing import Any

from controlplane.domain.clock import Instant, after, seconds
from controlplane.domain.forecast import ForecastOutcome, JobForecast, Span
from controlplane.domain.ids import JobUid, QueueName
from controlplane.domain.lifecycle import Stage
from simulator.forecasting.calibrating import Calibrated

HOUR = 3600.0


def played(number: int, left_seconds: float, spread: float, *, started: bool = True) -> JobForecast:
    """What was played of a job that has so much left."""
    at = Instant(seconds(60.0 * number))
    low, middle, high = (
        after(at, seconds(left_seconds * exp(off))) for off in (-spread, 0.0, spread)
    )
    span = Span(low, middle, high)
    return JobForecast(
        uid=JobUid(f"job-{number}"),
        generation=1,
        made_at=at,
        started=started,
        coverage=0.9,
        end=span,
        start=None if started else span,
        played_end=span,
        played_start=None if started else span,
        missing=19,
        missing_starts=19,
    )


def came_true(said: JobForecast, left_seconds: float) -> ForecastOutcome:
    """What came true of it."""
    at = after(said.made_at, seconds(left_seconds))
    return ForecastOutcome(
        said, f"default/{said.uid}", QueueName("default"), "cpu", at, at, Stage.SUCCEEDED
    )


def lived(
    count: int, bias: float = 0.0, noise: float = 0.2, *, started: bool = True, seed: int = 1
) -> Iterator[ForecastOutcome]:
    """Jobs one after the other, each told of with what came true of those before it; the truth is
    off by ``exp(bias + noise * normal)`` from what is played, which claims to be off by 0.05.
    """
    luck = random.Random(seed)
    outcomes: list[ForecastOutcome] = []
    for number in range(count):
        left = exp(luck.uniform(6.0, 11.0))
        said = Calibrated.by(outcomes).correct(played(number, left, 0.05, started=started))
        outcome = came_true(said, left * exp(luck.gauss(bias, noise)))
        outcomes.append(outcome)
        yield outcome


def once(outcome: ForecastOutcome, **changes: Any) -> ForecastOutcome:
    """The outcome but for what changes of its forecast."""
    return replace(outcome, forecast=replace(outcome.forecast, **changes))
