"""Jobs that name their plans: which one is taken where, under both policies."""

import pytest

from controlplane.baselines import BASELINES
from controlplane.domain.action import ChangePlan
from controlplane.domain.ids import AcceleratorId, NodeId
from controlplane.domain.lifecycle import Stage
from controlplane.domain.placement import Placement
from controlplane.domain.reason import ReasonCode
from controlplane.placing.capacity import Capacity
from headrace.api.plan import ExecutionPlan
from tests.builders import World, a_cluster, a_job, a_node

POLICIES = pytest.mark.parametrize("policy", sorted(BASELINES))


def plan_of(world: World, name: str) -> str:
    return str(world.attempt(name).placement.plan)


def counts(placement: Placement) -> list[int]:
    return sorted(map(len, placement.by_node().values()))


def changes(world: World) -> list[tuple[ReasonCode, str]]:
    """Who is asked to change its plan in the next cycle, and why."""
    ordered = world.cycle().decided.actions
    reasons = [action.reason for action in ordered if isinstance(action, ChangePlan)]
    return [(reason.code, reason.message) for reason in reasons]


@POLICIES
def test_the_first_plan_of_a_size_is_taken(policy: str) -> None:
    world = a_cluster(policy).with_nodes(1, 4)
    job = a_job("a").wanting(1, 4).with_batch(16)
    world.submit(job.under("dp1", "pp4.1f1b-ga4", "dp4", "dp2-z3")).settle()
    assert plan_of(world, "a") == "pp4.1f1b-ga4"


@POLICIES
def test_only_sizes_of_its_plans_are_given(policy: str) -> None:
    world = a_cluster(policy).with_nodes(1, 5)
    world.submit(a_job("a").wanting(1, 8).with_batch(16).under("dp8", "dp2", "dp1"))
    world.settle()
    assert plan_of(world, "a") == "dp2"


def test_a_change_of_size_is_a_change_of_kind_and_back() -> None:
    world = a_cluster().with_nodes(2, 2)
    gpt = a_job("gpt").wanting(1, 4).with_batch(16).under("dp4", "pp2.1f1b-ga4", "dp1")
    world.submit(gpt).settle().submit(a_job("vit").wanting(1, 2))
    assert changes(world) == [
        (ReasonCode.SHRUNK_FOR_OTHERS, "dp4 -> pp2.1f1b-ga4: makes room for default/vit")
    ]
    world.settle()
    assert plan_of(world, "gpt") == "pp2.1f1b-ga4"
    world.exits("vit").settle()
    assert plan_of(world, "gpt") == "dp4"
    assert world.attempt("gpt").number == 1
    assert world.replayed() == world.state


@POLICIES
def test_tensor_parallel_neighbours_share_a_node(policy: str) -> None:
    world = a_cluster(policy).with_nodes(3, 3)
    world.submit(a_job("a").wanting(4).with_batch(8).under("dp2-tp2")).settle()
    assert counts(world.attempt("a").placement) == [2, 2]


@POLICIES
def test_where_groups_find_no_place_the_next_plan_of_the_size_is_taken(policy: str) -> None:
    world = a_cluster(policy).with_nodes(2, 2)
    world.submit(a_job("a").wanting(4).with_batch(8).under("tp4", "pp2.1f1b-ga2", "dp4-z2"))
    world.settle()
    assert plan_of(world, "a") == "dp4-z2"


@POLICIES
def test_a_better_plan_is_worth_a_look_at_other_nodes(policy: str) -> None:
    world = a_cluster(policy).with_node(a_node("n1", 3), a_node("n2", 3))
    world.submit(a_job("small").wanting(1)).settle()
    world.submit(a_job("a").wanting(4).with_batch(8).under("dp2-tp2", "dp4")).settle()
    assert plan_of(world, "a") == "dp2-tp2"


