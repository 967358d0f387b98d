"""What jobs that wait are told, the first and the thousandth: what they lack, who holds it, who
comes first. And what is no news to them.
"""

from dataclasses import replace

import pytest

from controlplane.baselines import BASELINES
from controlplane.domain.ids import AcceleratorId, JobUid
from controlplane.domain.node import Accelerator
from controlplane.domain.reason import Reason, ReasonCode
from tests.builders import World, a_cluster, a_job, a_node

EITHER_POLICY = pytest.mark.parametrize("policy", sorted(BASELINES))


def crowded(policy: str, waiting: int) -> World:
    """Two nodes of four, held by two jobs, and a queue of equal ones that want four each."""
    world = a_cluster(policy).with_node(a_node("n1", 4, "h100"), a_node("n2", 4, "h100"))
    world.submit(a_job("large").wanting(4), a_job("small").wanting(3)).settle()
    return world.submit(*(a_job(f"j{i}").wanting(4).of_type("h100") for i in range(waiting)))


@EITHER_POLICY
def test_the_thousandth_of_equal_jobs_is_told_what_it_lacks_and_who_holds_it(policy: str) -> None:
    world = crowded(policy, 1000)
    outcome = world.cycle()
    assert world.why("j0") == Reason(
        ReasonCode.WAITING_FOR_ACCELERATORS,
        "wants 4 h100 accelerators, 1 free for it",
        wanted=4,
        available=1,
        holders=(JobUid("large"), JobUid("small")),
        type="h100",
    )
    last = world.why("j999")
    assert last == Reason(
        ReasonCode.BEHIND_EARLIER_JOB,
        "wants 4 h100 accelerators; default/j0 wants 4 before it",
        wanted=4,
        holders=(JobUid("large"), JobUid("small")),
        type="h100",
        behind=JobUid("j0"),
    )
    assert last.deficit == 4
    assert len({id(reason) for uid, reason in outcome.said.items() if uid.startswith("j")}) == 2


@EITHER_POLICY
def test_a_start_elsewhere_is_no_news_to_those_who_wait_and_is_known_when_they_ask(
    policy: str,
) -> None:
    world = crowded(policy, 1000)
    world.cycle()
    world.exits("small")
    outcome = world.cycle()
    assert [action.uid for action in outcome.decided.actions] == ["j0"]
    assert [uid for uid, _ in outcome.decided.reasons] == ["j1"], "who is first now learns it"
    assert world.why("j999").holders == ("large", "small"), "as it was when it was told"
    now = outcome.said[JobUid("j999")]
    assert now.holders == ("j0", "large")
    assert now.behind == "j1"
    assert now.repeats(world.why("j999"))
    assert world.cycle().changes_nothing


@EITHER_POLICY
def test_those_who_start_in_this_very_cycle_hold_what_others_lack(policy: str) -> None:
    world = a_cluster(policy).with_nodes(1, 2)
    world.submit(a_job("a").wanting(2), a_job("b").wanting(2), a_job("c").wanting(2)).cycle()
    assert world.why("b").holders == ("a",)
    assert world.why("c").holders == ("a",)


def test_those_who_move_there_in_this_very_cycle_hold_what_others_lack() -> None:
    world = a_cluster("equal-share").with_node(a_node("n1", 3)).submit(a_job("mover").wanting(2))
    world.settle().with_node(a_node("n0", 4, "small")).drain("n1")
    world.submit(a_job("new").wanting(3).of_type("small"))
    for _ in ("in the cycle that moves it", "while it stops"):
        world.cycle()
        assert (world.why("new").deficit, world.why("new").holders) == (1, ("mover",))


@EITHER_POLICY
def test_a_few_holders_are_named_and_the_others_counted(policy: str) -> None:
    world = a_cluster(policy).with_nodes(1, 9).submit(*(a_job(f"j{i}") for i in range(7)))
    world.submit(a_job("two").wanting(2)).settle().submit(a_job("next"), a_job("last")).settle()
    for name in ("next", "last"):
        assert world.why(name).holders == ("two", "j0", "j1", "j2", "j3")
        assert world.why(name).more_holders == 3


@EITHER_POLICY
def test_who_waits_for_a_quota_is_told_which_jobs_of_its_queue_hold_it(policy: str) -> None:
    world = a_cluster(policy).with_nodes(1, 8).with_queue("q", quota=3)
    world.submit(a_job("mine").in_queue("q").wanting(2), a_job("free").wanting(4)).settle()
    world.submit(*(a_job(name).in_queue("q").wanting(2) for name in ("first", "second"))).cycle()
    first, second = world.why("first"), world.why("second")
    assert (first.code, first.deficit, first.holders) == (
        ReasonCode.QUOTA_EXCEEDED,
        1,
        ("mine",),
    )
    assert (second.code, second.deficit, second.holders, second.behind) == (
        ReasonCode.BEHIND_EARLIER_JOB,
        2,
        ("mine",),
        "first",
    )
    assert second.message == (
        "wants 2 accelerators; default/first wants 2 before it, of the quota of queue q"
    )


@EITHER_POLICY
def test_only_who_holds_what_the_job_could_use_is_named(policy: str) -> None:
    mixed = a_node("n1", 1, "old")
    new = Accelerator(AcceleratorId("n1-new"), "new", cpu_cores=(1,))
    mixed = replace(mixed, accelerators=(*mixed.accelerators, new))
    world = a_cluster(policy).with_node(mixed, a_node("n2", 1, "new"), a_node("n3", 1, "older"))
    world.submit(a_job("a").of_type("old"), a_job("b").of_type("new").wanting(2)).settle()
    world.submit(a_job("c").of_type("older"), a_job("d").of_type("new")).settle()
    assert (world.why("d").holders, world.why("d").more_holders) == (("b",), 0)


def test_what_passes_with_every_start_is_no_news_and_all_else_is() -> None:
    told = Reason(
        ReasonCode.BEHIND_EARLIER_JOB, "a first", 4, 0, (JobUid("x"),), 1, "h100", JobUid("a")
    )
    others = replace(told, holders=(JobUid("y"),), more_holders=7)
    next_one = replace(others, message="b first", behind=JobUid("b"))
    assert others.repeats(told)
    assert next_one.repeats(told)
    for news in (
        replace(told, code=ReasonCode.WAITING_FOR_ACCELERATORS),
        replace(told, wanted=5),
        replace(told, available=1),
        replace(told, type="cpu"),
        replace(told, message="b first", behind=JobUid("")),
    ):
        assert not news.repeats(told)
    assert not told.repeats(None)


def test_who_is_on_the_way_to_what_another_lacks_is_named() -> None:
    world = a_cluster().with_nodes(2, 1).submit(a_job("a")).settle()
    (left,) = world.nodes_of("a")
    world.drain(left).cycle()
    world.submit(a_job("b")).cycle()
    assert world.code("b") is ReasonCode.WAITING_FOR_ACCELERATORS
    assert world.why("b").holders == ("a",)


def test_who_cannot_have_its_place_back_under_a_smaller_quota_blocks_nobody() -> None:
    world = a_cluster().with_nodes(1, 3).with_queue("narrow", quota=3)
    world.submit(a_job("a").wanting(3).in_queue("narrow")).settle().fails("a", ReasonCode.RAY_LOST)
    world.with_queue("narrow", quota=1).submit(a_job("b").wanting(3).in_queue("narrow"))
    world.passes(60).cycle()
    assert {world.code(name) for name in "ab"} == {ReasonCode.QUOTA_EXCEEDED}
    assert "the whole quota of queue narrow is 1" in world.why("b").message
