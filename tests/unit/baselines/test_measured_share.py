"""Equal shares by step times that are known."""

from controlplane.baselines.measured_share import MeasuredShare
from controlplane.domain.reason import ReasonCode
from tests.builders import World, a_cluster, a_job, a_node
from tests.step_tables import A800, KIND, a_measured_job


def servers(count: int) -> World:
    nodes = [a_node(f"n{i}", 8, KIND) for i in range(count)]
    return a_cluster().with_node(*nodes).under(MeasuredShare(A800))


def test_a_server_is_shared_equally_and_earlier_jobs_get_what_is_left() -> None:
    world = servers(1)
    world.submit(*(a_measured_job(f"j{i}", "bert", "dp1") for i in range(3))).settle()
    assert [world.held(f"j{i}") for i in range(3)] == [4, 2, 2]
    world.exits("j1").settle()
    assert [world.held(f"j{i}") for i in (0, 2)] == [4, 4]


def test_with_more_jobs_than_accelerators_the_last_ones_wait() -> None:
    world = servers(1)
    world.submit(*(a_measured_job(f"j{i}", "bert", "dp8") for i in range(9))).settle()
    assert [world.held(f"j{i}") for i in range(9)] == [1] * 8 + [0]
    assert world.code("j8") is ReasonCode.WAITING_FOR_ACCELERATORS
    assert world.why("j8").wanted == 1


def test_the_plan_stays_and_its_replicas_change() -> None:
    world = servers(8).submit(a_measured_job("l", "llama7", "dp2-tp4-pp2.1f1b-ga4")).settle()
    assert str(world.attempt("l").placement.plan) == "dp8-tp4-pp2.1f1b"
    world.submit(a_measured_job("v", "vit", "dp1")).settle()
    assert str(world.attempt("l").placement.plan) == "dp4-tp4-pp2.1f1b-ga2"
    assert str(world.attempt("v").placement.plan) == "dp8"


def test_a_job_whose_least_is_above_its_share_takes_what_is_free_or_waits() -> None:
    world = servers(2)
    world.submit(
        a_measured_job("l", "llama7", "dp2-tp8"), a_measured_job("v", "vit", "dp1")
    ).settle()
    assert (world.held("l"), world.held("v")) == (0, 8)
    world.exits("v").settle()
    assert world.held("l") == 16


def test_a_job_that_has_not_trained_is_not_restarted_only_to_grow() -> None:
    world = servers(1).submit(
        a_measured_job("a", "bert", "dp1"), a_measured_job("b", "bert", "dp1")
    )
    world.cycle()
    world.exits("a")
    assert world.cycle().decided.actions == ()
    world.runs("b").settle()
    assert world.held("b") == 8


def test_a_job_of_which_nothing_is_known_gets_what_it_asks_for() -> None:
    world = servers(1).submit(a_job("own").wanting(3), a_measured_job("v", "vit", "dp1")).settle()
    assert (world.held("own"), world.held("v")) == (3, 4)
