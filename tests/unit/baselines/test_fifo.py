"""First come, first served, with rigid gangs."""

from controlplane.domain.lifecycle import Stage
from controlplane.domain.reason import ReasonCode
from tests.builders import World, a_cluster, a_job, a_node, started


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
