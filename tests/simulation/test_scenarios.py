"""Hours of cluster life in virtual time: nothing is lost, nothing held twice, nothing random."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controlplane.baselines import BASELINES
from controlplane.domain.clock import seconds
from controlplane.domain.codec import dump, load
from controlplane.domain.event import CycleDecided
from controlplane.domain.ids import JobUid
from controlplane.domain.lifecycle import Stage
from controlplane.domain.policy import Decision, PolicySettings
from controlplane.domain.reason import ReasonCode
from controlplane.domain.snapshot import ClusterSnapshot
from controlplane.engine.state import ClusterState
from controlplane.live import live_policies
from headrace.api.plan import ExecutionPlan
from simulator.run import Result, simulate
from simulator.scenario import Faults, JobGroup, NodeGroup, Scenario, ScenarioFile, build

HOUR = seconds(3600)
POLICIES = sorted(BASELINES)


def crowded(seed: int = 1, **faults: Any) -> Scenario:
    """Four nodes of four, more jobs than fit, one that always fails."""
    described = ScenarioFile(
        nodes=[NodeGroup(count=4, accelerators=4)],
        jobs=[
            JobGroup(name="elastic", count=8, everySeconds=120, maximum=8, globalBatchSize=64),
            JobGroup(name="gang", count=4, everySeconds=300, minimum=8, maximum=8, steps=400),
            JobGroup(name="poisoned", minimum=2, maximum=2, failsAtStep=20, maxRetries=2),
        ],
        faults=Faults.model_validate(faults),
    )
    return build(described, seed)


def day(policy: str, **faults: Any) -> Result:
    """A day of the crowded cluster."""
    return simulate(crowded(**faults), policy=policy, horizon=seconds(24 * 3600))


@pytest.mark.parametrize("policy", POLICIES)
def test_every_job_ends_and_the_poisoned_one_says_why(policy: str) -> None:
    result = day(policy)
    stages = {record.job.name: record.stage for record in result.jobs.values()}
    poisoned = next(r for r in result.jobs.values() if r.job.name == "poisoned-0")
    assert result.refused == ()
    assert stages.pop("poisoned-0") is Stage.FAILED
    assert set(stages.values()) == {Stage.SUCCEEDED}
    assert poisoned.failures == 2
    assert poisoned.reason is not None
    assert poisoned.reason.code is ReasonCode.RANK_FAILED
    assert "the same at step 20 in attempts" in poisoned.reason.message


@pytest.mark.parametrize("policy", POLICIES)
def test_lost_nodes_and_late_doubled_messages_lose_no_job(policy: str) -> None:
    result = day(
        policy,
        nodeLossesPerDay=12,
        nodeAwaySeconds=300,
        lateShare=0.2,
        lateSeconds=4,
        doubledShare=0.2,
    )
    assert result.refused == ()
    assert {r.stage for r in result.jobs.values()} == {Stage.SUCCEEDED, Stage.FAILED}
    assert [r.job.name for r in result.jobs.values() if r.stage is Stage.FAILED] == ["poisoned-0"]


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_seed_decides_the_same_and_another_does_not(policy: str) -> None:
    def hash_of(seed: int) -> str:
        scenario = crowded(seed, nodeLossesPerDay=6, lateShare=0.1)
        return simulate(scenario, policy=policy, horizon=HOUR).decisions_hash

    assert hash_of(3) == hash_of(3)
    assert hash_of(3) != hash_of(4)


def test_python_hash_seeds_make_no_difference(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    scenario = root / "examples" / "scenarios" / "busy-day.yaml"
    command = [sys.executable, "-m", "simulator", "--scenario", str(scenario)]
    found = []
    for seed in ("1", "2"):
        done = subprocess.run(
            [*command, "--hours", "2", "--output", "json"],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found.append([row["decisions_sha256"] for row in json.loads(done.stdout)])
    assert found[0] == found[1]
    assert len(set(found[0])) == len(live_policies())


def test_equal_share_changes_running_jobs_and_fifo_never_does() -> None:
    def changes(policy: str) -> int:
        return sum(record.reconfigurations for record in day(policy).jobs.values())

    assert changes("equal-share") > 0
    assert changes("fifo") == 0


def test_unchanged_reasons_are_not_logged_again() -> None:
    result = simulate(crowded(), policy="fifo", horizon=HOUR)
    told: dict[str, object] = {}
    for logged in result.decisions:
        assert isinstance(logged.event, CycleDecided)
        assert logged.event.actions or logged.event.reasons
        for uid, reason in logged.event.reasons:
            assert told.get(uid) != reason
            told[uid] = reason
        for action in logged.event.actions:
            told[action.uid] = getattr(action, "reason", None)


def test_a_snapshot_is_played_on_from_where_it_stood() -> None:
    scenario = crowded()
    before = simulate(scenario, policy="equal-share", horizon=HOUR)
    text = dump(before.state, ClusterState)
    state: ClusterState = load(text, ClusterState)
    assert state == before.state
    rest = Scenario(1, (), (), costs=scenario.costs)
    after = simulate(
        rest,
        policy="equal-share",
        horizon=seconds(24 * 3600),
        start=state,
        start_at=before.ended_at,
    )
    assert after.refused == ()
    unfinished = {r.job.name: r.stage for r in after.jobs.values()}
    assert set(unfinished.values()) <= {Stage.SUCCEEDED, Stage.FAILED}


@pytest.mark.parametrize("policy", POLICIES)
def test_the_state_grows_no_further_however_many_jobs_have_finished(policy: str) -> None:
    kept = 5
    settings = PolicySettings(finished_jobs_kept=kept)

    def after_all(count: int) -> ClusterState:
        group = JobGroup(name="short", count=count, everySeconds=60, maximum=2, steps=20)
        scenario = build(
            ScenarioFile(nodes=[NodeGroup(count=1, accelerators=4)], jobs=[group]), seed=1
        )
        result = simulate(
            scenario,
            policy=policy,
            horizon=seconds(24 * 3600),
            start=replace(ClusterState.empty(), settings=settings),
        )
        assert len(result.completion_seconds()) == count
        assert len(result.state.jobs) == kept
        return result.state

    few, many = after_all(50), after_all(300)
    # Of a forgotten job stay its uid and its last attempt, of the last 10,000 such.
    for_each = len('"short-000","short-000":1,') + 20
    assert len(dump(many, ClusterState)) < len(dump(few, ClusterState)) + 250 * for_each


def test_a_broken_policy_disturbs_no_running_job() -> None:
    def breaks_late(snapshot: ClusterSnapshot) -> Decision:
        if snapshot.at > seconds(300):
            raise RuntimeError("lost its mind")
        return BASELINES["equal-share"](snapshot)

    result = simulate(
        crowded(),
        policy="breaks-late",
        policies={"breaks-late": breaks_late},
        horizon=seconds(6 * 3600),
    )
    assert "RuntimeError: lost its mind" in result.refused[0]
    running = [r for r in result.jobs.values() if r.stage is Stage.SUCCEEDED]
    assert any(r.finished_at is not None and r.finished_at > seconds(300) for r in running)
    waiting = [r for r in result.jobs.values() if r.stage is Stage.QUEUED]
    assert all(r.reason and r.reason.code is ReasonCode.POLICY_REFUSED for r in waiting)


def test_a_policy_that_is_wrong_about_one_job_lets_the_others_be_done() -> None:
    """Ten minutes long it gives one job a plan for other accelerators than it names."""

    def wrong(snapshot: ClusterSnapshot) -> Decision:
        decision, bad = BASELINES["equal-share"](snapshot), JobUid("uid-bad-0")
        if snapshot.at > HOUR // 6 or bad not in decision.targets:
            return decision
        target = replace(decision.targets[bad], plan=ExecutionPlan(data_parallel=3))
        return replace(decision, targets={**decision.targets, bad: target})

    described = ScenarioFile(
        nodes=[NodeGroup(count=1, accelerators=4)],
        jobs=[
            JobGroup(name="good", count=3, minimum=1, maximum=1, steps=10),
            JobGroup(name="bad", minimum=1, maximum=1, steps=10),
        ],
    )
    result = simulate(
        build(described, 1),
        policy="wrong",
        horizon=seconds(24 * 3600),
        policies={"wrong": wrong},
    )
    assert set(result.refused) == {"uid-bad-0: plan dp3 does not occupy 1 accelerator"}
    firsts = {r.job.name: r.first_started_at for r in result.jobs.values()}
    assert all(r.stage is Stage.SUCCEEDED for r in result.jobs.values())
    bad = firsts.pop("bad-0")
    assert bad is not None
    assert bad > HOUR // 6
    assert all(at is not None and at < HOUR // 6 for at in firsts.values())


def test_plans_change_in_memory_on_the_way_and_nothing_is_lost() -> None:
    """A policy that gives the one job another plan every ten minutes, where it is."""

    def restless(snapshot: ClusterSnapshot) -> Decision:
        decision = BASELINES["equal-share"](snapshot)
        targets = dict(decision.targets)
        for uid, record in snapshot.jobs.items():
            if uid in targets and record.attempt is not None:
                turn = snapshot.at // (HOUR // 6) % 2 + 1
                plan = ExecutionPlan(record.attempt.placement.accelerator_count, turn)
                targets[uid] = replace(targets[uid], plan=plan)
        return Decision(targets, decision.reasons)

    described = ScenarioFile(
        nodes=[NodeGroup(count=1, accelerators=2)],
        jobs=[JobGroup(name="one", minimum=2, maximum=2, globalBatchSize=8, steps=5000)],
    )
    scenario = build(described, 1)
    result = simulate(
        scenario,
        policy="restless",
        horizon=seconds(24 * 3600),
        policies={"restless": restless},
    )
    (record,) = result.jobs.values()
    assert result.refused == ()
    assert (record.stage, record.progress.step, record.attempts_made) == (Stage.SUCCEEDED, 5000, 1)
    assert record.reconfigurations == len(record.switches) > 3
    assert {switch.stood_still_seconds for switch in record.switches} == {1.5}
    assert [switch.step for switch in record.switches] == sorted(
        {switch.step for switch in record.switches}
    )
