"""What watchers of the state are told."""

import pytest

from controlplane.domain.ids import JobUid
from controlplane.edges.grpc_server import feed as feed_module
from controlplane.edges.grpc_server.feed import StateFeed
from tests.builders import a_cluster, a_job


def test_all_jobs_that_went_at_once_are_told_however_few_are_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feed_module, "_GONE_KEPT", 2)
    world = a_cluster().submit(*map(a_job, "abcd"))
    feed = StateFeed(world.state, lambda: 0)
    before = feed.version
    watcher = feed.watch()
    for name in "abc":
        world.withdraw(name)
    world.cycle()
    feed.publish(world.state)
    changed, gone = watcher.take()
    assert [job.uid for job in gone] == ["a", "b", "c"]
    assert changed == [JobUid("d")]
    assert feed.since(before) is None
