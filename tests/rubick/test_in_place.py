"""Who goes back from a try, or grows for one, does so where it is."""

from dataclasses import replace

import numpy as np
import pytest

from controlplane.domain.ids import JobUid, NodeId, QueueName
from controlplane.domain.step_times import Way
from controlplane.rubick.board import Bin, Board, Parts
from controlplane.rubick.choices import Choice, Choices
from controlplane.rubick.in_place import Ranks, could_be_in_place, grown, is_in_place, place_for
from controlplane.rubick.round import Round
from controlplane.rubick.seat import Given, Seat
from controlplane.rubick.settings import RubickSettings
from controlplane.rubick.worth import Worths
from headrace.api.plan import ExecutionPlan

KIND = "gpu"
HERE: Bin = (KIND, NodeId("n0"))
THERE: Bin = (KIND, NodeId("n1"))


def board(third: int = 0) -> Board:
    nodes = {NodeId("n0"): 4, NodeId("n1"): 4}
    return Board({KIND: {**nodes, NodeId("n2"): third} if third else nodes})


def choice(accelerators: int) -> Choice:
    return Choice.of(KIND, Way(ExecutionPlan(accelerators), (accelerators,), 0.1, 0.2))


def given(where: Bin, accelerators: int) -> Given:
    return Given(((where, accelerators),), 1.0, choice(accelerators))


@pytest.mark.parametrize(
    ("accelerators", "closed", "found"),
    [
        (4, (), ((HERE, 4),)),
        (1, (), ((HERE, 1),)),
        # What is kept free for somebody else is not grown into; what it has there stays its own.
        (4, (HERE,), ((THERE, 4),)),
        (2, (HERE,), ((HERE, 2),)),
        (1, (HERE,), ((HERE, 1),)),
    ],
)
@pytest.mark.parametrize("why", ["tries", "dear-restarts"])
def test_what_is_better_is_had_where_the_job_is_if_there_is_room(
    accelerators: int, closed: tuple[Bin, ...], found: Parts, why: str
) -> None:
    dear = np.array([2.0]) if why == "dear-restarts" else None
    seat = Seat(
        0,
        JobUid("a"),
        QueueName("q"),
        Choices((choice(accelerators),)),
        Worths(np.array([5.0]), 1.0, 0.1, 1.0, 1.0, of_restarts=dear),
        allowed={KIND: None},
        held=given(HERE, 2),
        ranks=(HERE, HERE),
        tries=why == "tries",
    )
    there = board()
    dealing = Round([seat], there, RubickSettings(least_gain=0.0), {})
    there.close(closed)
    dealing.deal()
    assert seat.given is not None
    assert seat.given.parts == found
    in_memory = found[0][0] == HERE
    assert seat.given.worth == (5.0 if dear is None or in_memory else 2.0)


def a_seat(number: int, gains: float, restarted: float | None, *, held: bool = True) -> Seat:
    """It has 2 on the first node, worth 10, or nothing; and could have 4."""
    dear = None if restarted is None else np.array([restarted])
    worths = Worths(np.array([gains]), 10.0 if held else -np.inf, 0.1, 0.1, 1.0, 2.0, dear)
    return Seat(
        number,
        JobUid(f"j{number}"),
        QueueName("q"),
        Choices((choice(4),)),
        worths,
        allowed={KIND: None},
        held=Given(((HERE, 2),), 10.0) if held else None,
        held_seconds_left=100.0,
        ranks=(HERE, HERE) if held else (),
    )


@pytest.mark.parametrize(("restarted", "node"), [(10.5, HERE), (14.0, THERE)])
def test_what_a_search_found_is_not_worth_a_restart_for_little(restarted: float, node: Bin) -> None:
    """In memory it would gain half as much again; but its node has no room. That another job gains
    by what was found does not move it.
    """
    seats = [a_seat(0, 15.0, restarted), a_seat(1, 50.0, None, held=False)]
    there = Board({KIND: {NodeId("n0"): 3, NodeId("n1"): 8}})
    dealing = Round(seats, there, RubickSettings(least_gain=0.25), {})
    assert dealing.adopt(seats, [0, 0])
    first, second = (seat.given for seat in seats)
    assert first is not None
    assert second is not None
    assert first.parts[0][0] == node
    assert first.worth == (10.0 if node == HERE else restarted)
    assert second.parts == ((THERE, 4),)


