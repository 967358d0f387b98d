"""Who goes back from a try, or grows for one, does so where it is."""

import pytest

from controlplane.domain.ids import NodeId
from controlplane.domain.step_times import Way
from controlplane.rubick.board import Bin, Board, Parts
from controlplane.rubick.choices import Choice
from controlplane.rubick.in_place import grown, in_place
from controlplane.rubick.seat import Given
from headrace.api.plan import ExecutionPlan

KIND = "gpu"
HERE: Bin = (KIND, NodeId("n0"))
THERE: Bin = (KIND, NodeId("n1"))


def board() -> Board:
    return Board({KIND: {NodeId("n0"): 4, NodeId("n1"): 4}})


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
def test_what_is_better_is_had_where_the_job_is_if_there_is_room(
    accelerators: int, closed: tuple[Bin, ...], found: Parts
) -> None:
    there = board()
    there.close(closed)
    better = in_place(given(HERE, 2), given(THERE, accelerators), there)
    assert (better.parts, better.choice) == (found, choice(accelerators))


def test_a_job_grows_on_its_own_node_as_far_as_that_and_its_quota_allow() -> None:
    there = board()
    there.take(0, ((HERE, 2),))
    held = given(HERE, 2)
    assert grown(held, 4, there, quota=None) == ((HERE, 4),)
    assert grown(held, 4, there, quota=1) is None
    there.take(1, ((HERE, 1),))
    assert grown(held, 4, there, quota=None) is None
    assert grown(None, 4, there, quota=None) is None
