"""Bounds hold as often as they say, whatever the heads are worth, and under drift."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.pitot.calibration import (
    Calibration,
    Pool,
    TooFewRunsError,
    calibrate,
    observations_for,
)
from controlplane.pitot.drift import AdaptiveMiss
from controlplane.pitot.run_times import NOBODY, RunTimes

QUANTILES = (0.1, 0.5, 0.9)
HEADS = np.array([-0.2, 0.0, 0.3])


def observed(chance: np.random.Generator, count: int, degree: int = 1) -> RunTimes:
    """Skewed times around one second."""
    beside = np.full((count, 3), NOBODY)
    beside[:, : degree - 1] = 0
    seconds = np.exp(chance.gumbel(scale=0.2, size=count))
    return RunTimes(np.zeros(count, dtype=int), np.zeros(count, dtype=int), beside, seconds)


def heads(count: int) -> np.ndarray:
    return np.tile(HEADS, (count, 1))


def calibrated(chance: np.random.Generator, count: int, misses: tuple[float, ...]) -> Calibration:
    choosing, measuring = observed(chance, 200), observed(chance, count)
    return calibrate(QUANTILES, (choosing, heads(200)), (measuring, heads(count)), misses=misses)


@pytest.mark.parametrize("miss", [0.01, 0.05, 0.1, 0.5])
def test_exchangeable_runs_are_covered_as_often_as_promised(miss: float) -> None:
    chance = np.random.default_rng(11)
    rounds, each = 300, 40
    missed = shorter = 0
    for _ in range(rounds):
        found, new = calibrated(chance, 150, (miss,)), observed(chance, each)
        missed += int(np.sum(new.log_seconds > found.upper(heads(each), 1, miss)))
        shorter += int(np.sum(new.log_seconds < found.lower(heads(each), 1, miss)))
    # Of a pool's margin all runs of a round depend, so each round counts as one draw of a rate
    # with deviation sqrt(miss (1 - miss) (1 / n + 1 / each)).
    deviation = np.sqrt(miss * (1 - miss) * (1 / 150 + 1 / each) / rounds)
    if miss < 0.5:  # beyond, the median that is told beside it is the bound
        for share in (missed, shorter):
            assert share / (rounds * each) <= miss + 4 * deviation
            assert share / (rounds * each) >= miss - 1 / 151 - 4 * deviation
    else:
        assert missed / (rounds * each) <= miss + 4 * deviation


@given(seed=st.integers(0, 1000))
def test_more_coverage_takes_no_tighter_a_bound_and_none_is_below_the_median(seed: int) -> None:
    chance = np.random.default_rng(seed)
    found = calibrated(chance, 120, (0.1,))
    misses = (0.3, 0.2, 0.1, 0.05, 0.02)
    uppers = [found.upper(heads(3), 1, miss)[0] for miss in misses]
    lowers = [found.lower(heads(3), 1, miss)[0] for miss in misses]
    assert uppers == sorted(uppers)
    assert lowers == sorted(lowers, reverse=True)
    assert lowers[0] <= HEADS[found.median] <= uppers[0]


def test_a_pool_that_is_too_small_says_how_many_runs_are_missing() -> None:
    found = calibrated(np.random.default_rng(1), 12, (0.05,))
    with pytest.raises(
        TooFewRunsError, match=r"0\.95 of runs alone takes 19 .* 7 more than the 12"
    ):
        found.upper(heads(1), 1, 0.05)
    with pytest.raises(TooFewRunsError, match=r"beside 2 others takes 19 .* 19 more than the 0"):
        found.upper(heads(1), 3, 0.05)
    assert found.upper(heads(1), 1, 0.1)[0] > 0
    assert [observations_for(miss) for miss in (0.5, 0.1, 0.05, 0.01)] == [1, 9, 19, 99]


def test_each_degree_has_a_pool_of_its_own() -> None:
    chance = np.random.default_rng(2)
    calm, busy = observed(chance, 100), observed(chance, 100, degree=3)
    slow = RunTimes(busy.workload, busy.platform, busy.beside, busy.seconds * 5)
    both = calm.and_also(slow)
    found = calibrate(QUANTILES, (both, heads(200)), (both, heads(200)), misses=(0.1,))
    assert set(found.pools) == {1, 3}
    one = np.zeros((1, 3)) + HEADS
    assert found.upper(one, 3, 0.1)[0] > found.upper(one, 1, 0.1)[0] + 1


def test_runs_that_count_more_move_the_margin() -> None:
    residuals = np.arange(100.0)[:, None]
    alike = Pool(1, residuals, np.ones(100))
    upwards = Pool(1, residuals, np.where(residuals[:, 0] >= 50, 3.0, 1.0))
    assert alike.upper_margin(0, 0.5) == 50
    assert upwards.upper_margin(0, 0.5) > 60
    # A run that is seldom among those that were calibrated with has a wider bound.
    assert alike.upper_margin(0, 0.2, weight=20.0) > alike.upper_margin(0, 0.2)


def test_under_drift_the_share_of_misses_comes_back_to_what_was_promised() -> None:
    chance = np.random.default_rng(3)
    pool = Pool(1, np.sort(chance.normal(size=500))[:, None], np.ones(500))
    miss, missed = AdaptiveMiss.towards(0.1, speed=0.02), []
    for step in range(4000):
        off = chance.normal() * (1 + step / 1000)  # ever wilder than what was calibrated with
        if miss.now <= 1 / 501:
            bound = np.inf
        else:
            bound = pool.upper_margin(0, min(miss.now, 0.999)) if miss.now < 1 else -np.inf
        missed.append(off > bound)
        miss = miss.seen(missed=missed[-1])
    assert np.mean(missed) == pytest.approx(0.1, abs=0.01)
    plain = np.mean([chance.normal() * 4 > pool.upper_margin(0, 0.1) for _ in range(1000)])
    assert plain > 0.3
    assert AdaptiveMiss.towards(0.1).after([True, False]).now == pytest.approx(
        0.1 - 0.0045 + 0.0005
    )
