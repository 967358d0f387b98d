"""What is watched beside predicting: units, coverage that was reached, missing runs, invariants."""

import re
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.pitot.bounds import two_sided_bounds
from controlplane.pitot.calibration import calibrate
from controlplane.pitot.coverage import coverage_reached, wilson
from controlplane.pitot.invariants import Answer, violations
from controlplane.pitot.missingness import observed_pairs, odds_of_missing
from controlplane.pitot.predictor import Predictor, Question
from controlplane.pitot.run_times import RunTimes
from controlplane.pitot.units import mixed_units
from tests.pitot.worlds import PLATFORM_NAMES, WORKLOAD_NAMES, a_predictor


@pytest.mark.parametrize(
    ("factor", "unit"), [(1e3, "milliseconds"), (1e6, "microseconds"), (1e9, "nanoseconds")]
)
def test_a_platform_that_measures_in_another_unit_is_told(factor: float, unit: str) -> None:
    chance = np.random.default_rng(1)
    predicted = chance.normal(size=60)
    groups = [f"board-{row % 3}" for row in range(60)]
    measured = predicted + chance.normal(scale=0.3, size=60)
    assert mixed_units(measured, predicted, groups) == ()
    measured[1::3] += np.log(factor)
    (found,) = mixed_units(measured, predicted, groups)
    assert (found.group, found.rows, found.divide_by) == ("board-1", 20, factor)
    assert f"the 20 run times of board-1 are {found.times:.3g} times" in str(found)
    assert f"wanted seconds, found most likely {unit}; divide by" in str(found)


def test_one_strange_run_or_a_slow_platform_is_no_unit() -> None:
    chance = np.random.default_rng(2)
    predicted = chance.normal(size=40)
    groups = [f"board-{row % 2}" for row in range(40)]
    measured = predicted.copy()
    measured[3] += np.log(1e3)
    measured[0::2] += np.log(30.0)
    assert mixed_units(measured, predicted, groups) == ()
    assert mixed_units(measured[3:5], predicted[3:5], ["a", "a"]) == ()
    # Here a platform was down for hours now and then: far off, but not alike.
    measured[0::2] = predicted[0::2] + chance.uniform(0, 2 * np.log(1e3), 20)
    assert mixed_units(measured, predicted, groups) == ()


def test_coverage_is_told_per_pool_platform_and_workload() -> None:
    runs = RunTimes.of([0, 0, 1, 1], [0, 1, 1, 1], [1.0, 2.0, 3.0, 4.0], [[-1], [-1], [0], [0]])
    rows = coverage_reached(
        runs, np.array([True, True, False, True]), 0.9, (["sort", "hash"], ["a53", "xeon"])
    )
    told = [(row.kind, row.name, row.held, row.runs) for row in rows]
    assert told == [
        ("pool", "1", 2, 2),
        ("pool", "2", 1, 2),
        ("platform", "a53", 1, 1),
        ("platform", "xeon", 2, 3),
        ("workload", "sort", 2, 2),
        ("workload", "hash", 1, 2),
    ]
    assert [row.share for row in rows[:2]] == [1.0, 0.5]
    assert not any(row.short for row in rows)
    many = RunTimes.of([0] * 100, [0] * 100, [1.0] * 100)
    held = np.arange(100) < 80
    assert coverage_reached(many, held, 0.9, (["sort"], ["a53"]))[0].short
    with pytest.raises(ValueError, match="wanted 4 answers"):
        coverage_reached(runs, held, 0.9, (["sort", "hash"], ["a53", "xeon"]))
    with pytest.raises(ValueError, match="between 0 and 1, found 90"):
        coverage_reached(many, held, 90, (["sort"], ["a53"]))


@given(runs=st.integers(1, 500), share=st.floats(0, 1))
def test_the_interval_of_a_share_holds_it(runs: int, share: float) -> None:
    held = round(share * runs)
    low, high = wilson(held, runs)
    assert 0.0 <= low <= held / runs + 1e-12
    assert held / runs - 1e-12 <= high <= 1.0


