"""Readers are told reasons as they are now, although what passes with every start is not logged."""

from controlplane.domain.clock import SECOND
from controlplane.domain.ids import JobUid
from controlplane.edges.grpc_server.feed import HOLDERS_TOLD_SECONDS, StateFeed
from tests.builders import World, a_cluster, a_job


def published(feed: StateFeed, world: World) -> None:
    """A cycle, and its publication."""
    outcome = world.cycle()
    feed.publish(world.state, said=outcome.said)


def test_who_asks_is_told_who_holds_it_now_and_the_log_is_not() -> None:
    world = a_cluster("fifo").with_nodes(1, 2)
    feed = StateFeed(world.state, lambda: 0)
    world.submit(*(a_job(f"j{i}").wanting(2) for i in range(4)))
    published(feed, world)
    world.runs("j0").exits("j0")
    published(feed, world)
    logged = world.job("j3")
    assert logged.reason is not None
    assert (logged.reason.holders, logged.reason.behind) == (("j0",), "j1")
    told = feed.as_of_now(logged).reason
    assert told is not None
    assert (told.holders, told.behind) == (("j1",), "j2")
    assert "default/j2" in told.message


def test_nothing_is_told_that_the_log_does_not_say() -> None:
    world = a_cluster("fifo").with_nodes(1, 2)
    feed = StateFeed(world.state, lambda: 0)
    world.submit(a_job("a").wanting(2), a_job("b").wanting(2), a_job("c").wanting(2))
    published(feed, world)
    world.runs("a").exits("a")
    said = world.cycle().said
    b, c = JobUid("b"), JobUid("c")
    feed.publish(world.state, said={b: said[c], c: said[b]})
    assert feed.as_of_now(world.job("b")) is world.job("b"), "it has started"
    assert feed.as_of_now(world.job("c")) is world.job("c"), "another code is news"


def test_a_cycle_that_asked_no_policy_takes_nothing_back_and_a_new_reign_all() -> None:
    world = a_cluster("fifo").with_nodes(1, 1)
    feed = StateFeed(world.state, lambda: 0)
    world.submit(*(a_job(f"j{i}") for i in range(4)))
    published(feed, world)
    world.runs("j0").exits("j0")
    published(feed, world)
    feed.publish(world.state)
    assert feed.as_of_now(world.job("j3")) is not world.job("j3")
    feed.replace(world.state)
    assert feed.as_of_now(world.job("j3")) is world.job("j3")


def test_whoever_watches_is_told_of_other_holders_too_but_not_all_the_time() -> None:
    now = [0]
    world = a_cluster("fifo").with_nodes(1, 2)
    feed = StateFeed(world.state, lambda: now[0] * SECOND)
    world.submit(*(a_job(f"j{i}").wanting(2) for i in range(7)))
    published(feed, world)
    watcher = feed.watch()

    def told(done: str) -> list[JobUid]:
        world.runs(done).exits(done)
        published(feed, world)
        return watcher.take()[0]

    assert "j6" not in told("j0"), "it waits as before, and was told so a moment ago"
    now[0] = HOLDERS_TOLD_SECONDS
    before = feed.version
    assert "j6" in told("j1")
    changed = feed.since(before + 1)
    assert changed is not None
    assert "j6" in changed[0], "also to who watches on from there"
    assert "j6" not in told("j2")


def test_another_cause_is_news_although_the_same_job_comes_first() -> None:
    world = a_cluster("fifo").with_nodes(1, 4).with_queue("q", quota=2)
    world.submit(a_job("h").in_queue("q").wanting(2)).settle()
    world.submit(*(a_job(name).in_queue("q").wanting(2) for name in "ab"))
    world.cycle()
    of_quota = world.job("b").reason
    assert of_quota is not None
    assert "quota" in of_quota.message
    world.submit(a_job("big").wanting(2)).settle()
    world.with_queue("q", quota=8).cycle()
    of_accelerators = world.job("b").reason
    assert of_accelerators is not None
    assert "quota" not in of_accelerators.message
