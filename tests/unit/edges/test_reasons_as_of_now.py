"""Readers are told reasons as they are now, although what passes with every start is not logged."""

from controlplane.domain.ids import JobUid
from controlplane.edges.grpc_server.feed import StateFeed
from tests.builders import World, a_cluster, a_job


def published(feed: StateFeed, world: World) -> None:
    """A cycle, and its publication."""
    outcome = world.cycle()
    feed.publish(world.state, said=outcome.said)


def test_who_asks_is_told_who_holds_it_now_and_the_log_is_not() -> None:
    world = a_cluster("fifo").with_nodes(1, 2)
    feed = StateFeed(world.state)
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
    feed = StateFeed(world.state)
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
    feed = StateFeed(world.state)
    world.submit(*(a_job(f"j{i}") for i in range(4)))
    published(feed, world)
    world.runs("j0").exits("j0")
    published(feed, world)
    feed.publish(world.state)
    assert feed.as_of_now(world.job("j3")) is not world.job("j3")
    feed.replace(world.state)
    assert feed.as_of_now(world.job("j3")) is world.job("j3")
