"""Queues borrow what others do not need, and those whose quota it is take it back."""

from collections import Counter
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.domain.action import StopAttempt
from controlplane.domain.ids import JobUid, NodeId, QueueName
from controlplane.domain.policy import Decision
from controlplane.domain.reason import ReasonCode
from controlplane.rubick.borrowing import Borrowing
from controlplane.rubick.choices import NOTHING
from controlplane.rubick.policy import Rubick
from controlplane.rubick.seat import Given, Seat
from controlplane.rubick.settings import RubickSettings
from controlplane.rubick.worth import Wanting, worths
from tests.builders import JobBuilder, World, a_cluster, a_node
from tests.rubick.worlds import Scaling, a_known_job


def world(*nodes: int, **changes: float) -> World:
    chosen = {"switch_seconds": 1.0, "cool_down_seconds": 10.0} | changes
    times = Scaling()
    policy = Rubick(lambda _: times, RubickSettings(**chosen))  # type: ignore[arg-type]
    built = a_cluster().under(policy)
    for i, count in enumerate(nodes or (8,)):
        built.with_node(a_node(f"n{i}", count, "gpu"))
    return built


def rigid(name: str, queue: str, *, steps: int = 100_000, guaranteed: bool = False) -> JobBuilder:
    """A long job that runs on four and no others."""
    job = a_known_job(name, most=4, steps=steps, asked=4, guaranteed=guaranteed)
    return job.wanting(4).in_queue(queue)


def two_queues(borrowing: int | None = 4) -> World:
    return world().with_queue("a", 4, borrowing).with_queue("b", 4, borrowing)


def test_a_queue_holds_no_more_than_its_quota_and_what_it_may_borrow() -> None:
    for borrowing, most in ((0, 4), (2, 6), (None, 8)):
        built = two_queues(borrowing)
        built.submit(*(a_known_job(f"j{i}", steps=50_000).in_queue("a") for i in range(8)))
        built.settle().passes(60).settle()
        assert sum(built.held(f"j{i}") for i in range(8)) == most


def test_who_is_within_its_quota_takes_back_what_others_borrow() -> None:
    built = two_queues().submit(rigid("own", "a"), rigid("borrows", "a")).settle()
    assert (built.held("own"), built.held("borrows")) == (4, 4)
    (stop,) = built.passes(60).submit(rigid("owner", "b")).cycle().decided.actions
    assert isinstance(stop, StopAttempt)
    assert (stop.uid, stop.reason.code) == ("borrows", ReasonCode.PREEMPTED)
    assert "what queue a borrowed and queue b needs now, within its quota" in stop.reason.message
    built.settle()
    assert (built.held("own"), built.held("borrows"), built.held("owner")) == (4, 0, 4)
    assert built.passes(600).cycle().changes_nothing


def test_an_owner_comes_before_a_borrower_whatever_their_priorities() -> None:
    built = two_queues()
    built.submit(rigid("own", "a"), rigid("borrows", "a").with_priority(9)).settle()
    built.passes(60).submit(rigid("owner", "b").with_priority(-9)).settle()
    # The other one of its queue, of lower priority, is who borrows.
    assert (built.held("own"), built.held("borrows"), built.held("owner")) == (0, 4, 4)


def test_a_guaranteed_job_beyond_the_quota_is_promised_nothing() -> None:
    built = two_queues()
    built.submit(*(rigid(name, "a", guaranteed=True) for name in ("own", "borrows"))).settle()
    assert (built.held("own"), built.held("borrows")) == (4, 4)
    built.passes(60).submit(rigid("owner", "b")).settle()
    assert (built.held("own"), built.held("borrows"), built.held("owner")) == (4, 0, 4)


def test_a_guaranteed_job_has_the_quota_before_the_others_of_its_queue() -> None:
    built = two_queues()
    best_effort = rigid("best-effort", "a").with_priority(5)
    built.submit(best_effort, rigid("promised", "a", guaranteed=True)).settle()
    built.passes(60).submit(rigid("owner", "b")).settle()
    assert (built.held("best-effort"), built.held("promised"), built.held("owner")) == (0, 4, 4)


def test_what_borrows_is_shrunk_where_that_is_enough() -> None:
    built = two_queues().submit(a_known_job("elastic", steps=100_000).in_queue("a")).settle()
    assert built.held("elastic") == 8
    built.passes(60).submit(rigid("owner", "b")).settle()
    assert (built.held("elastic"), built.held("owner")) == (4, 4)


@pytest.mark.parametrize("steps", [10_000, 1_000_000])
def test_nobody_borrows_what_its_owner_uses(steps: int) -> None:
    # By worth it would go before either of them: it is done in no time.
    short = a_known_job("short", most=4, steps=1, asked=4).wanting(4).in_queue("b")
    for promised, held in ((False, (4, 0, 4)), (True, (4, 4, 0))):
        own, owner = rigid("own", "a", steps=steps), rigid("owner", "b", guaranteed=promised)
        built = two_queues().submit(own, owner).settle().passes(60).submit(short)
        stopped = [action.uid for action in built.cycle().decided.actions]
        assert stopped == ([] if promised else ["owner"])
        built.settle()
        assert (built.held("own"), built.held("owner"), built.held("short")) == held


def test_who_borrows_is_left_in_peace_while_it_is_young() -> None:
    built = two_queues_with(cool_down_seconds=300.0)
    built.submit(rigid("own", "a"), rigid("borrows", "a")).settle().passes(60)
    built.submit(rigid("owner", "b")).settle()
    assert built.held("owner") == 0
    built.passes(300).settle()
    assert built.held("owner") == 4


