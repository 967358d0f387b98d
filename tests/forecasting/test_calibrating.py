"""Intervals are corrected until they hold as often as they say."""

from statistics import fmean

import pytest

from controlplane.domain.clock import SECOND
from controlplane.domain.forecast import ForecastOutcome
from controlplane.domain.lifecycle import Stage
from simulator.forecasting.calibrating import OUTCOMES_WANTED, Calibrated
from tests.forecasting.outcomes import HOUR, came_true, lived, once, played


def reached(outcomes: list[ForecastOutcome]) -> float:
    return fmean(each.inside for each in outcomes)


@pytest.mark.parametrize(("bias", "started"), [(0.4, True), (-0.3, False)])
def test_what_is_played_too_narrow_and_too_early_holds_nine_times_of_ten(
    bias: float, started: bool
) -> None:
    outcomes = list(lived(450, bias, started=started))
    assert reached(outcomes[:OUTCOMES_WANTED]) < 0.5, "as it is played it does not hold"
    # Binomial: 99 % of samples of 400 are within 0.039 of 0.9; the first 50 are warming up.
    assert reached(outcomes[50:]) == pytest.approx(0.9, abs=0.039)


def test_after_a_drift_it_holds_again() -> None:
    before = list(lived(400, 0.0))
    assert not before[-1].forecast.missing
    moved = [
        came_true(each.forecast, 1.5 * (each.ended_at - each.forecast.made_at) / SECOND)
        for each in before
    ]
    found = before + moved
    made = [Calibrated.by(found[:n]).correct(found[n].forecast) for n in range(500, 800, 3)]
    truth = [once(found[n], end=said.end) for n, said in zip(range(500, 800, 3), made, strict=True)]
    assert reached(truth) > 0.84


def test_too_few_outcomes_are_counted_and_not_corrected_by() -> None:
    few = list(lived(OUTCOMES_WANTED - 4))
    said = played(99, HOUR, 0.05)
    told = Calibrated.by(few).correct(said)
    assert (told.end, told.missing) == (said.played_end, 4)
    enough = list(lived(OUTCOMES_WANTED))
    assert Calibrated.by(enough).correct(said).missing == 0


def test_before_and_after_a_start_are_pools_of_their_own() -> None:
    calibrated = Calibrated.by(lived(100, 0.5, started=True))
    waits, runs = played(1, HOUR, 0.05, started=False), played(1, HOUR, 0.05)
    assert calibrated.correct(waits).end == waits.played_end
    assert calibrated.correct(waits).missing == OUTCOMES_WANTED
    corrected = calibrated.correct(runs).end
    assert corrected is not None
    assert corrected.median > runs.played_end.high  # type: ignore[union-attr]


def test_failures_teach_nothing() -> None:
    failed = [
        ForecastOutcome(
            each.forecast, each.job, each.queue, "", each.started_at, each.ended_at, Stage.FAILED
        )
        for each in lived(100)
    ]
    assert Calibrated.by(failed).correct(played(1, HOUR, 0.05)).missing == OUTCOMES_WANTED


@pytest.mark.parametrize("left", [0.0, 1.0, 1e6])
def test_the_ends_of_an_interval_are_in_order_and_not_in_the_past(left: float) -> None:
    said = Calibrated.by(lived(60, -2.0, 2.0)).correct(played(1, left, 0.05))
    assert said.end is not None
    assert said.made_at <= said.end.low <= said.end.median <= said.end.high