@POLICIES
def test_who_asks_for_groups_that_no_node_holds_is_told_so_and_blocks_nobody(policy: str) -> None:
    world = a_cluster(policy).with_nodes(4, 2)
    world.submit(a_job("wide").wanting(4, 8).with_batch(8).under("tp4", "dp2-tp4"), a_job("b"))
    world.settle()
    why = world.why("wide")
    assert (why.code, why.wanted, why.available) == (ReasonCode.EXCEEDS_CLUSTER, 4, 0)
    assert why.message == (
        "wants 4 accelerators in tensor-parallel groups of 4 on one node each, "
        "the usable nodes have 0 for it, of 8; what helps: a plan whose "
        "groups find a node, such as dp2-tp2"
    )
    assert world.stage("b") is Stage.RUNNING


@POLICIES
def test_a_size_that_fits_nowhere_does_not_keep_a_job_from_another(policy: str) -> None:
    world = a_cluster(policy).with_nodes(4, 2)
    world.submit(a_job("a").wanting(2, 8).with_batch(8).under("dp2-tp4", "tp4", "tp2")).settle()
    assert plan_of(world, "a") == "tp2"
    other = a_job("b").wanting(2, 4).with_batch(8).under("tp2", "tp4", "pp4.1f1b-ga4")
    world.submit(other).settle()
    assert plan_of(world, "b") == "pp4.1f1b-ga4"


def test_who_waits_for_a_group_is_told_what_is_free_for_it() -> None:
    world = a_cluster().with_nodes(2, 2)
    world.submit(a_job("a").wanting(1), a_job("b").wanting(2)).settle()
    world.submit(a_job("wide").wanting(2).with_batch(8).under("tp2")).settle()
    assert world.code("wide") is ReasonCode.WAITING_FOR_ACCELERATORS
    assert world.why("wide").message == "wants 2 accelerators, 0 free for it"


def test_jobs_are_moved_together_to_make_room_for_a_group() -> None:
    world = a_cluster().with_nodes(2, 2).submit(*(a_job(n) for n in "abc")).settle()
    world.exits(next(n for n in "abc" if world.nodes_of(n) == {"n1"})).settle()
    world.submit(a_job("wide").wanting(2).with_batch(8).under("tp2")).settle()
    assert plan_of(world, "wide") == "tp2"
    assert len(world.nodes_of("wide")) == 1


def test_a_job_that_shrinks_keeps_whole_groups() -> None:
    world = a_cluster().with_nodes(2, 4)
    job = a_job("a").wanting(2, 8).with_batch(8).under("dp4-tp2", "dp3-tp2", "dp2-tp2", "tp2")
    world.submit(job).settle()
    before = set(world.attempt("a").placement.slots())
    world.submit(a_job("b").wanting(3)).settle()
    assert plan_of(world, "a") == "dp2-tp2"
    assert set(world.attempt("a").placement.slots()) < before
    assert all(count % 2 == 0 for count in counts(world.attempt("a").placement))


@POLICIES
def test_other_plans_for_a_running_job_are_taken_up_where_it_is(policy: str) -> None:
    world = a_cluster(policy).with_nodes(1, 2)
    job = a_job("a").wanting(2).with_batch(8).under("dp2", "tp2")
    world.submit(job).settle().update(job.under("dp2")).cycle()
    assert world.stage("a") is Stage.RUNNING
    world.update(job.under("tp2", "dp2"))
    (order,) = world.cycle().decided.actions
    assert isinstance(order, ChangePlan)
    assert order.reason.code is ReasonCode.SPEC_CHANGED
    assert order.reason.message == "dp2 -> tp2: its spec asks for another plan"
    world.settle()
    assert plan_of(world, "a") == "tp2"
    world.update(a_job("a").wanting(2).with_batch(8)).settle()
    assert plan_of(world, "a") == "dp2"
    assert (world.attempt("a").number, world.job("a").reconfigurations) == (1, 2)


