"""Bounds of many runs at once are those of each; coverage, order and company mean what they say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.pitot.bounds import predicted, two_sided_bounds, upper_bounds
from controlplane.pitot.calibration import Calibration, TooFewRunsError
from controlplane.pitot.network import Embeddings
from controlplane.pitot.run_times import NOBODY, RunTimes
from tests.pitot.worlds import a_predictor


def fitted(seed: int) -> tuple[Embeddings, Calibration, RunTimes]:
    predictor, runs = a_predictor(seed)
    return predictor.at, predictor.calibration, runs


def asked(runs: RunTimes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return runs.workload, runs.platform, runs.beside


def test_looking_products_up_gives_what_computing_each_row_gives() -> None:
    at, _, runs = fitted(1)
    assert len(runs) >= len(at.workload) * len(at.platform)  # so that they are looked up
    each = at.log_seconds(*asked(runs))
    for head in range(3):
        assert predicted(at, head, asked(runs)) == pytest.approx(each[:, head], abs=1e-4)
        few = asked(runs.rows(np.arange(7)))
        assert predicted(at, head, few) == pytest.approx(each[:7, head], abs=1e-4)


def test_bounds_of_many_are_those_that_calibration_gives_each_degree() -> None:
    at, calibration, runs = fitted(2)
    estimate, upper = upper_bounds(at, calibration, asked(runs), 0.1)
    found = two_sided_bounds(at, calibration, asked(runs), (0.05, 0.1))
    told = at.log_seconds(*asked(runs))
    for degree in (1, 2, 3, 4):
        rows = runs.degree == degree
        wanted = np.exp(calibration.upper(told[rows], degree, 0.1))
        assert upper[rows] == pytest.approx(wanted, rel=1e-3)
        wanted = np.exp(calibration.lower(told[rows], degree, 0.05))
        assert found.lower[rows] == pytest.approx(wanted, rel=1e-3)
    assert np.array_equal(found.estimate, estimate)
    assert np.array_equal(found.upper, upper)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 500), misses=st.permutations([0.02, 0.05, 0.1, 0.3]))
def test_bounds_enclose_the_estimate_and_more_coverage_is_never_tighter(
    seed: int, misses: list[float]
) -> None:
    at, calibration, runs = fitted(seed)
    runs = runs.rows(np.arange(60))
    ordered = [two_sided_bounds(at, calibration, asked(runs), (miss, miss)) for miss in misses]
    for miss, found in zip(misses, ordered, strict=True):
        assert np.isfinite(found.upper).all()
        assert (found.lower > 0).all()
        assert (found.lower <= found.estimate).all()
        assert (found.estimate <= found.upper).all()
        for other, wider in zip(misses, ordered, strict=True):
            if other < miss:
                assert (wider.upper >= found.upper).all(), (miss, other)
                assert (wider.lower <= found.lower).all(), (miss, other)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 500), order=st.permutations([0, 1, 2]))
def test_the_order_of_co_runners_changes_no_bound(seed: int, order: list[int]) -> None:
    at, calibration, runs = fitted(seed)
    turned = (runs.workload, runs.platform, runs.beside[:, order])
    for straight, other in zip(
        upper_bounds(at, calibration, asked(runs), 0.1),
        upper_bounds(at, calibration, turned, 0.1),
        strict=True,
    ):
        assert straight == pytest.approx(other, rel=1e-4)


def test_nobody_beside_is_the_same_however_it_is_written() -> None:
    at, calibration, runs = fitted(3)
    nobody = np.full((len(runs), 3), NOBODY)
    alone = (runs.workload, runs.platform, nobody)
    none = (runs.workload, runs.platform, np.empty((len(runs), 0), dtype=np.int64))
    assert np.array_equal(
        upper_bounds(at, calibration, alone, 0.1)[1], upper_bounds(at, calibration, none, 0.1)[1]
    )


def test_one_pool_that_is_too_small_is_said_and_gives_no_number() -> None:
    at, calibration, runs = fitted(4)
    with pytest.raises(TooFewRunsError, match=r"0\.9999 of runs alone takes 9999 observations"):
        upper_bounds(at, calibration, asked(runs.rows(runs.degree == 1)), 0.0001)
    empty = runs.rows(np.arange(0))
    assert len(upper_bounds(at, calibration, asked(empty), 0.1)[0]) == 0
