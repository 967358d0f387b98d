"""The bound holds, and is near what is possible."""

import numpy as np
import pulp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.rubick.bound import Bidder, upper_bound
from controlplane.rubick.choices import Choice, Choices
from controlplane.rubick.worth import Worths
from headrace.api.plan import ExecutionPlan


def bidder(
    worth: dict[tuple[str, int], float], held: tuple[str, int, float] | None, *, stays: bool = False
) -> Bidder:
    every = tuple(
        Choice(kind, ExecutionPlan(data_parallel=n), (n,), n, 1.0, 1.0) for kind, n in worth
    )
    keeping = held[2] if held else -np.inf
    worths = Worths(np.array(list(worth.values())), keeping, 0.0, 1.0, 1.0)
    return Bidder(Choices(every), worths, held[0] if held else "", held[1] if held else 0, stays)


def exactly(bidders: list[Bidder], capacity: dict[str, int]) -> float:
    """The best there is: the readable formulation of the same choice as an integer program."""
    program = pulp.LpProblem("round", pulp.LpMaximize)
    value, used = pulp.LpAffineExpression(), {kind: pulp.LpAffineExpression() for kind in capacity}
    for j, each in enumerate(bidders):
        bids = [
            (worth, choice.kind, choice.accelerators)
            for worth, choice in zip(each.worths.of_choices, each.choices.every, strict=True)
        ]
        if each.held_accelerators:
            bids.append((each.worths.of_keeping, each.held_kind, each.held_accelerators))
        if each.stays:
            bids = bids[-1:]
        taken = [program.add_variable(f"x_{j}_{i}", cat="Binary") for i in range(len(bids))]
        program += pulp.lpSum(taken) == 1 if each.stays else pulp.lpSum(taken) <= 1
        for x, (worth, kind, count) in zip(taken, bids, strict=True):
            value += float(worth) * x
            used[kind] += count * x
    program += value
    for kind, count in capacity.items():
        program += used[kind] <= count
    program.solve(pulp.HiGHS(msg=False, threads=1))
    return float(pulp.value(program.objective) or 0.0)


SIZES = st.sampled_from([1, 2, 4, 8])


@st.composite
def markets(draw: st.DrawFn) -> tuple[list[Bidder], dict[str, int]]:
    kinds = draw(st.sampled_from([("a",), ("a", "b")]))
    capacity = {kind: draw(st.integers(4, 24)) for kind in kinds}
    found = []
    for _ in range(draw(st.integers(1, 7))):
        sizes = draw(
            st.lists(st.tuples(st.sampled_from(kinds), SIZES), min_size=1, max_size=4, unique=True)
        )
        found.append(bidder({size: draw(st.floats(-1.0, 10.0)) for size in sizes}, None))
    return found, capacity


@settings(max_examples=25, deadline=None)
@given(markets())
def test_nothing_is_worth_more_than_the_bound(market: tuple[list[Bidder], dict[str, int]]) -> None:
    bidders, capacity = market
    assert upper_bound(bidders, capacity).value >= exactly(bidders, capacity) - 1e-6


def test_where_everybody_gets_what_is_best_the_bound_is_that() -> None:
    bidders = [bidder({("a", 1): 3.0, ("a", 2): 5.0}, None) for _ in range(3)]
    found = upper_bound(bidders, {"a": 6})
    assert found.value == pytest.approx(15.0)


def test_scarce_accelerators_have_the_price_of_who_goes_without() -> None:
    bidders = [bidder({("a", 1): float(worth)}, None) for worth in range(1, 11)]
    found = upper_bound(bidders, {"a": 4})
    assert found.value == pytest.approx(10 + 9 + 8 + 7, rel=1e-6)
    assert 6.0 - 1e-6 <= found.prices["a"] <= 7.0 + 1e-6


def test_who_must_stay_counts_with_what_it_has_and_takes_it_from_the_others() -> None:
    fixed = bidder({("a", 4): 9.0}, ("a", 2, 1.0), stays=True)
    other = bidder({("a", 4): 5.0, ("a", 2): 3.0}, None)
    assert upper_bound([fixed, other], {"a": 4}).value == pytest.approx(4.0, rel=1e-6)
