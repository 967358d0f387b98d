"""A start and a change cost one switch time, by whichever way, with accelerators held meanwhile."""

from dataclasses import replace

import pytest

from controlplane.domain.clock import SECOND, seconds
from controlplane.domain.ids import AcceleratorId, JobUid, NodeId
from controlplane.domain.lifecycle import Stage
from controlplane.domain.placement import LaunchUnit, Placement
from controlplane.domain.policy import Decision, Policy
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.snapshot import ClusterSnapshot
from controlplane.domain.switch import SwitchKind
from headrace.api.plan import ExecutionPlan
from simulator.measured_table import MeasuredRow, MeasuredTable
from simulator.results.allocation_log import Happened, Row
from simulator.results.job_outcomes import job_outcomes
from simulator.run import Result, simulate_to_the_end
from simulator.scenario import Faults, Scenario
from simulator.workloads.trace_jobs import Cluster, TraceJob, scenario_of

# A step takes 1 s on 2 accelerators, 0.75 s under the other plan there, 0.5 s on 4.
TABLE = MeasuredTable(
    [
        MeasuredRow("bert", ExecutionPlan.parse(plan), (ranks,), taken)
        for plan, ranks, taken in (
            ("dp2", 2, 1.0),
            ("dp2-z2", 2, 0.75),
            ("dp4", 4, 0.5),
        )
    ]
)
STEPS = 2000
CHANGE_AT = 600.0


def one_job(switch_seconds: float, plan: str = "dp2", **faults: float) -> Scenario:
    asked = ExecutionPlan.parse(plan)
    job = TraceJob("a", 0.0, "bert", asked.ranks, asked, STEPS)
    return scenario_of(
        [job],
        TABLE,
        cluster=Cluster(2),
        switch_seconds=switch_seconds,
        faults=Faults.model_validate(faults),
    )


def on(plan: str, node: str, first: int = 0) -> Placement:
    ranks = ExecutionPlan.parse(plan).ranks
    units = tuple(
        LaunchUnit(i, NodeId(node), (AcceleratorId(f"{node}-{first + i}"),), i)
        for i in range(ranks)
    )
    return Placement(ExecutionPlan.parse(plan), units)


def first_then(before: Placement, after: Placement, at: float = CHANGE_AT) -> Policy:
    """A policy that wants the job at ``before``, and from a moment on at ``after``."""

    def decide(snapshot: ClusterSnapshot) -> Decision:
        target = after if snapshot.at >= seconds(at) else before
        uid = JobUid("a")
        if uid not in snapshot.jobs or snapshot.jobs[uid].finished_at is not None:
            return Decision({}, {})
        return Decision({uid: target}, {uid: Reason(ReasonCode.RUNNING)})

    return decide


CHANGES = {
    "another plan in place": (on("dp2", "node-0"), on("dp2-z2", "node-0"), SwitchKind.MEMORY),
    "ranks join": (on("dp2", "node-0"), on("dp4", "node-0"), SwitchKind.MEMORY),
    "ranks leave": (on("dp4", "node-0"), on("dp2", "node-0"), SwitchKind.MEMORY),
    "another node": (on("dp2", "node-0"), on("dp2-z2", "node-1"), SwitchKind.RESTART),
    "other accelerators": (on("dp4", "node-0"), on("dp2", "node-0", 1), SwitchKind.RESTART),
}


def played(scenario: Scenario, policy: Policy) -> Result:
    # It decides every second, so that a change comes when the test says.
    return simulate_to_the_end(scenario, policy, name="tried", period_seconds=1.0)


def seconds_of(result: Result) -> float:
    record = result.jobs[JobUid("a")]
    assert (record.stage, record.progress.step) == (Stage.SUCCEEDED, STEPS)
    assert record.finished_at is not None
    return record.finished_at / SECOND


def step_seconds(placement: Placement) -> float:
    way = next(w for w in TABLE.every_way("bert") if w.plan == placement.plan)
    return way.seconds


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("switch", [0.0, 3.0, 78.0, 260.0])
def test_a_change_costs_one_switch_and_no_step(change: str, switch: float) -> None:
    before, after, kind = CHANGES[change]
    scenario = one_job(switch, str(before.plan))
    result = played(scenario, first_then(before, after))
    assert result.refused == ()
    trained = CHANGE_AT - switch
    left = STEPS - trained / step_seconds(before)
    expected = CHANGE_AT + switch + left * step_seconds(after)
    assert seconds_of(result) == pytest.approx(expected, abs=1e-6)
    (told,) = result.jobs[JobUid("a")].switches
    assert told.kind is kind
    assert told.stood_still_seconds == pytest.approx(switch, abs=1.0)
    (job,) = job_outcomes(scenario, result.jobs, result.rows, result.ended_at)
    assert (job.reconfigurations, job.recoveries) == (1, 0)
    # All that it holds afterwards stands still, and what it leaves is free at once.
    assert job.starting == pytest.approx(switch * before.accelerator_count)
    assert job.switching == pytest.approx(switch * after.accelerator_count)


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_job_leaves_is_free_at_once(change: str) -> None:
    before, after, _ = CHANGES[change]
    scenario = one_job(78.0, str(before.plan))
    result = played(scenario, first_then(before, after))
    at_change = [row for row in result.rows if row.job and row.at / SECOND == CHANGE_AT]
    assert at_change[-1].accelerators == after.accelerator_count
    assert at_change[-1].steps_per_second == 0
    trains = [row for row in result.rows if row.event is Happened.TRAINS]
    assert [row.at / SECOND for row in trains] == [78.0, CHANGE_AT + 78.0]


