"""The longer search finds the best choices; what was dealt never gets worse by it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Barrier

import numpy as np
import pulp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.domain.ids import JobUid, NodeId, QueueName
from controlplane.domain.step_times import Shares
from controlplane.rubick.board import Board
from controlplane.rubick.bound import upper_bound
from controlplane.rubick.choices import Choice, Choices
from controlplane.rubick.round import Round
from controlplane.rubick.search import Program, Searched, improved
from controlplane.rubick.seat import Given, Seat, bidder_of
from controlplane.rubick.settings import RubickSettings
from controlplane.rubick.table import KEEPS
from controlplane.rubick.worth import Worths
from headrace.api.plan import ExecutionPlan
from tests.builders import a_cluster, a_node
from tests.rubick.worlds import Scaling, a_known_job

NODES = 1_000


def a_seat(number: int, worth: dict[Shares, float], held: tuple[int, int, float] | None) -> Seat:
    """A job that may have these shares; it has so many accelerators of one node already."""
    every = tuple(
        Choice("a", ExecutionPlan(data_parallel=sum(shares)), shares, sum(shares), 1.0, 1.0)
        for shares in worth
    )
    has = None
    if held is not None:
        node, count, keeping = held
        has = Given(((("a", NodeId(f"n{node}")), count),), keeping)
    return Seat(
        number,
        JobUid(f"j{number}"),
        QueueName("q"),
        Choices(every),
        Worths(np.array(list(worth.values())), held[2] if held else -np.inf, 0.0, 1.0, 1.0),
        allowed={"a": None},
        held=has,
    )


@dataclass(frozen=True)
class Market:
    """Jobs and the nodes that they compete for."""

    seats: list[Seat]
    nodes: tuple[int, ...]

    def dealt(self, **changes: int) -> Round:
        """As the greedy round deals it."""
        names = {NodeId(f"n{i}"): count for i, count in enumerate(self.nodes)}
        seats = [replace(seat, given=None) for seat in self.seats]
        prices = upper_bound([bidder_of(seat) for seat in seats], {"a": sum(self.nodes)}).prices
        found = Round(seats, Board({"a": names}), RubickSettings(**changes), {}, prices)
        found.deal()
        return found


LAYOUTS: tuple[Shares, ...] = ((1,), (2,), (3,), (4,), (2, 2), (4, 4), (5,), (3, 3))


@st.composite
def markets(draw: st.DrawFn) -> Market:
    nodes = tuple(draw(st.lists(st.integers(2, 6), min_size=1, max_size=4)))
    left = list(nodes)
    seats = []
    for number in range(draw(st.integers(1, 7))):
        lies = draw(st.lists(st.sampled_from(LAYOUTS), min_size=1, max_size=4, unique=True))
        worth = {shares: draw(st.floats(0.1, 10.0)) for shares in lies}
        held = None
        if draw(st.booleans()):
            node = draw(st.integers(0, len(nodes) - 1))
            if left[node]:
                count = draw(st.integers(1, left[node]))
                left[node] -= count
                held = (node, count, draw(st.floats(0.1, 10.0)))
        seats.append(a_seat(number, worth, held))
    return Market(seats, nodes)


def reference(market: Market, *, anywhere: bool) -> float:
    """The best there is, by PuLP: places on nodes; or only numbers of accelerators. Threads are
    one, since HiGHS refuses to run with another number than at first.

    What a job holds lies where it lies; of a choice each share has a node of its own.
    """
    program, value = pulp.LpProblem("round", pulp.LpMaximize), []
    used: list[list[pulp.LpAffineExpression]] = [[] for _ in market.nodes]
    pool = []
    for seat in market.seats:
        one = []
        for i, choice in enumerate(seat.choices.every):
            x = program.add_variable(f"x_{seat.number}_{i}", cat="Binary")
            one.append(x)
            value.append(float(seat.worths.of_choices[i]) * x)
            pool.append(choice.accelerators * x)
            there = [
                [
                    program.add_variable(f"y_{seat.number}_{i}_{k}_{n}", cat="Binary")
                    for n in range(len(market.nodes))
                ]
                for k in range(len(choice.shares))
            ]
            for share, each in zip(choice.shares, there, strict=True):
                if not anywhere:
                    program += pulp.lpSum(each) == x
                    for n, y in enumerate(each):
                        used[n].append(share * y)
            for n in range(len(market.nodes)):
                program += pulp.lpSum(each[n] for each in there) <= 1
        if seat.held is not None:
            x = program.add_variable(f"k_{seat.number}", cat="Binary")
            one.append(x)
            value.append(seat.held.worth * x)
            ((_, name), count) = seat.held.parts[0]
            used[int(name[1:])].append(count * x)
            pool.append(count * x)
        program += pulp.lpSum(one) <= 1
    program += pulp.lpSum(value)
    program += pulp.lpSum(pool) <= sum(market.nodes)
    for n, size in enumerate(market.nodes):
        if used[n] and not anywhere:
            program += pulp.lpSum(used[n]) <= size
    program.solve(pulp.HiGHS(msg=False, threads=1))
    return float(pulp.value(program.objective) or 0.0)


def lies(market: Market) -> list[Shares]:
    return [(seat.held.accelerators,) if seat.held is not None else () for seat in market.seats]


def written(market: Market, nodes: list[int]) -> Program:
    return Program([bidder_of(seat) for seat in market.seats], lies(market), {"a": nodes})


@settings(max_examples=15, deadline=None)
@given(markets())
def test_without_nodes_the_best_choices_are_those_of_the_readable_program(market: Market) -> None:
    pooled = Market([replace(seat) for seat in market.seats], market.nodes)
    program = Program(
        [bidder_of(seat) for seat in pooled.seats],
        [(1,) * sum(each) for each in lies(pooled)],
        {"a": [1] * sum(market.nodes)},
    )
    found = program.solved(NODES, None, 0.0)
    assert found.value == pytest.approx(reference(market, anywhere=True), rel=1e-6)
    assert found.bound >= found.value - 1e-9


@settings(max_examples=15, deadline=None)
@given(markets())
def test_nothing_that_lies_on_nodes_is_worth_more_than_its_bound(market: Market) -> None:
    best = reference(market, anywhere=False)
    assert written(market, list(market.nodes)).solved(NODES, None, 0.0).bound >= best - 1e-6
    assert written(market, list(market.nodes)).solved(1, None, 0.0).bound >= best - 1e-6


@settings(max_examples=25, deadline=None)
@given(markets())
def test_what_was_dealt_never_gets_worse_and_keeps_to_the_nodes(market: Market) -> None:
    dealt = market.dealt(attempts=0)
    before = dealt.worth()
    bound = improved(dealt, NODES).bound
    assert bound is not None
    assert before - 1e-9 <= dealt.worth() <= bound
    assert dealt.worth() <= reference(market, anywhere=False) + 1e-6


@settings(max_examples=10, deadline=None)
@given(markets())
def test_equal_rounds_are_searched_equally(market: Market) -> None:
    def played() -> Iterator[Given | None]:
        dealt = market.dealt(attempts=0)
        improved(dealt, 3)
        return (seat.given for seat in dealt.seats)

    assert list(played()) == list(played())


def test_a_node_holds_one_share_that_is_larger_than_its_half() -> None:
    # Capacity alone would allow three of them on two nodes of 8.
    market = Market([a_seat(j, {(5,): 1.0}, None) for j in range(3)], (8, 8))
    assert written(market, [8, 8]).solved(NODES, None, 0.0).bound == pytest.approx(2.0)
    assert written(market, [1] * 16).solved(NODES, None, 0.0).bound == pytest.approx(3.0)


def test_what_is_better_is_adopted_and_what_stays_in_place_is_kept() -> None:
    # Greedily the dense one comes first and leaves no room for the one that is worth more.
    seats = [a_seat(0, {(1,): 1.1}, None), a_seat(1, {(4,): 4.0}, None), a_seat(2, {}, (1, 1, 5.0))]
    dealt = Market(seats, (4, 1)).dealt(attempts=0)
    assert dealt.worth() == pytest.approx(6.1)
    improved(dealt, NODES)
    assert dealt.worth() == pytest.approx(9.0)
    assert dealt.seats[2].given is dealt.seats[2].held


def test_a_change_that_gains_less_than_the_switches_that_it_costs_is_not_made() -> None:
    seat = a_seat(0, {(2,): 5.2}, (0, 1, 5.0))
    dear = replace(seat, worths=replace(seat.worths, switching=0.5), held_seconds_left=1e6)
    dealt = Market([dear], (2,)).dealt(attempts=0)
    assert dealt.seats[0].given is dealt.seats[0].held
    improved(dealt, NODES)
    assert dealt.seats[0].given is dealt.seats[0].held


def test_a_promised_job_keeps_what_it_was_dealt() -> None:
    promised = replace(a_seat(0, {(4,): 0.5}, None), promised=True, rank=(0,))
    other = replace(a_seat(1, {(4,): 9.0}, None), rank=(1,))
    dealt = Market([promised, other], (4,)).dealt(attempts=0)
    assert dealt.seats[0].given is not None
    assert improved(dealt, NODES).bound is None
    assert dealt.seats[0].given is not None
    assert dealt.seats[1].given is None


def test_the_policy_searches_when_it_is_told_to() -> None:
    from controlplane.rubick.policy import Rubick

    def outcome(nodes: int) -> float:
        built = a_cluster().under(Rubick(lambda _: Scaling(), RubickSettings(search_nodes=nodes)))
        built.with_node(a_node("n0", 8, "gpu"), a_node("n1", 4, "gpu"))
        built.submit(*(a_known_job(f"j{i}", steps=700 * (i + 1)) for i in range(9)))
        found = built.cycle().optimality
        assert found is not None
        assert found.value <= found.bound
        return found.gap

    assert outcome(NODES) <= outcome(0)


@settings(max_examples=5, deadline=None)
@given(markets())
def test_two_searches_at_once_find_what_each_finds_alone(market: Market) -> None:
    """As beside the loop: a thread searches while a round does."""
    alone = written(market, list(market.nodes)).solved(NODES, None, 0.0)
    both = Barrier(2)

    def beside() -> Searched:
        program = written(market, list(market.nodes))
        both.wait(60)
        return program.solved(NODES, None, 0.0, lambda: False)

    with ThreadPoolExecutor(2) as pool:
        found = [each.result() for each in (pool.submit(beside), pool.submit(beside))]
    assert found == [alone, alone]


def test_one_that_is_stopped_has_no_answer_and_leaves_the_round_as_it_was() -> None:
    seats = [a_seat(0, {(1,): 1.1}, None), a_seat(1, {(4,): 4.0}, None), a_seat(2, {}, (1, 1, 5.0))]
    dealt = Market(seats, (4, 1)).dealt(attempts=0)
    before = [seat.given for seat in dealt.seats]
    improved(dealt, NODES, lambda: True)
    assert [seat.given for seat in dealt.seats] == before
    improved(dealt, NODES, lambda: False)
    assert [seat.given for seat in dealt.seats] != before


def test_what_a_job_has_is_told_apart_from_its_choices() -> None:
    market = Market([a_seat(0, {(2,): 1.0}, (0, 1, 3.0))], (2,))
    found = written(market, [2]).solved(NODES, None, 0.0)
    assert found.answer == (KEEPS,)
