"""Which nodes a job gets that is to lie just so."""

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.ids import NodeId
from controlplane.placing.capacity import Capacity
from controlplane.placing.shares import nodes_for, placed, shares_of
from headrace.api.plan import ExecutionPlan
from tests.builders import a_cluster, a_job, a_node


def free(*counts: int) -> dict[NodeId, int]:
    return {NodeId(f"n{i}"): count for i, count in enumerate(counts)}


def test_a_share_goes_to_the_fullest_node_that_still_has_as_much() -> None:
    assert nodes_for((2,), free(8, 3, 2, 1)) == ("n2",)
    assert nodes_for((4,), free(8, 5, 6, 5)) == ("n1",)


def test_whole_nodes_are_taken_in_their_order() -> None:
    assert nodes_for((8, 8, 8), free(8, 7, 8, 8, 8)) == ("n0", "n2", "n3")


def test_four_of_each_of_six_nodes_prefers_those_with_least_left() -> None:
    chosen = nodes_for((4,) * 6, free(8, 4, 8, 5, 8, 8, 4, 8))
    assert chosen == ("n1", "n6", "n3", "n0", "n2", "n4")


def test_no_node_is_used_for_two_shares() -> None:
    assert nodes_for((4, 4), free(8)) is None
    assert nodes_for((4, 4), free(8, 3)) is None


@given(
    st.lists(st.integers(1, 8), min_size=1, max_size=4).map(lambda s: sorted(s, reverse=True)),
    st.lists(st.integers(0, 8), max_size=5),
)
def test_whatever_fits_in_any_way_is_found(shares: list[int], counts: list[int]) -> None:
    left = free(*counts)
    fits = any(
        all(left[name] >= share for name, share in zip(order, shares, strict=True))
        for order in permutations(left, len(shares))
    )
    chosen = nodes_for(tuple(shares), left)
    assert (chosen is not None) == fits
    if chosen is not None:
        assert len(set(chosen)) == len(shares)
        assert all(left[name] >= share for name, share in zip(chosen, shares, strict=True))


def test_what_is_placed_is_laid_out_so_and_used_up() -> None:
    world = a_cluster().with_nodes(3, 8)
    spec = a_job("a").wanting(1, 16).job.spec
    capacity = Capacity(world.state.snapshot(world.now))
    plan = ExecutionPlan.parse("dp12")
    first = placed(spec, plan, (8, 4), capacity)
    assert first is not None
    assert (first.plan, shares_of(first), sorted(first.nodes)) == (plan, (8, 4), ["n1", "n2"])
    assert [unit.first_rank for unit in first.units] == list(range(12))
    second = placed(spec, plan, (8, 4), capacity)
    assert second is not None
    assert set(first.slots()).isdisjoint(second.slots())
    assert placed(spec, plan, (8, 4), capacity) is None
    assert capacity.total_left(spec.accelerators) == 0


def test_only_nodes_that_the_job_may_use_are_chosen() -> None:
    world = a_cluster().with_node(a_node("n1", 8), a_node("n2", 8, labels={"zone": "a"}))
    capacity = Capacity(world.state.snapshot(world.now))
    spec = a_job("a").wanting(1, 8).selecting(zone="a").job.spec
    target = placed(spec, ExecutionPlan.parse("dp4"), (4,), capacity)
    assert target is not None
    assert target.nodes == {"n2"}
    assert placed(spec, ExecutionPlan.parse("dp8"), (4, 4), capacity) is None
