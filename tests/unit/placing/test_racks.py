"""Few nodes, few racks, and what is left stays in one piece."""

from collections.abc import Mapping
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.racks import played
from controlplane.domain.ids import NodeId
from controlplane.domain.job import Topology
from controlplane.domain.racks import racks_spanned
from controlplane.placing.racks import Racks

Left = Mapping[str, tuple[str, int]]
"""Of each node its rack, and what is left of it."""

CLUSTERS = st.lists(st.tuples(st.sampled_from(["", "a", "b", "c"]), st.integers(0, 8)), max_size=8)
SHARES = st.lists(st.integers(1, 8), min_size=1, max_size=4).map(
    lambda each: tuple(sorted(each, reverse=True))
)


def cluster(**nodes: tuple[str, int]) -> Racks:
    made = Racks(racks_in(nodes))
    for name, (_, count) in nodes.items():
        made.add(NodeId(name), count)
    return made


def racks_in(nodes: Left) -> dict[NodeId, str]:
    return {NodeId(name): rack for name, (rack, _) in nodes.items() if rack}


def numbered(left: list[tuple[str, int]]) -> dict[str, tuple[str, int]]:
    return {f"n{i}": each for i, each in enumerate(left)}


def test_of_nodes_that_are_as_full_the_one_of_the_fuller_rack_is_taken() -> None:
    there = cluster(n1=("a", 8), n2=("a", 8), n3=("b", 8), n4=("b", 2))
    assert there.fullest(4) == "n3", "rack a stays whole"
    assert there.fullest(2) == "n4", "and a node that is begun comes before that"
    there.move(NodeId("n1"), 8, 0)
    there.move(NodeId("n4"), 2, 8)
    assert there.fullest(8) == "n2"


def test_shares_lie_in_the_fullest_rack_that_has_them_all() -> None:
    there = cluster(n1=("a", 8), n2=("b", 8), n3=("b", 8), n4=("c", 8), n5=("c", 8), n6=("c", 8))
    assert there.find((8, 8)) == ("n2", "n3"), "not the first ones, which are in two racks"
    assert there.find((8, 8, 8)) == ("n4", "n5", "n6")
    assert there.find((4, 4)) == ("n2", "n3")


def test_no_whole_node_is_begun_to_be_in_one_rack() -> None:
    there = cluster(n1=("a", 4), n2=("b", 4), n3=("c", 8), n4=("c", 8))
    assert there.find((4, 4)) == ("n1", "n2")
    there.move(NodeId("n3"), 8, 5)
    there.move(NodeId("n4"), 8, 5)
    assert there.find((4, 4)) == ("n3", "n4"), "where next to nothing is left beside"


def test_what_no_rack_holds_lies_in_as_few_as_will_do() -> None:
    there = cluster(n1=("a", 8), n2=("b", 8), n3=("b", 8), n4=("c", 8), n5=("c", 8), n6=("c", 8))
    found = there.find((8, 8, 8, 8))
    assert found == ("n4", "n5", "n6", "n1"), "a whole rack, and of the others the fullest"
    assert there.find((8,) * 6) is not None
    assert there.find((8,) * 7) is None


def test_a_required_rack_is_one_that_is_told() -> None:
    there = cluster(n1=("", 8), n2=("", 8), n3=("a", 8), n4=("a", 4))
    assert there.find((8, 8), topology=Topology.SAME_RACK) is None
    assert there.find((8, 4), topology=Topology.SAME_RACK) == ("n3", "n4")
    assert there.find((8,), topology=Topology.SAME_RACK) == ("n3",)
    assert there.find_anywhere(16, topology=Topology.SAME_RACK) is None
    assert there.find_anywhere(12, topology=Topology.SAME_RACK) == [("n3", 8), ("n4", 4)]
    assert there.most(None, Topology.SAME_RACK, 1) == 12
    assert there.most(None, Topology.SAME_RACK, 8) == 8
    assert there.most({NodeId("n1"), NodeId("n4")}, Topology.SAME_RACK, 1) == 8


def test_who_grows_does_so_in_its_rack() -> None:
    there = cluster(n1=("a", 0), n2=("b", 4), n3=("a", 8), n4=("", 4))
    near = (NodeId("n1"),)
    assert there.find_anywhere(4, near=near) == [("n3", 4)], "though n2 is fuller"
    assert there.find_anywhere(10, near=near) == [("n3", 8), ("n2", 2)]
    assert there.find_anywhere(10, topology=Topology.SAME_RACK, near=near) is None
    assert there.find_anywhere(8, topology=Topology.SAME_RACK, near=near) == [("n3", 8)]
    assert there.find_anywhere(1, topology=Topology.SAME_NODE, near=near) is None
    assert there.find_anywhere(1, topology=Topology.SAME_RACK, near=(NodeId("n4"),)) is None


