"""A policy asked again about its own result changes nothing: no job is moved to and fro."""

import os

import pytest
from hypothesis import HealthCheck, given, settings

from controlplane.baselines import BASELINES
from tests.builders import JobBuilder, a_cluster, a_node
from tests.property.stories import HAPPENINGS, NODES, happens

# A few that are always the same, or as many others as `make lives` asks for.
_MORE_LIVES = os.environ.get("HEADRACE_LIVES")
WORLDS = settings(
    max_examples=int(_MORE_LIVES or 100),
    deadline=None,
    derandomize=not _MORE_LIVES,
    suppress_health_check=list(HealthCheck),
)


# Passing takes seconds; a failure is first made smaller, which takes minutes and is worth it.
@pytest.mark.timeout(600)
@pytest.mark.parametrize("policy", sorted(BASELINES))
@WORLDS
@given(nodes=NODES, story=HAPPENINGS)
def test_after_any_story_the_cluster_comes_to_rest(
    policy: str,
    nodes: list[tuple[int, str, int, int]],
    story: list[tuple[str, JobBuilder, int]],
) -> None:
    world = a_cluster(policy).with_queue("narrow", quota=3)
    for i, (count, kind, gib, host) in enumerate(nodes):
        world.with_node(a_node(f"n{i}", count, kind, gib=gib, host_gib_each=host))
    for what, job, luck in story:
        happens(world, what, job, luck)
        if luck % 3:
            world.passes(10).settle(30)
        else:
            world.cycle()
    world.passes(400).settle(40)
    assert world.passes(5).cycle().changes_nothing
    assert world.replayed() == world.state