def _placed(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whether each pair was observed, its noise, and its residual; noisy ones are rarely tried."""
    chance = np.random.default_rng(seed)
    noisy = chance.normal(size=(60, 1)) + chance.normal(size=(1, 50))
    seen = chance.random((60, 50)) < 1 / (1 + np.exp(noisy))
    return seen, noisy, np.exp(0.5 * noisy) * chance.normal(size=(60, 50))


def test_odds_follow_how_rarely_a_row_is_observed() -> None:
    seen, noisy, _ = _placed(1)
    odds = odds_of_missing(seen)
    assert np.corrcoef(np.log(odds).ravel(), noisy.ravel())[0, 1] > 0.9
    # As many are expected to be observed as were.
    assert (1 / (1 + odds)).sum() == pytest.approx(seen.sum(), rel=0.05)
    alike = odds_of_missing(np.random.default_rng(2).random((40, 30)) < 0.5)
    assert np.abs(np.log(alike)).mean() < 0.5
    with pytest.raises(ValueError, match="found none"):
        odds_of_missing(np.zeros((2, 2), dtype=bool))
    pairs = observed_pairs(np.array([0, 2]), np.array([1, 0]), 3, 2)
    assert pairs.tolist() == [[False, True], [False, False], [True, False]]


def test_where_noisy_pairs_are_rarely_observed_weights_bring_coverage_back() -> None:
    plain: list[float] = []
    weighed: list[float] = []
    for seed in range(20):
        seen, _, residuals = _placed(seed)
        odds = odds_of_missing(seen)
        for weights, found in ((np.ones_like(odds), plain), (odds, weighed)):
            rows, columns = np.nonzero(seen)
            runs = RunTimes.of(rows, columns, np.exp(residuals[seen]))
            flat = np.zeros((len(runs), 1))
            calibration = calibrate(
                (0.5,), (runs, flat), (runs, flat), misses=(0.1,), weights=weights[seen]
            )
            upper = calibration.bound("upper", lambda _: np.zeros(1), 1, 0.1, weights[~seen])
            found.append(float(np.mean(residuals[~seen] <= upper)))
    assert np.mean(plain) < 0.8
    assert np.mean(weighed) > 0.88


def test_weights_that_are_all_alike_change_no_bound() -> None:
    predictor, runs = a_predictor(5)
    asked = (runs.workload, runs.platform, runs.beside)
    first = two_sided_bounds(predictor.at, predictor.calibration, asked, (0.05, 0.1))
    second = two_sided_bounds(
        predictor.at, predictor.calibration, asked, (0.05, 0.1), np.ones(len(runs))
    )
    assert np.array_equal(first.upper, second.upper)
    wide = two_sided_bounds(
        predictor.at, predictor.calibration, asked, (0.05, 0.1), np.full(len(runs), 3.0)
    )
    assert (wide.upper >= first.upper).all()
    assert (wide.lower <= first.lower).all()


def answers(predictor: Predictor, workload: int, platform: int, company: list[int]) -> list[Answer]:
    """Of one run, its company in every order and without, at three coverages."""
    names = tuple(WORKLOAD_NAMES[other] for other in company)
    found = []
    for beside in [(), *permutations(names)]:
        question = Question([WORKLOAD_NAMES[workload]], [PLATFORM_NAMES[platform]], [beside])
        alone = float(predictor.alone(question)[0])
        for misses in ((0.05, 0.05), (0.1, 0.1), (0.02, 0.3)):
            told = predictor.bounds(question, misses)
            lower, estimate, upper = (
                float(each[0]) for each in (told.lower, told.estimate, told.upper)
            )
            own = (question.workload[0], question.platform[0], beside, misses)
            found.append(Answer(*own, lower, estimate, upper, alone))
    return found


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 200),
    workload=st.integers(0, 23),
    platform=st.integers(0, 15),
    company=st.lists(st.integers(0, 23), max_size=3),
)
def test_a_predictor_breaks_no_invariant(
    seed: int, workload: int, platform: int, company: list[int]
) -> None:
    predictor, _ = a_predictor(seed)
    assert list(violations(answers(predictor, workload, platform, company))) == []


SOUND = Answer("sort", "a53", ("hash", "zip"), (0.1, 0.1), 1.0, 2.0, 4.0, 1.5)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"upper": 1.9}, r"sort on a53 beside hash, zip: the upper bound 1\.9 s is below 2 s"),
        ({"lower": 2.1}, r"the lower bound 2\.1 s is above 2 s"),
        ({"upper": float("inf")}, "upper is inf s, wanted positive and finite"),
        ({"lower": 0.0}, "lower is 0 s, wanted positive and finite"),
        ({"beside": ()}, r"nobody is beside it, and yet 2 s is not the 1\.5 s"),
        ({"beside": ("zip", "hash"), "estimate": 2.5}, r"in another order 2 s"),
        (
            {"misses": (0.1, 0.01), "upper": 3.0},
            r"3 s is exceeded in 0\.01 of runs and 4 s in 0\.1",
        ),
        ({"misses": (0.01, 0.1), "lower": 1.5}, r"1\.5 s is undercut in 0\.01 of runs"),
        ({"beside": (), "estimate": 3.0, "alone": 3.0}, r"alone it is said to take 3 s and 1\.5 s"),
    ],
)
def test_each_invariant_can_be_broken(changes: dict[str, object], sentence: str) -> None:
    assert list(violations([SOUND])) == []
    found = list(violations([SOUND, replace(SOUND, **changes)]))  # type: ignore[arg-type]
    assert any(re.search(sentence, each) for each in found), found
