"""Whatever happens, Rubick decides what can be carried out and keeps what it promises.

The rules are those that run in production (``rubick.invariants``, ``engine.invariants``): every
cycle of these worlds checks them.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.job import Topology
from controlplane.domain.lifecycle import FINISHED, Stage
from controlplane.domain.record import Intent
from controlplane.rubick.freedom import Freedom
from controlplane.rubick.policy import Rubick
from controlplane.rubick.settings import RubickSettings
from tests.builders import JobBuilder, World, a_cluster, a_node
from tests.property.lives import worlds
from tests.property.stories import happens
from tests.property.test_measured_baselines import stories
from tests.step_tables import A800, KIND

COOL_DOWN_SECONDS = 30.0
KNOBS = RubickSettings(
    switch_seconds=10.0, cool_down_seconds=COOL_DOWN_SECONDS, starving_seconds=60.0
)
Nodes = list[tuple[int, str, str, tuple[str, ...], int, str, int]]
"""Accelerators, their type, a zone, taints, memory, the rack, and the size of an island."""

Story = list[tuple[str, JobBuilder, int]]

A_NODE = st.tuples(
    st.sampled_from([1, 4, 8, 8]),
    st.sampled_from([KIND, KIND, "x"]),
    st.sampled_from("ab"),
    st.sampled_from([(), (), ("special",)]),
    st.sampled_from([0, 24, 80]),
    st.sampled_from(["", "r0", "r0", "r1"]),
    st.sampled_from([0, 2, 4, 8]),
)


def checked(world: World, policy: Rubick, luck: int) -> None:
    """What no single cycle can show. One job's explanation is looked at, which takes a decision."""
    snapshot = world.state.snapshot(world.now)
    decision = policy(snapshot)
    assert list(policy.violations(snapshot, decision)) == []
    assert policy(snapshot) == decision, "the same snapshot is decided equally"
    assert decision.optimality is not None
    assert decision.optimality.value <= decision.optimality.bound + 1e-6
    for uid, target in decision.targets.items():
        if snapshot.jobs[uid].job.spec.accelerators.topology is Topology.SAME_RACK:
            racks = {snapshot.racks.get(node, node) for node in target.nodes}
            assert len(racks) == 1, f"{uid} is in {racks}"
    for uid, record in snapshot.jobs.items():
        waits = record.stage is Stage.BACKING_OFF and snapshot.at < record.backoff_until
        out = record.stage in FINISHED or record.stage is Stage.SUSPENDED or record.withdrawn
        if not (waits or out or record.job.spec.suspend):
            assert uid in decision.reasons, f"{uid} is told why"
    if snapshot.jobs:
        assert all(policy.explanation(snapshot, list(snapshot.jobs)[luck % len(snapshot.jobs)]))


def played(freedom: Freedom, nodes: Nodes, story: Story, nights: int) -> None:
    """Tells the story, checks each part of it, and that all comes to rest after some nights."""
    policy = Rubick(lambda _: A800, KNOBS, freedom)
    world = a_cluster().under(policy).with_queue("narrow", quota=6)
    for i, (count, kind, zone, taints, gib, rack, island_of) in enumerate(nodes):
        world.with_node(
            a_node(
                f"n{i}",
                count,
                kind,
                labels={"zone": zone},
                taints=taints,
                cores_each=2,
                gib=gib,
                rack=rack,
                island_of=island_of,
            )
        )
    for what, plain, luck in story:
        job = plain.selecting(zone="ab"[luck % 2]) if luck % 5 == 0 else plain
        job = job.in_one_rack() if luck % 4 == 1 else job
        job = job.tolerating("special") if luck % 7 == 0 else job
        job = job.of_model("gpt2-1.26b", length=1024) if luck % 11 == 0 else job
        happens(world, what, job, luck)
        if luck % 3:
            world.passes(float(luck)).settle(40)
        else:
            world.cycle()
        checked(world, policy, luck)
    for _ in range(nights):
        world.passes(COOL_DOWN_SECONDS + 400).settle(40)
    assert world.cycle().decided.actions == ()
    for record in world.state.jobs.values():
        assert record.attempt is None or record.attempt.intent is Intent.RUN


@pytest.mark.timeout(600)
@pytest.mark.parametrize("freedom", [Freedom.EVERYTHING, Freedom.ACCELERATORS])
@worlds(few=60)
@given(nodes=st.lists(A_NODE, min_size=1, max_size=7), story=stories(most=12))
def test_whatever_happens_promises_are_kept_and_it_comes_to_rest(
    freedom: Freedom, nodes: Nodes, story: Story
) -> None:
    played(freedom, nodes, story, nights=6)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("freedom", [Freedom.EVERYTHING, Freedom.ACCELERATORS])
@worlds(few=900)
@given(nodes=st.lists(A_NODE, min_size=1, max_size=3), story=stories(most=4))
def test_so_it_is_in_a_thousand_small_worlds(freedom: Freedom, nodes: Nodes, story: Story) -> None:
    played(freedom, nodes, story, nights=4)
