"""Stories for property tests: clusters, jobs, and what happens to them."""

from hypothesis import strategies as st

from controlplane.domain.lifecycle import FINISHED, Stage
from controlplane.domain.reason import ReasonCode
from headrace.api.plan import ExecutionPlan
from tests.builders import JobBuilder, World, a_job

NODES = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.sampled_from("xxy"),
        st.sampled_from([0, 24, 40, 80]),
        st.sampled_from([0, 3, 64]),
    ),
    min_size=1,
    max_size=4,
)
"""Accelerators, their type, their memory and their share of the host's; 0 for unknown."""

PLANS = ("dp1", "dp2", "dp2-z3", "dp4-z2", "tp2", "tp3", "tp4", "dp2-tp2", "pp2.1f1b-ga4", "dp6")


@st.composite
def jobs(draw: st.DrawFn) -> JobBuilder:
    least = draw(st.sampled_from([1, 1, 2, 3]))
    job = a_job().wanting(least, least + draw(st.integers(0, 5)))
    job = job.with_batch(draw(st.sampled_from([0, 12, 60])))
    if draw(st.integers(0, 2)) == 0:
        plans = draw(st.lists(st.sampled_from(PLANS), min_size=1, max_size=5, unique=True))
        ranks = [ExecutionPlan.parse(plan).ranks for plan in plans]
        job = job.wanting(min(ranks), max(ranks)).with_batch(12).under(*plans)
    elif draw(st.integers(0, 6)) == 0:
        job = job.wanting(least).running_a_command()
    if job.job.spec.global_batch_size and draw(st.booleans()):
        # For 12 samples dp1 takes 49 GiB, dp2 40, dp2-z3 27, dp4-z2 18; each rank 4 of the host.
        job = job.of_model("gpt2-1.26b", length=1024)
    if draw(st.booleans()):
        job = job.on_one_node() if draw(st.integers(0, 2)) else job.in_one_rack()
    if draw(st.integers(0, 2)) == 0:
        job = job.of_type(draw(st.sampled_from("xy")))
    if draw(st.integers(0, 2)) == 0:
        job = job.in_queue("narrow")
    return job.with_priority(draw(st.sampled_from([-1, 0, 0, 1])))


HAPPENINGS = st.lists(
    st.tuples(
        st.sampled_from(
            ["submit", "submit", "submit", "finish", "fail", "drain", "quota", "pause"]
        ),
        jobs(),
        st.integers(0, 100),
    ),
    min_size=2,
    max_size=14,
)


def happens(world: World, what: str, job: JobBuilder, luck: int) -> None:
    """One of the things that change who should hold what."""
    live = [uid for uid, r in world.state.jobs.items() if r.stage not in FINISHED]
    running = [uid for uid in live if world.stage(uid) is Stage.RUNNING]
    if what == "submit":
        name = f"j{len(world.state.jobs)}"
        spec = job.job.spec
        world.submit(JobBuilder(a_job(name).job)._spec(**{n: getattr(spec, n) for n in _NAMES}))
    elif what == "drain":
        names = list(world.state.nodes)
        world.drain(names[luck % len(names)], drained=luck % 2 == 0)
    elif what == "quota":
        world.with_queue("narrow", luck % 6)
    elif what == "pause" and live:
        known = JobBuilder(world.job(live[luck % len(live)]).job)
        world.update(known.suspended(not known.job.spec.suspend))
    elif what == "finish" and running:
        world.exits(running[luck % len(running)])
    elif what == "fail" and running:
        code = [ReasonCode.RANK_FAILED, ReasonCode.RAY_LOST][luck % 2]
        world.fails(running[luck % len(running)], code)


_NAMES = tuple(a_job().job.spec.__dataclass_fields__)
