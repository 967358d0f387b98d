"""Whatever happened since it was found, and whatever it says: a proposal breaks no invariant and
never makes a round worse.
"""

from dataclasses import replace

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from controlplane.domain.event import ProposalFound
from controlplane.domain.ids import JobUid, NodeId
from controlplane.domain.proposal import Proposal, ProposedTarget, Verdict
from controlplane.engine.cycle import run_cycle
from controlplane.rubick.policy import Rubick
from controlplane.rubick.settings import RubickSettings
from headrace.api.plan import ExecutionPlan
from tests.builders import JobBuilder, World, a_cluster, a_node
from tests.property.lives import worlds
from tests.property.stories import happens
from tests.rubick.worlds import Scaling, a_known_job

KNOBS = RubickSettings(
    switch_seconds=10.0,
    cool_down_seconds=30.0,
    starving_seconds=3000.0,
    search_beside_nodes=50,
    search_beside_gain=0.0,
)

KIND = "gpu"
ANY_NODES = st.lists(
    st.tuples(st.sampled_from([1, 3, 4, 6, 8]), st.sampled_from([KIND, KIND, KIND, "x"])),
    min_size=1,
    max_size=4,
)
TIMES = Scaling(faster=(("x", 1.5),))


@st.composite
def known_jobs(draw: st.DrawFn) -> JobBuilder:
    """Elastic jobs of very different lengths; few are promised anything or come first."""
    luck = draw(st.integers(0, 15))
    job = a_known_job(
        "job",
        most=draw(st.sampled_from([2, 4, 8, 16])),
        steps=draw(st.sampled_from([300, 1000, 5000, 20_000, 100_000])),
        guaranteed=luck == 0,
    )
    job = job.in_queue("narrow") if luck in (1, 2, 3) else job
    job = job.of_type(KIND) if luck in (4, 5) else job
    return job.with_priority(1) if luck == 6 else job


STORY = st.lists(
    st.tuples(
        st.sampled_from(["submit"] * 6 + ["finish", "fail", "drain", "quota", "pause"]),
        known_jobs(),
        st.integers(0, 100),
    ),
    min_size=2,
    max_size=6,
)


def checked(world: World, policy: Rubick) -> Verdict | None:
    """What became of the proposal; the round with it is sound, and worth no less than without."""
    snapshot = world.state.snapshot(world.now)
    alone, decision = policy(replace(snapshot, proposal=None)), policy(snapshot)
    assert list(policy.violations(snapshot, decision)) == []
    assert policy(snapshot) == decision, "the same snapshot is decided equally"
    outcome = run_cycle(world.state, world.now, world.policies, world.term)
    assert outcome.refused == ()
    assert alone.optimality is not None
    assert decision.optimality is not None
    assert decision.optimality.value >= alone.optimality.value - 1e-9
    assert decision.optimality.value <= decision.optimality.bound + 1e-6
    use = decision.proposal
    if use is None or use.verdict is not Verdict.TAKEN:
        assert decision.targets == alone.targets
        assert decision.reasons == alone.reasons
    else:
        assert decision.optimality.value > alone.optimality.value
        assert use.jobs
        assert use.gained > 0
    for target in snapshot.proposal.targets[:1] if snapshot.proposal is not None else ():
        assert all(policy.explanation(snapshot, target.uid))
    return use.verdict if use is not None else None


def begun(policy: Rubick, nodes: list[tuple[int, str]], jobs: list[JobBuilder]) -> World:
    """The jobs run, or wait, and those that run may be changed."""
    world = a_cluster().under(policy).with_queue("narrow", quota=6)
    for i, (count, kind) in enumerate(nodes):
        world.with_node(a_node(f"n{i}", count, kind, cores_each=2))
    for job in jobs:
        happens(world, "submit", job, 0)
    return world.settle(40).passes(KNOBS.cool_down_seconds + 1)


@pytest.mark.timeout(600)
@worlds(few=100)
@given(
    attempts=st.sampled_from([0, 400]),
    borrowing=st.sampled_from([0, 0, 0, 2]),
    nodes=ANY_NODES,
    jobs=st.lists(known_jobs(), min_size=3, max_size=7),
    story=STORY,
)
def test_a_proposal_of_an_older_state_is_checked_against_the_one_that_it_meets(
    attempts: int,
    borrowing: int,
    nodes: list[tuple[int, str]],
    jobs: list[JobBuilder],
    story: list[tuple[str, JobBuilder, int]],
) -> None:
    policy = Rubick(lambda _: TIMES, replace(KNOBS, attempts=attempts))
    world = begun(policy, nodes, jobs)
    for what, job, luck in story:
        snapshot = world.state.snapshot(world.now)
        found = policy.apart().search(snapshot, world.state.last_sequence, lambda: False)
        # It comes at once, or after something else happened; or that has been decided about too.
        if luck % 4:
            happens(world, what, job, luck)
        if luck % 4 == 3:
            world.passes(luck / 10).settle(40)
        if found is not None:
            world.tell(ProposalFound(found))
        event(f"the proposal of a search: {checked(world, policy)}")
        if borrowing and luck > 90:
            world.with_queue("narrow", quota=6, borrowing=borrowing)
        world.settle(40).passes(KNOBS.cool_down_seconds + luck)
        checked(world, policy)
    for _ in range(6):
        world.passes(KNOBS.cool_down_seconds + 400).settle(40)
    assert world.cycle().decided.actions == ()


PARTS = st.lists(
    st.tuples(
        st.sampled_from([NodeId(f"n{i}") for i in range(5)]), st.sampled_from([1, 1, 2, 3, 4, 8])
    ),
    max_size=3,
).map(tuple)


@st.composite
def targets(draw: st.DrawFn) -> ProposedTarget:
    """Mostly something that the job might have somewhere."""
    uid = JobUid(f"j{draw(st.integers(0, 8))}")
    parts = draw(PARTS)
    if not parts:
        return ProposedTarget(uid)
    ranks = sum(count for _, count in parts)
    plan = draw(st.sampled_from([ExecutionPlan(data_parallel=ranks)] * 6 + [None]))
    kind = draw(st.sampled_from([KIND] * 6 + ["x", "moon"]))
    return ProposedTarget(uid, kind, plan, parts)


@pytest.mark.timeout(600)
@worlds(few=100)
@given(
    nodes=ANY_NODES,
    jobs=st.lists(known_jobs(), min_size=3, max_size=7),
    story=STORY,
    said=st.lists(st.lists(targets(), min_size=1, max_size=5).map(tuple), min_size=1, max_size=4),
)
def test_whatever_a_proposal_says_no_round_gets_worse(
    nodes: list[tuple[int, str]],
    jobs: list[JobBuilder],
    story: list[tuple[str, JobBuilder, int]],
    said: list[tuple[ProposedTarget, ...]],
) -> None:
    policy = Rubick(lambda _: TIMES, replace(KNOBS, attempts=0))
    world = begun(policy, nodes, jobs)
    for turn, (what, job, luck) in enumerate(story):
        happens(world, what, job, luck)
        proposed = said[turn % len(said)]
        made = Proposal(world.state.last_sequence, world.now, 2.0, 1.0, 3.0, 1, proposed)
        world.tell(ProposalFound(made))
        event(f"any proposal: {checked(world, policy)}")
        world.settle(40).passes(KNOBS.cool_down_seconds + luck)