def test_other_plans_and_another_size_are_one_change() -> None:
    world = a_cluster().with_nodes(1, 4)
    job = a_job("a").wanting(2, 4).with_batch(8).under("dp2")
    world.submit(job).settle().update(job.under("tp2", "pp4.1f1b-ga4"))
    (reason,) = changes(world)
    assert reason == (ReasonCode.GROWN_INTO_FREE, "dp2 -> pp4.1f1b-ga4")


def test_who_asks_for_other_plans_gets_another_answer() -> None:
    world = a_cluster().with_nodes(2, 2)
    wants = [a_job(name).wanting(4).with_batch(8) for name in "ab"]
    world.submit(wants[0].under("tp4"), wants[1].under("dp2-tp2")).settle()
    assert (world.stage("a"), world.stage("b")) == (Stage.QUEUED, Stage.RUNNING)


def test_a_part_of_what_a_job_has_is_chosen_so_that_a_plan_fits() -> None:
    world = a_cluster().with_nodes(2, 3)
    world.submit(a_job("a").wanting(2, 6).with_batch(12).under("dp6", "dp2-tp2", "tp2")).settle()
    before = set(world.attempt("a").placement.slots())
    world.submit(a_job("b"), a_job("c")).settle()
    assert counts(world.attempt("a").placement) == [2, 2]
    assert set(world.attempt("a").placement.slots()) < before


def test_a_size_without_a_place_is_jumped_over() -> None:
    world = a_cluster().with_node(*(a_node(f"n{i}", 1) for i in range(3)), a_node("wide", 2))
    world.submit(a_job("first").wanting(4)).settle()
    world.submit(a_job("a").wanting(1, 4).with_batch(8).under("dp1", "tp2", "dp4")).settle()
    assert plan_of(world, "a") == "dp1"
    world.exits("first").settle()
    assert plan_of(world, "a") == "dp4"


def test_a_holding_grows_by_what_makes_groups_whole_first() -> None:
    world = a_cluster().with_node(a_node("n1", 4), a_node("n2", 2), a_node("n3", 2))
    request = a_job("a").wanting(1, 8).job.spec.accelerators
    capacity = Capacity(world.state.snapshot(world.now))
    holding = capacity.claim(
        {NodeId("n1"): [AcceleratorId("n1-0")], NodeId("n2"): [AcceleratorId("n2-0")]}
    )
    assert holding is not None
    assert capacity.extend(request, holding, 2, group=2)
    assert {node: len(held) for node, held in holding.parts.items()} == {"n1": 2, "n2": 2}
    assert capacity.extend(request, holding, 4, group=4) is False
    assert (holding.count, capacity.total_left(request)) == (4, 4)
    assert capacity.extend(request, holding, 4, group=2)
    assert {node: len(held) for node, held in holding.parts.items()} == {
        "n1": 4,
        "n2": 2,
        "n3": 2,
    }


@pytest.mark.parametrize(
    ("plan", "batch", "helps"),
    [("tp4", 8, "such as dp2-tp2"), ("tp4-pp2.1f1b-ga4", 8, "such as dp2-tp2-pp2.1f1b-ga4")],
)
def test_of_groups_that_no_node_holds_the_largest_smaller_ones_are_named(
    plan: str, batch: int, helps: str
) -> None:
    ranks = ExecutionPlan.parse(plan).ranks
    world = a_cluster("fifo").with_nodes(ranks // 2, 2)
    world.submit(a_job("a").wanting(ranks).with_batch(batch).under(plan)).settle()
    assert world.why("a").message.endswith(f"a plan whose groups find a node, {helps}")


def test_groups_that_the_batch_does_not_allow_are_not_named() -> None:
    world = a_cluster("fifo").with_nodes(2, 2)
    world.submit(a_job("a").wanting(4).with_batch(1).under("tp4")).settle()
    assert world.why("a").message.endswith("the usable nodes have 0 for it, of 4")
