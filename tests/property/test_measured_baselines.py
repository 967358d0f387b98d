"""Whatever happens, policies that choose by step times decide what can be carried out: within nodes
and quotas, whole gangs, a reason for everybody; and those that must not change a plan do not.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.baselines import baselines
from controlplane.baselines.fifo import Fifo
from controlplane.baselines.layouts import requested
from controlplane.baselines.sia import Sia
from controlplane.domain.lifecycle import FINISHED, Stage
from controlplane.domain.policy import Policy
from controlplane.domain.record import Intent
from controlplane.placing.layout import family
from tests.builders import JobBuilder, World, a_cluster, a_node
from tests.property.lives import worlds
from tests.property.stories import happens, jobs
from tests.step_tables import A800, KIND, a_measured_job

POLICIES: dict[str, Policy] = {
    **baselines(A800, 78.0),
    "fifo": Fifo(A800),
    "fifo-skip": Fifo(A800, skip=True),
    "sia-in-every-cycle": Sia(A800, round_seconds=0),
}
FIXED = ("synergy", "antman")
"""These give just what is asked for; and so do the others, to who names a number."""

ASKED = [
    (model, str(plan))
    for model in ("vit", "bert", "t5", "gpt2", "llama7", "llama30")
    for plan in A800.plans(model)
]


@st.composite
def any_job(draw: st.DrawFn) -> JobBuilder:
    """One that was measured, mostly; else any other."""
    if draw(st.integers(0, 3)) == 0:
        return draw(jobs())
    job = a_measured_job("job", *draw(st.sampled_from(ASKED)))
    if draw(st.booleans()):
        job = job.guaranteed()
    return job.in_queue("narrow") if draw(st.integers(0, 3)) == 0 else job


def stories(most: int) -> st.SearchStrategy[list[tuple[str, JobBuilder, int]]]:
    """At most so many things that happen, each about a job."""
    what = st.sampled_from(["submit"] * 4 + ["finish", "fail", "drain", "quota", "pause"])
    return st.lists(st.tuples(what, any_job(), st.integers(0, 100)), min_size=2, max_size=most)


def everybody_has_a_reason_and_a_sound_place(world: World, policy: str) -> None:
    snapshot = world.state.snapshot(world.now)
    decision = POLICIES[policy](snapshot)
    slots = [slot for target in decision.targets.values() for slot in target.slots()]
    assert len(slots) == len(set(slots)), "an accelerator has one holder"
    for uid, record in snapshot.jobs.items():
        waits = record.stage is Stage.BACKING_OFF and snapshot.at < record.backoff_until
        out = record.stage in FINISHED or record.stage is Stage.SUSPENDED or record.withdrawn
        if not (waits or out or record.job.spec.suspend):
            assert uid in decision.reasons, f"{uid} is told why"
        target, asked = decision.targets.get(uid), requested(record.job.spec)
        if target is None or record.job.generation > 1 or record.out_of_memory:
            continue
        assert asked is not None
        assert target.plan.ranks == target.accelerator_count, "a gang is whole"
        by_request = policy.startswith("fifo") and record.job.spec.accelerators.requested
        if policy in FIXED or by_request:
            assert target.accelerator_count == asked[0]
        if record.job.spec.requested_plan is not None:
            assert family(target.plan) == family(asked[1]), "the plan is the job's own"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("policy", sorted(POLICIES))
@worlds(few=25)
@given(
    nodes=st.lists(
        st.tuples(st.sampled_from([1, 4, 8, 8]), st.sampled_from([KIND, KIND, "x"])),
        min_size=1,
        max_size=7,
    ),
    story=stories(most=12),
)
def test_whatever_happens_decisions_can_be_carried_out(
    policy: str, nodes: list[tuple[int, str]], story: list[tuple[str, JobBuilder, int]]
) -> None:
    world = a_cluster().under(POLICIES[policy]).with_queue("narrow", quota=6)
    for i, (count, kind) in enumerate(nodes):
        rack = ("", "r0", "r0", "r1")[i % 4]
        world.with_node(a_node(f"n{i}", count, kind, cores_each=2, rack=rack, island_of=4))
    for what, plain, luck in story:
        job = plain.in_one_rack() if luck % 4 == 1 else plain
        happens(world, what, job, luck)
        if luck % 3:
            world.passes(10).settle(40)
        else:
            world.cycle()
        everybody_has_a_reason_and_a_sound_place(world, policy)
    world.passes(400).settle(40)
    assert world.cycle().changes_nothing
    for record in world.state.jobs.values():
        assert record.attempt is None or record.attempt.intent is Intent.RUN