def two_queues_with(**changes: float) -> World:
    return world(**changes).with_queue("a", 4, 4).with_queue("b", 4, 4)


def test_no_search_takes_from_owners_what_others_may_borrow() -> None:
    built = two_queues_with(search_nodes=200)
    built.submit(rigid("own", "a"), rigid("owner", "b"))
    short = [a_known_job(f"s{i}", 4, 1, 4).wanting(4).in_queue("b") for i in range(4)]
    built.submit(*short).settle()
    assert built.held("own") == 4


def test_a_queue_without_quota_neither_borrows_nor_takes_back() -> None:
    built = world().with_queue("a", 4, 4)
    built.submit(rigid("own", "a"), rigid("borrows", "a")).settle()
    built.passes(60).submit(rigid("other", "default")).settle()
    assert (built.held("own"), built.held("borrows"), built.held("other")) == (4, 4, 0)


def test_explanations_say_whose_quota_it_is() -> None:
    built = two_queues().submit(rigid("own", "a"), rigid("borrows", "a")).settle()
    built.passes(60).submit(rigid("owner", "b"))
    policy = built.policies["tried"]
    assert isinstance(policy, Rubick)
    snapshot = built.state.snapshot(built.now)
    for name in ("borrows", "owner"):
        told = " ".join(policy.explanation(snapshot, built.job(name).uid))
        assert "gives back to default/owner what its queue borrowed" in told or (
            "gives back to owner what its queue borrowed" in told
        )


def test_a_promise_within_the_quota_is_checked() -> None:
    built = two_queues(borrowing=0).submit(rigid("own", "a", guaranteed=True)).settle().passes(60)
    policy = built.policies["tried"]
    assert isinstance(policy, Rubick)
    snapshot = built.state.snapshot(built.now)
    (told,) = policy.violations(snapshot, Decision({}, {}))
    assert "guaranteed and would lose what it has" in told.text
    assert told.jobs == ("own",)


def a_holder(number: int, queue: str, count: int) -> Seat:
    """A job that holds so many."""
    held = Given(((("gpu", NodeId("n")), count),), 1.0)
    want = Wanting(NOTHING, 1.0, 1.0)
    (worth,) = worths(
        [want], patience_seconds=1.0, patience_share=0.0, shortest_first=0.0, competition=0.0
    )
    return Seat(number, JobUid(f"j{number}"), QueueName(queue), NOTHING, worth, held=held)


def test_who_came_last_borrows_until_what_others_leave_is_enough() -> None:
    first, second, third = (a_holder(i, "a", count) for i, count in enumerate((4, 4, 2)))
    borrowing = Borrowing([first, second, third], {QueueName("a"): 6})
    borrowing.use(QueueName("a"), 10)
    assert [borrowing.borrows(seat) for seat in (first, second, third)] == [False, True, True]
    borrowing.use(second.queue, -4)
    assert not borrowing.borrows(third)
    assert borrowing.own(a_holder(3, "a", 1)) == 0
    borrowing.use(third.queue, -2)
    assert borrowing.own(a_holder(3, "a", 1)) == 2
    assert borrowing.own(a_holder(4, "without-quota", 1)) == 0


class Wish(NamedTuple):
    """A job to submit."""

    queue: str
    size: int
    guaranteed: bool
    priority: int
    rigid: bool


WISHES = st.lists(
    st.builds(
        Wish,
        queue=st.sampled_from("abc"),
        size=st.sampled_from([1, 2, 4]),
        guaranteed=st.booleans(),
        priority=st.integers(0, 2),
        rigid=st.booleans(),
    ),
    max_size=10,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    quotas=st.lists(st.integers(0, 5), min_size=3, max_size=3),
    borrowing=st.lists(st.sampled_from([0, 2, 8, None]), min_size=3, max_size=3),
    wishes=WISHES,
)
def test_in_the_end_nobody_lacks_what_others_borrow(
    quotas: list[int], borrowing: list[int | None], wishes: list[Wish]
) -> None:
    built = world(4, 4)
    for name, quota, more in zip("abc", quotas, borrowing, strict=True):
        built.with_queue(name, quota, more)
    for i, wish in enumerate(wishes):
        job = a_known_job(f"j{i}", wish.size, 100_000, wish.size, guaranteed=wish.guaranteed)
        job = job.wanting(wish.size if wish.rigid else 1, wish.size)
        built.submit(job.in_queue(wish.queue).with_priority(wish.priority))
        built.settle().passes(20)
    for _ in range(4):
        built.passes(30).settle(30)
    held = Counter[str]()
    for i, wish in enumerate(wishes):
        held[wish.queue] += built.held(f"j{i}")
    own = dict(zip("abc", quotas, strict=True))
    limits = {
        name: quota + more
        for (name, quota), more in zip(own.items(), borrowing, strict=True)
        if more is not None
    }
    assert all(held[name] <= limit for name, limit in limits.items())
    borrow = {name for name in own if held[name] > own[name]}
    # One accelerator of what others borrow is always one that it could have.
    small = [i for i, wish in enumerate(wishes) if wish.size == 1 and not built.held(f"j{i}")]
    for i in small:
        queue = wishes[i].queue
        assert held[queue] >= own[queue] or not borrow - {queue}, (held, own, i)
