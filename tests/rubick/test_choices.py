"""What is worth a look of all ways, and the sensitivity curve over them."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.step_times import Shares, Way
from controlplane.rubick.choices import Choice, Choices, Curve, choices_among
from headrace.api.plan import ExecutionPlan


def way(shares: Shares, seconds: float, zero_stage: int = 0) -> Way:
    plan = ExecutionPlan(data_parallel=sum(shares), zero_stage=zero_stage)
    return Way(plan, shares, seconds, seconds)


def test_of_each_layout_the_fastest_plan_and_none_that_more_accelerators_make_slower() -> None:
    found = choices_among(
        {
            "a": [
                way((1,), 1.0),
                way((1,), 0.9, zero_stage=2),
                way((2,), 0.6),
                way((1, 1), 0.95),  # slower than one accelerator alone
                way((4,), 0.597),  # faster by less than one per cent
            ]
        }
    )
    assert [(each.shares, each.seconds) for each in found.every] == [((1,), 0.9), ((2,), 0.6)]


def test_types_have_choices_of_their_own() -> None:
    found = choices_among({"a": [way((1,), 1.0)], "b": [way((1,), 0.5), way((2,), 0.4)]})
    assert [(each.kind, each.accelerators) for each in found.every] == [
        ("b", 1),
        ("a", 1),
        ("b", 2),
    ]
    assert found.curves["b"].speed(8) == pytest.approx(2.5)


def curve(*points: tuple[int, float]) -> Curve:
    plan = ExecutionPlan()
    return Curve.of(Choice("a", plan, (n,), n, 1.0 / speed, 1.0 / speed) for n, speed in points)


def test_a_plateau_counts_as_the_rise_behind_it() -> None:
    # Two and three are no use, four is (Rubick, figure 6: some numbers suit no plan).
    found = curve((1, 1.0), (4, 3.0), (8, 4.0))
    assert [found.speed(n) for n in (0, 1, 3, 4, 7, 9)] == [0.0, 1.0, 1.0, 3.0, 3.0, 4.0]
    assert found.slope(2) == pytest.approx(2 / 3)
    assert found.slope(0) == pytest.approx(1.0)
    assert found.slope(8) == 0.0


def test_a_point_under_the_hull_is_no_corner() -> None:
    found = curve((1, 1.0), (2, 1.1), (4, 3.9))
    assert found.slope(1) == pytest.approx(2.9 / 3)


@given(st.dictionaries(st.integers(1, 64), st.floats(0.01, 100.0), min_size=1, max_size=12))
def test_curves_never_fall_and_slopes_never_rise(points: dict[int, float]) -> None:
    found = curve(*points.items())
    speeds = [found.speed(n) for n in range(66)]
    slopes = [found.slope(n) for n in range(66)]
    assert speeds == sorted(speeds)
    assert all(a >= b - 1e-9 for a, b in pairwise(slopes))
    assert speeds[-1] == pytest.approx(max(points.values()))


def test_what_keeps_a_promise_is_what_is_as_fast() -> None:
    every = Choices(
        tuple(Choice("a", ExecutionPlan(), (n,), n, 1.0 / n, 1.0 / n) for n in (1, 2, 4))
    )
    assert [each.accelerators for each in every.at_least(2.0).every] == [2, 4]
    assert every.at_least(0.5) is every
