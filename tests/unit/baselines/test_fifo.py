"""First come, first served, with rigid gangs."""

from dataclasses import replace

import pytest

from controlplane.baselines.fifo import Fifo
from controlplane.domain.lifecycle import Stage
from controlplane.domain.reason import ReasonCode
from headrace.api.plan import ExecutionPlan
from tests.builders import JobBuilder, World, a_cluster, a_job, a_node, started
from tests.step_tables import A800, KIND, a_measured_job


def a_fifo() -> World:
    return a_cluster("fifo")


def test_a_job_gets_all_it_can_ever_use_or_waits() -> None:
    world = a_fifo().with_nodes(1, 4).submit(a_job("one"), a_job("all").wanting(1, 8)).settle()
    assert world.stage("all") is Stage.QUEUED
    assert world.why("all").wanted == 4
    world.exits("one").settle()
    assert world.held("all") == 4


def test_a_waiting_job_is_not_overtaken_on_the_nodes_that_it_wants() -> None:
    world = a_fifo().with_nodes(1, 4).submit(a_job("first").wanting(3)).settle()
    world.submit(a_job("big").wanting(4), a_job("small")).settle()
    assert world.stage("small") is Stage.QUEUED
    assert world.code("small") is ReasonCode.BEHIND_EARLIER_JOB
    assert world.why("small").behind == "big"
    assert world.why("small").holders == ("first",)


def test_a_job_that_wants_other_nodes_is_not_held_up() -> None:
    world = a_fifo().with_node(a_node("n1", 2, "a"), a_node("n2", 2, "b"))
    world.submit(a_job("first").of_type("a")).settle()
    world.submit(a_job("big").wanting(2).of_type("a"), a_job("else").of_type("b"))
    assert started(world.cycle().decided.actions) == {"else": 1}


def test_who_could_use_any_node_waits_behind_a_job_that_wants_some_of_them() -> None:
    world = a_fifo().with_node(a_node("n1", 2, "a"))
    world.submit(a_job("first").of_type("a")).settle()
    world.submit(a_job("big").wanting(2).of_type("a"), a_job("any")).settle()
    assert world.code("any") is ReasonCode.BEHIND_EARLIER_JOB
    assert world.why("any").behind == "big"
    assert world.why("any").holders == ("first",)


def test_a_job_that_backs_off_holds_up_nobody() -> None:
    world = a_fifo().with_nodes(1, 2).submit(a_job("bad").wanting(2)).settle()
    world.fails("bad").submit(a_job("small")).settle()
    assert world.stage("small") is Stage.RUNNING


def test_a_queue_at_its_quota_is_first_come_first_served_too() -> None:
    world = a_fifo().with_nodes(1, 8).with_queue("q", quota=3)
    world.submit(a_job("a").in_queue("q").wanting(2)).settle()
    world.submit(a_job("big").in_queue("q").wanting(2), a_job("small").in_queue("q"))
    world.submit(a_job("free")).settle()
    assert world.code("big") is ReasonCode.QUOTA_EXCEEDED
    assert (world.why("big").wanted, world.why("big").available) == (2, 1)
    assert world.code("small") is ReasonCode.BEHIND_EARLIER_JOB
    assert world.stage("free") is Stage.RUNNING


def test_an_elastic_job_takes_what_its_quota_allows() -> None:
    world = a_fifo().with_nodes(1, 8).with_queue("q", quota=3)
    world.submit(a_job().in_queue("q").wanting(1, 8)).settle()
    assert world.held("job") == 3


def test_a_higher_priority_goes_first_but_nobody_is_pushed_out() -> None:
    world = a_fifo().with_nodes(1, 2).submit(a_job("low").wanting(2)).settle()
    world.submit(a_job("next").wanting(2), a_job("high").wanting(2).with_priority(9)).settle()
    assert world.stage("low") is Stage.RUNNING
    world.exits("low").settle()
    assert world.stage("high") is Stage.RUNNING


def test_running_jobs_stay_when_their_queue_is_squeezed() -> None:
    world = a_fifo().with_nodes(1, 4).with_queue("q", quota=4)
    world.submit(a_job().in_queue("q").wanting(4)).settle().with_queue("q", quota=1).settle()
    assert world.stage("job") is Stage.RUNNING


def test_the_length_of_a_queue_does_not_fill_the_log() -> None:
    world = a_fifo().with_nodes(1, 2).submit(*(a_job(f"j{i}").wanting(2) for i in range(200)))
    world.settle().exits("j0")
    assert len(world.cycle().decided.reasons) <= 1


def measured(*, skip: bool = False) -> World:
    nodes = [a_node(f"n{i}", 8, KIND) for i in range(2)]
    return a_cluster().with_node(*nodes).under(Fifo(A800, skip))


def test_who_names_a_number_and_a_plan_gets_these_where_they_were_measured() -> None:
    world = measured().submit(a_measured_job("a", "bert", "dp2"))
    world.submit(a_measured_job("b", "bert", "dp4")).settle()
    assert (world.held("a"), world.held("b")) == (2, 4)
    assert str(world.attempt("b").placement.plan) == "dp4"
    assert world.nodes_of("a") == world.nodes_of("b")


@pytest.mark.parametrize("skip", [False, True])
def test_whether_who_does_not_fit_is_passed_over_is_a_matter_of_the_policy(skip: bool) -> None:
    world = measured(skip=skip).submit(
        a_measured_job("a", "bert", "dp4"), a_measured_job("b", "bert", "dp8")
    )
    world.settle().submit(a_measured_job("c", "bert", "dp8"), a_measured_job("d", "bert", "dp2"))
    world.settle()
    assert world.code("c") is ReasonCode.WAITING_FOR_ACCELERATORS
    assert (world.why("c").wanted, world.why("c").available) == (8, 2 if skip else 4)
    assert world.held("d") == (2 if skip else 0)
    if not skip:
        assert world.code("d") is ReasonCode.BEHIND_EARLIER_JOB
        assert world.why("d").behind == "c"


@pytest.mark.parametrize("skip", [False, True])
def test_a_quota_that_is_used_up_holds_up_its_own_queue_if_anybody(skip: bool) -> None:
    world = measured(skip=skip).with_queue("q", quota=4)
    world.submit(*(a_measured_job(n, "bert", f"dp{c}").in_queue("q") for n, c in QUOTA_JOBS))
    world.submit(a_measured_job("free", "bert", "dp2")).settle()
    assert world.code("too much") is ReasonCode.QUOTA_EXCEEDED
    assert world.held("one more") == (1 if skip else 0)
    assert world.held("free") == 2


QUOTA_JOBS = (("has", 2), ("too much", 4), ("one more", 1))


def test_who_asks_for_a_plan_that_nobody_measured_is_told_so() -> None:
    job = a_measured_job("a", "bert", "dp2-z3").job
    other = ExecutionPlan.parse("dp2-z3")
    spec = replace(job.spec, plans=(other, *job.spec.plans))
    world = measured().submit(JobBuilder(replace(job, spec=spec))).settle()
    assert world.code("a") is ReasonCode.POLICY_REFUSED
    assert "it is not known how long a step of bert takes under dp2-z3" in world.why("a").message


def test_who_comes_first_is_served_first_whatever_is_promised_to_whom() -> None:
    world = a_fifo().with_nodes(1, 2).submit(a_job("runs").wanting(2)).settle()
    world.submit(a_job("first").wanting(2)).passes(1)
    world.submit(a_job("promised").wanting(2).guaranteed()).settle()
    world.exits("runs").settle()
    assert (world.held("first"), world.held("promised")) == (2, 0)