@pytest.mark.parametrize(
    ("parts", "dear", "paid"),
    [
        (((HERE, 4),), True, 0.1),
        (((THERE, 4),), True, 2.0),
        ((), True, 2.0),
        (((THERE, 4),), False, 0.1),
    ],
)
def test_who_is_moved_pays_by_how_it_gets_there(parts: Parts, dear: bool, paid: float) -> None:
    seat = a_seat(0, 15.0, 13.0 if dear else None)
    seat.given = Given(parts, 1.0, choice(4)) if parts else None
    assert seat.switching == paid
    assert seat.seconds_to(choice(4)) == seat.switch_seconds
    elsewhere = replace(choice(4), kind="other")
    assert replace(seat, restart_seconds=9.0).seconds_to(elsewhere) == 9.0


A, B, C = HERE, THERE, (KIND, NodeId("n2"))


@pytest.mark.parametrize(
    ("ranks", "parts", "group", "stays"),
    [
        ((A, A), ((A, 2),), 1, True),
        ((A, A), ((A, 2),), 2, True),
        ((A, A), ((A, 4),), 4, True),
        ((A, A), ((A, 1),), 1, True),
        ((A, A), ((B, 2),), 1, False),
        ((A, A), ((B, 4),), 1, False),
        ((A, A), ((A, 1), (B, 1)), 1, False),
        ((A, A), ((A, 1), (B, 3)), 1, False),
        ((A, A), ((B, 2), (A, 2)), 2, True),
        # Whole groups are on one node each only if nobody comes between.
        ((A, A, B, B), ((A, 4), (B, 4)), 1, True),
        ((A, A, B, B), ((A, 4), (B, 4)), 4, False),
        ((A, A, B, B), ((A, 4), (B, 4)), 2, True),
        # The first ranks stay, and others do not.
        ((A, A, B, B), ((A, 2),), 1, True),
        ((A, A, B, B), ((B, 2),), 1, False),
        ((A, A, B, B), ((B, 1), (A, 2)), 1, True),
        ((A, B, A), ((A, 2),), 1, False),
        ((A, B, A), ((A, 1), (B, 1)), 1, True),
        (((("other", NodeId("n0"))),) * 2, ((A, 2),), 1, False),
        ((), ((A, 2),), 1, False),
    ],
)
def test_ranks_can_stay_if_all_do_or_the_first_ones(
    ranks: Ranks, parts: Parts, group: int, stays: bool
) -> None:
    assert is_in_place(ranks, parts, group) is stays


@pytest.mark.parametrize(
    ("ranks", "shares", "found"),
    [
        ((A, A), (2, 2), ((A, 2), (C, 2))),
        ((A, A), (3, 1), ((A, 3), (C, 1))),
        ((A, A), (1, 1), None),
        ((A, A), (4,), ((A, 4),)),
        ((A, A, B), (4,), None),
        ((A, B, B), (4, 3), ((B, 4), (A, 3))),
        ((A, B, B), (1, 1), ((A, 1), (B, 1))),
        ((A, B, B), (2,), None),
        ((A, B, B), (2, 2, 2), ((B, 2), (A, 2), (C, 2))),
        ((C,), (4,), None),
        ((C,), (4, 2), None),
        ((C,), (2, 2), ((C, 2), (A, 2))),
    ],
)
def test_a_place_is_looked_for_where_the_ranks_are(
    ranks: Ranks, shares: tuple[int, ...], found: Parts | None
) -> None:
    there = board(third=2)
    wanted = Choice.of(KIND, Way(ExecutionPlan(sum(shares)), shares, 0.1, 0.2))
    before = dict(there.free), {kind: there.left(kind) for kind in there.kinds}
    assert place_for(ranks, wanted, there, None) == found
    assert (dict(there.free), {kind: there.left(kind) for kind in there.kinds}) == before
    assert not any(there.held.values())
    if found is not None:
        assert could_be_in_place(ranks, wanted)
        assert is_in_place(ranks, found, 1)


def test_a_job_grows_on_its_own_node_as_far_as_that_and_its_quota_allow() -> None:
    there = board()
    there.take(0, ((HERE, 2),))
    held = given(HERE, 2)
    assert grown(held.parts, 4, there, quota=None) == ((HERE, 4),)
    assert grown(held.parts, 4, there, quota=1) is None
    there.take(1, ((HERE, 1),))
    assert grown(held.parts, 4, there, quota=None) is None
    assert grown((), 4, there, quota=None) is None
