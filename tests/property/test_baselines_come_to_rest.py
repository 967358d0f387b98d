"""A policy asked again about its own result changes nothing: no job is moved to and fro."""

import pytest
from hypothesis import given

from controlplane.baselines import BASELINES
from tests.builders import JobBuilder, a_cluster, a_node
from tests.property.lives import worlds
from tests.property.stories import HAPPENINGS, NODES, happens


# Passing takes seconds; a failure is first made smaller, which takes minutes and is worth it.
@pytest.mark.timeout(600)
@pytest.mark.parametrize("policy", sorted(BASELINES))
@worlds(few=100)
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
