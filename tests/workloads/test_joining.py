"""What rank 0 makes of what newcomers say, on a notice board without processes."""

from typing import Any

import pytest
import torch.distributed as dist

from headrace.workloads.control import StopSignal
from headrace.workloads.rendezvous import Rendezvous
from headrace.workloads.training.joining import Newcomers

FACTS = {"data": "the same"}


@pytest.fixture
def board() -> Rendezvous:
    return Rendezvous(dist.HashStore(), rank=0, ranks=2, prefix="job/1", stop=StopSignal(None))


def says(board: Rendezvous, unit: int, **more: Any) -> None:
    """Unit ``unit``, which is to be rank 2, says something."""
    board.put("ready/2", {"unit": unit, **more})


def test_a_late_word_of_one_that_came_in_vain_is_not_heard_the_next_time(board: Rendezvous) -> None:
    first = Newcomers(board, FACTS, range(2, 3))
    says(board, 2, facts={"data": "another"}, count=1)
    with pytest.raises(ValueError, match="rank 2 differs from rank 0"):
        first.are_there(now=True)
    again = Newcomers(board, FACTS, range(2, 3), first_unit=first.next_unit)
    says(board, 2, refused="what it was told by rank 0")
    assert not again.are_there(now=True)
    says(board, 3, facts=FACTS, count=1)
    assert again.are_there(now=True)
    says(board, 2, facts=FACTS, count=2)
    assert not again.are_there(now=True), "whoever is to come, it is not that one"
    says(board, 3, refused="no room")
    with pytest.raises(ValueError, match="rank 2 cannot join: no room"):
        again.are_there(now=True)