def test_the_first_start_costs_a_switch_too() -> None:
    result = simulate_to_the_end(
        one_job(78.0), first_then(on("dp2", "node-0"), on("dp2", "node-0")), name="tried"
    )
    assert seconds_of(result) == pytest.approx(78.0 + STEPS)
    told = [(row.event, row.at / SECOND) for row in result.rows if row.job]
    assert told == [
        (Happened.SUBMITTED, 0.0),
        (Happened.STARTED, 0.0),
        (Happened.TRAINS, 78.0),
        (Happened.FINISHED, 78.0 + STEPS),
    ]


def test_stragglers_and_noise_change_step_times_as_the_seed_says() -> None:
    def taken(seed: int, **faults: float) -> float:
        scenario = replace(one_job(0.0, "dp2", **faults), seed=seed)
        stays = first_then(on("dp2", "node-0"), on("dp2", "node-0"))
        return seconds_of(simulate_to_the_end(scenario, stays, name="tried"))

    assert taken(1, stragglerShare=1.0, stragglerFactor=3.0) == pytest.approx(3 * STEPS)
    noisy = taken(1, stepNoise=0.1)
    assert 0.9 * STEPS <= noisy <= 1.1 * STEPS
    assert noisy != STEPS
    assert noisy == taken(1, stepNoise=0.1)
    assert noisy != taken(2, stepNoise=0.1)


def test_a_run_that_fails_starts_again_from_its_last_checkpoint() -> None:
    scenario = one_job(10.0, runFailuresPerDay=86_400 / 300)
    stays = first_then(on("dp2", "node-0"), on("dp2", "node-0"))
    result = simulate_to_the_end(scenario, stays, name="tried")
    record = result.jobs[JobUid("a")]
    (job,) = job_outcomes(scenario, result.jobs, result.rows, result.ended_at)
    assert job.recoveries == record.attempts_made - 1 > 0
    assert job.reconfigurations == 0
    # A checkpoint was made every 100 steps, so each failure lost fewer than that.
    lost = job.training / 2 - STEPS
    assert 0 < lost < 100 * job.recoveries
    assert job.switching == pytest.approx(10.0 * 2 * job.recoveries)


def test_a_place_that_was_not_measured_ends_the_run_with_a_sentence() -> None:
    apart = replace(
        on("dp2", "node-0"), units=(on("dp2", "node-0").units[0], on("dp2", "node-1").units[1])
    )
    with pytest.raises(ValueError, match=r"trace/a \(bert\) was placed as dp2 on 1\+1 nvidia-a800"):
        simulate_to_the_end(one_job(78.0), first_then(apart, apart), name="tried")


def test_a_policy_that_never_starts_a_job_is_told_of_it() -> None:
    def idle(snapshot: ClusterSnapshot) -> Decision:
        return Decision({}, {})

    with pytest.raises(RuntimeError, match="1 jobs have not ended: a; the policy never starts"):
        simulate_to_the_end(one_job(78.0), idle, name="idle", period_seconds=3600.0)


def held_at(rows: tuple[Row, ...], at: float) -> int:
    held = 0
    for row in rows:
        if row.job and row.at <= seconds(at):
            held = row.accelerators
    return held


def test_accelerators_are_held_while_a_job_starts_and_changes() -> None:
    before, after, _ = CHANGES["ranks join"]
    result = played(one_job(78.0), first_then(before, after))
    assert [held_at(result.rows, at) for at in (0, 77, 599, 600, 677, 679)] == [2, 2, 2, 4, 4, 4]


@pytest.mark.parametrize("first", [0, 2], ids=["in memory", "by a restart"])
def test_who_waits_gets_what_another_leaves_at_once(first: int) -> None:
    plan = ExecutionPlan.parse("dp2")
    jobs = [
        TraceJob("a", 0.0, "bert", 4, ExecutionPlan.parse("dp4"), STEPS),
        TraceJob("b", 0.0, "bert", 2, plan, STEPS),
    ]
    a, b = JobUid("a"), JobUid("b")

    def decide(snapshot: ClusterSnapshot) -> Decision:
        wanted = {a: on("dp4", "node-0")}
        if snapshot.at >= seconds(CHANGE_AT):
            wanted = {a: on("dp2", "node-0", first), b: on("dp2", "node-0", 2 - first)}
        alive = {uid for uid, record in snapshot.jobs.items() if record.finished_at is None}
        targets = {uid: target for uid, target in wanted.items() if uid in alive}
        return Decision(targets, {uid: Reason(ReasonCode.RUNNING) for uid in targets})

    result = played(scenario_of(jobs, TABLE, cluster=Cluster(1)), decide)
    assert result.refused == ()
    started = result.jobs[b].first_started_at
    assert started is not None
    assert started / SECOND == CHANGE_AT