def test_the_last_part_of_a_large_job_is_taken_from_a_node_that_is_begun() -> None:
    there = cluster(n1=("", 8), n2=("", 8), n3=("", 5))
    assert there.find_anywhere(12) == [("n1", 8), ("n3", 4)], "n2 stays whole"


@pytest.mark.parametrize("topology", list(Topology))
@given(left=CLUSTERS, shares=SHARES)
def test_whatever_fits_is_found_and_in_one_rack_where_one_has_it(
    topology: Topology, left: list[tuple[str, int]], shares: tuple[int, ...]
) -> None:
    nodes = numbered(left)
    racks = racks_in(nodes)
    able = [
        group
        for group in combinations(nodes, len(shares))
        if all(
            count >= share
            for count, share in zip(
                sorted((nodes[name][1] for name in group), reverse=True), shares, strict=True
            )
        )
    ]
    spans = [racks_spanned(racks, [NodeId(name) for name in group]) for group in able]
    beside = [sum(nodes[name][1] for name in group) - sum(shares) for group in able]
    in_one = [left for left, span in zip(beside, spans, strict=True) if span == 1]
    found = cluster(**nodes).find(shares, topology=topology)
    if topology is Topology.ANY:
        assert (found is not None) == bool(able)
    elif topology is Topology.SAME_RACK:
        assert (found is not None) == (1 in spans)
    else:
        assert (found is not None) == (bool(able) and len(shares) == 1)
    if found is not None:
        assert len(set(found)) == len(shares)
        assert all(nodes[name][1] >= share for name, share in zip(found, shares, strict=True))
        begun = sum(nodes[name][1] for name in found) - sum(shares)
        if topology is Topology.ANY:
            assert begun <= min(beside) + 2, "no node is begun for a rack"
            if in_one and min(in_one) <= min(beside) + 2:
                assert racks_spanned(racks, found) == 1


@pytest.mark.parametrize("topology", list(Topology))
@given(
    left=CLUSTERS,
    groups=st.integers(1, 12),
    group=st.sampled_from([1, 1, 2, 4]),
    allowed=st.sets(st.integers(0, 7)) | st.none(),
)
def test_so_many_anywhere_are_found_if_they_are_there(
    topology: Topology,
    left: list[tuple[str, int]],
    groups: int,
    group: int,
    allowed: set[int] | None,
) -> None:
    nodes, count = numbered(left), groups * group
    racks = racks_in(nodes)
    able = None if allowed is None else {NodeId(f"n{i}") for i in allowed}
    there = cluster(**nodes)
    whole = {
        NodeId(name): free - free % group
        for name, (_, free) in nodes.items()
        if able is None or name in able
    }
    of_racks: dict[str, int] = {}
    for name, free in whole.items():
        where = racks.get(name, name) if topology is Topology.SAME_RACK else str(topology)
        where = name if topology is Topology.SAME_NODE else where
        of_racks[where] = of_racks.get(where, 0) + free
    most = max(of_racks.values(), default=0)
    assert there.most(able, topology, group) == most
    found = there.find_anywhere(count, group, able, topology)
    assert (found is not None) == (most >= count)
    if found is not None:
        assert sum(part for _, part in found) == count
        assert len({name for name, _ in found}) == len(found)
        assert all(part % group == 0 and part <= whole[name] for name, part in found)
        assert topology is not Topology.SAME_NODE or len(found) == 1
        spanned = racks_spanned(racks, [name for name, _ in found])
        assert topology is not Topology.SAME_RACK or spanned == 1


@given(left=CLUSTERS, moves=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 8)), max_size=12))
def test_what_was_moved_is_found_as_if_it_had_always_been_so(
    left: list[tuple[str, int]], moves: list[tuple[int, int]]
) -> None:
    nodes = numbered(left)
    there = cluster(**nodes)
    for i, count in moves:
        name = f"n{i}"
        if name in nodes:
            there.move(NodeId(name), nodes[name][1], count)
            nodes[name] = (nodes[name][0], count)
    assert there.left == sum(count for _, count in nodes.values())
    counts = [nodes[name][1] for name in there.fullest_first()]
    assert counts == sorted(count for _, count in nodes.values())
    assert [nodes[name][1] for name in there.emptiest_first()] == counts[::-1]
    for name, (_, count) in list(nodes.items()):
        there.drop(NodeId(name), count)
    assert (there.left, there.fullest(1), list(there.fullest_first())) == (0, None, [])


def test_racks_in_view_bring_jobs_together_and_leave_no_less_in_one_piece() -> None:
    before, after = played(nodes=64, nodes_per_rack=4, jobs=2000, seed=1)
    assert after.spanned < before.spanned - 1
    assert after.in_one > before.in_one + 0.3
    assert after.whole_racks >= before.whole_racks
    assert after.nodes_in_one > before.nodes_in_one
    assert after.no_room <= before.no_room + 0.005
    assert after.whole_nodes >= before.whole_nodes - 0.005
