"""AntMan as a policy: guarantees within quotas, preemption of best-effort jobs."""

import pytest

from controlplane.baselines.antman import AntMan
from controlplane.domain.lifecycle import Stage
from controlplane.domain.reason import ReasonCode
from tests.builders import JobBuilder, World, a_cluster, a_job, a_node
from tests.step_tables import A800, KIND, a_measured_job


def a_server(*, quota: int = 8, nodes: int = 1) -> World:
    every = [a_node(f"n{i}", 8, KIND) for i in range(nodes)]
    return a_cluster().with_node(*every).with_queue("tenant", quota).under(AntMan(A800))


def promised(name: str, count: int) -> JobBuilder:
    return a_job(name).wanting(count).in_queue("tenant").guaranteed()


def best_effort(name: str, count: int) -> JobBuilder:
    return a_job(name).wanting(count)


def test_a_job_with_a_guarantee_preempts_one_without() -> None:
    world = a_server().submit(best_effort("be", 8)).settle()
    world.submit(promised("g", 4)).settle()
    assert world.held("g") == 4
    assert world.stage("be") is Stage.QUEUED
    assert world.why("be").wanted == 8
    assert world.job("be").progress.step == 1


def test_the_one_that_started_last_is_preempted_and_no_other() -> None:
    world = a_server().submit(best_effort("old", 4)).settle()
    world.passes(60).submit(best_effort("young", 4)).settle()
    world.submit(promised("g", 4)).settle()
    assert (world.held("g"), world.held("old"), world.held("young")) == (4, 4, 0)
    assert world.job("old").attempts_made == 1


def test_nobody_is_preempted_where_it_does_not_help() -> None:
    world = a_server(quota=16).submit(promised("first", 6), best_effort("be", 2)).settle()
    world.submit(promised("second", 4))
    assert world.cycle().decided.actions == ()
    assert (world.held("first"), world.held("be"), world.held("second")) == (6, 2, 0)
    assert world.code("second") is ReasonCode.WAITING_FOR_ACCELERATORS


def test_within_the_quota_whoever_fits_starts_and_others_are_passed_over() -> None:
    world = a_server(quota=8, nodes=2).submit(promised("a", 6)).settle()
    world.submit(promised("b", 4), promised("c", 2)).settle()
    assert (world.held("a"), world.held("b"), world.held("c")) == (6, 0, 2)
    assert world.code("b") is ReasonCode.QUOTA_EXCEEDED
    assert (world.why("b").wanted, world.why("b").available) == (4, 0)


def test_only_those_are_preempted_whose_place_is_used() -> None:
    world = a_server(nodes=2)
    world.submit(best_effort("wide", 6)).settle()
    world.passes(1).submit(best_effort("half", 4)).settle()
    world.passes(1).submit(best_effort("last", 2)).settle()
    # The last one is on the first node, where too little is left without the wide one.
    assert world.nodes_of("last") == world.nodes_of("wide") != world.nodes_of("half")
    world.submit(promised("g", 5).on_one_node()).settle()
    assert (world.held("g"), world.held("half")) == (5, 0)
    assert (world.held("wide"), world.held("last")) == (6, 2)
    assert world.job("last").attempts_made == 1


def test_who_was_preempted_is_first_in_its_line() -> None:
    world = a_server().submit(best_effort("be", 4)).settle()
    world.submit(promised("g", 8)).settle()
    world.submit(best_effort("later", 4), a_job("small").wanting(2)).settle()
    assert (world.held("g"), world.held("be")) == (8, 0)
    world.exits("g").settle()
    assert (world.held("be"), world.held("later"), world.held("small")) == (4, 4, 0)


def test_who_ran_before_comes_before_earlier_jobs_that_never_did() -> None:
    world = a_server().submit(promised("first", 4)).settle()
    world.submit(best_effort("waits", 8), best_effort("ran", 4)).settle()
    world.submit(promised("second", 4)).settle()
    assert [world.held(name) for name in ("first", "second", "waits", "ran")] == [4, 4, 0, 0]
    world.exits("first")
    world.exits("second").settle()
    assert (world.held("waits"), world.held("ran")) == (0, 4)


def test_a_best_effort_job_that_has_the_quota_of_its_queue_makes_way() -> None:
    world = a_server(quota=4).submit(a_job("be").wanting(4).in_queue("tenant")).settle()
    assert world.held("be") == 4
    world.submit(promised("g", 4)).settle()
    assert (world.held("g"), world.held("be")) == (4, 0)
    assert world.code("be") is ReasonCode.QUOTA_EXCEEDED


def test_plan_and_number_are_what_was_asked_for() -> None:
    world = a_server().submit(a_measured_job("t5", "t5", "dp4")).settle()
    assert str(world.attempt("t5").placement.plan) == "dp4"
    assert world.held("t5") == 4


@pytest.mark.parametrize(("spreads", "held"), [(False, 0), (True, 8)])
def test_a_variant_takes_slower_shares_that_are_free(spreads: bool, held: int) -> None:
    world = a_server(nodes=2).under(AntMan(A800, spreads=spreads))
    for i in range(2):
        world.submit(a_job(f"wide{i}").wanting(5)).settle()
    for i in range(2):
        world.submit(a_job(f"narrow{i}").wanting(3)).settle()
        world.exits(f"wide{i}").settle()
    world.submit(a_measured_job("t5", "t5", "dp8")).settle()
    assert world.held("t5") == held


def test_what_was_assumed_can_be_printed() -> None:
    assert any("not shared" in each for each in AntMan(A800).assumptions)
