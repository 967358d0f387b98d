"""What is left where, and that nothing is lost or made up on the way."""

from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.ids import NodeId
from controlplane.domain.job import Topology
from controlplane.rubick.board import Bin, Board, Parts

KIND = "gpu"


def board(*free: int) -> Board:
    return Board({KIND: {NodeId(f"n{i}"): count for i, count in enumerate(free)}})


def on(parts: Parts | None) -> list[tuple[str, int]] | None:
    return None if parts is None else [(node, count) for (_, node), count in parts]


def test_each_share_gets_the_fullest_node_that_has_it() -> None:
    there = board(8, 3, 4)
    assert on(there.find(KIND, (4,))) == [("n2", 4)]
    assert on(there.find(KIND, (4, 3))) == [("n2", 4), ("n1", 3)]
    assert there.find(KIND, (5, 5)) is None
    assert on(there.find(KIND, (3,), allowed={NodeId("n0")})) == [("n0", 3)]
    assert there.find("other", (1,)) is None


def test_what_lies_anywhere_lies_on_few_nodes_in_whole_groups() -> None:
    there = board(3, 5, 8)
    assert on(there.find_anywhere(KIND, 4)) == [("n1", 4)]
    assert on(there.find_anywhere(KIND, 12)) == [("n2", 8), ("n1", 4)]
    assert on(there.find_anywhere(KIND, 12, group=4)) == [("n2", 8), ("n1", 4)]
    assert there.find_anywhere(KIND, 16, group=4) is None
    assert there.find_anywhere(KIND, 10, topology=Topology.SAME_NODE) is None


def test_nothing_is_found_on_a_closed_node_and_what_is_held_there_stays() -> None:
    there = board(8, 8)
    parts = there.find(KIND, (8,))
    assert parts is not None
    there.take(1, parts)
    closed: Bin = (KIND, NodeId("n1"))
    there.close([closed])
    assert there.find(KIND, (1,)) is None
    there.give_back(1, parts)
    assert on(there.find(KIND, (8,))) == [("n0", 8)]
    assert not there.is_open(closed)


@given(
    st.lists(st.integers(0, 8), min_size=1, max_size=6),
    st.lists(st.lists(st.integers(1, 8), min_size=1, max_size=3), max_size=12),
)
def test_giving_back_restores_what_was(free: list[int], wishes: list[list[int]]) -> None:
    there = board(*free)
    before = dict(there.free)
    taken: list[tuple[int, Parts]] = []
    for holder, wish in enumerate(wishes):
        parts = there.find(KIND, tuple(sorted(wish, reverse=True)))
        if parts is not None:
            there.take(holder, parts)
            taken.append((holder, parts))
        held = {where: sum(holders.values()) for where, holders in there.held.items()}
        assert all(there.free[where] + held[where] == before[where] for where in before)
        assert min(there.free.values()) >= 0
    for holder, parts in taken:
        there.give_back(holder, parts)
    assert there.free == before
    assert sum(1 for _ in there.bins(KIND)) == len(free)
