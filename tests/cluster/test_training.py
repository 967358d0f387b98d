"""What people do to a job that runs, through the whole stack: no step is lost or differs."""

import resource
from pathlib import Path

import pytest

from headrace.api.generated import admin_pb2
from tests.cluster.local_cluster import (
    ALONE,
    STEPS,
    LocalCluster,
    manifest,
    occupant,
    run,
    same,
    scripted,
    until,
)

pytestmark = [pytest.mark.process, pytest.mark.timeout(1200)]


@pytest.mark.long
def test_suspend_gives_the_accelerators_back_and_resume_goes_on(
    cluster: LocalCluster, undisturbed: dict[int, float], store: Path
) -> None:
    described = scripted("pausing", store, accelerators=ALONE)
    uid = cluster.submit(described)
    cluster.trains(uid, 10)
    described["spec"]["suspend"] = True
    assert cluster.submit(described) == uid
    until("it is suspended", lambda: cluster.job(uid).status.stage == "Suspended")
    assert not cluster.ranks(uid)
    at = cluster.step(uid)
    described["spec"]["suspend"] = False
    cluster.submit(described)
    ended = cluster.finishes(uid)
    assert ended.status.stage == "Succeeded"
    assert 10 <= at <= STEPS
    same(cluster.losses(uid), undisturbed)


def test_a_job_leaves_a_drained_node_and_is_purged_with_its_checkpoints(
    cluster: LocalCluster, undisturbed: dict[int, float], store: Path, tmp_path: Path
) -> None:
    uid = cluster.submit(scripted("moves", store, accelerators=ALONE))
    cluster.trains(uid, 10)
    node = cluster.job(uid).status.units[0].node
    run(cluster.home, "drain", node)
    try:
        until(
            "the job has moved",
            lambda: (
                cluster.ended(uid)
                or {unit.node for unit in cluster.job(uid).status.units} not in (set(), {node})
            ),
        )
    finally:
        run(cluster.home, "uncordon", node)
    assert cluster.finishes(uid).status.stage == "Succeeded"
    same(cluster.losses(uid), undisturbed)
    assert "Succeeded" in run(cluster.home, "get", "jobs")
    assert run(cluster.home, "logs", "moves").strip()
    assert (store / uid).is_dir()
    file = tmp_path / "backup.gz"
    run(cluster.home, "backup", str(file))
    assert file.stat().st_size > 1000
    run(cluster.home, "delete", "moves", "--purge")
    until("its checkpoints are gone", lambda: not (store / uid).exists())


def test_other_plans_are_taken_up_by_the_processes_that_train(
    cluster: LocalCluster, store: Path
) -> None:
    two = {"minimum": 2, "maximum": 2}
    described = manifest("replanned", store, accelerators=two, plans=["dp2"])
    described["spec"]["training"]["steps"] = 10_000  # not done before it has changed
    uid = cluster.submit(described)
    cluster.trains(uid, 5)
    pids = {rank.pid for rank in cluster.ranks(uid)}
    assert (cluster.job(uid).status.plan, len(pids)) == ("dp2", 2)
    described["spec"]["plans"] = ["pp2.1f1b-ga4"]
    assert cluster.submit(described) == uid
    until("its ranks went over", lambda: cluster.ended(uid) or cluster.job(uid).status.switches)
    (switch,) = cluster.job(uid).status.switches
    cluster.trains(uid, switch.step + 10)
    status = cluster.job(uid).status
    assert (status.plan, status.attempt, status.failures) == ("pp2.1f1b-ga4", 1, 0)
    assert {rank.pid for rank in cluster.ranks(uid)} == pids
    assert (switch.kind, switch.before, switch.after) == ("Memory", "dp2", "pp2.1f1b-ga4")
    assert switch.stood_still_seconds > 0
    assert [phase.name for phase in switch.phases if phase.seconds > 0][-1] == "first_step"
    losses = cluster.losses(uid)
    assert sorted(losses) == list(range(1, len(losses) + 1)), "a step is missing"
    assert losses[len(losses)] < losses[1]
    told = run(cluster.home, "describe", "job", "replanned")
    assert "dp2 -> pp2.1f1b-ga4" in told
    assert "memory" in told
    until("it told of its plan", lambda: cluster.ended(uid) or _observed(cluster, uid))
    (observed,) = (each.measured for each in _observed(cluster, uid))
    assert observed.iteration > 0
    assert observed.placement in run(cluster.home, "get", "observations", observed.model)
    assert "2 -> 2" in run(cluster.home, "get", "switches", observed.model)


def _observed(cluster: LocalCluster, uid: str) -> list[admin_pb2.Observation]:
    """What the job told of the pipeline."""
    return [
        each
        for each in cluster.client.observations()
        if each.uid == uid and each.measured.plan == "pp2.1f1b-ga4"
    ]


@pytest.mark.long
def test_ranks_come_and_go_while_it_trains_and_a_newcomer_that_dies_costs_nothing(
    cluster: LocalCluster, store: Path
) -> None:
    """Another job has two of its four accelerators, then not, then again: one attempt."""
    before = _guest(cluster, store, "before")
    described = scripted("resized", store, accelerators={"minimum": 1, "maximum": 4})
    described["spec"]["training"]["steps"] = 10_000  # not done before it has changed
    uid = cluster.submit(described)
    cluster.trains(uid, 5)
    first = _pids(cluster, uid)
    assert (cluster.job(uid).status.plan, len(first)) == ("dp2", 2)
    cluster.client.withdraw(before)
    until("it grew", lambda: cluster.ended(uid) or len(cluster.job(uid).status.switches) == 1)
    assert _pids(cluster, uid) > first
    assert sorted(unit.first_rank for unit in cluster.job(uid).status.units) == [0, 1, 2, 3]
    again = _guest(cluster, store, "again")
    until("it shrank", lambda: cluster.ended(uid) or len(cluster.job(uid).status.switches) == 2)
    assert _pids(cluster, uid) == first
    grew, shrank = cluster.job(uid).status.switches
    cluster.trains(uid, shrank.step + 10)
    changes = [(one.kind, one.before, one.after, one.accelerators_before) for one in (grew, shrank)]
    assert changes == [("Memory", "dp2", "dp4", 2), ("Memory", "dp4", "dp2", 4)]
    cluster.client.withdraw(again)
    until("others come", lambda: _pids(cluster, uid) - first)
    for rank in cluster.ranks(uid):
        if rank.pid not in first:
            rank.kill()
    until(
        "it is given up",
        lambda: cluster.job(uid).status.suspected_nodes or cluster.job(uid).status.attempt > 1,
    )
    status = cluster.job(uid).status
    cluster.trains(uid, status.progress.step + 10)
    assert (status.attempt, status.plan, status.plan_asked_for) == (1, "dp2", "")
    assert (status.failures, len(status.switches)) == (0, 2)
    until("only those are there", lambda: _pids(cluster, uid) == first)
    assert "SIGKILL" in run(cluster.home, "explain", "resized")
    losses = cluster.losses(uid)
    assert sorted(losses) == list(range(1, len(losses) + 1)), "a step is missing"
    assert "dp4 -> dp2" in run(cluster.home, "describe", "job", "resized")


def _guest(cluster: LocalCluster, store: Path, name: str) -> str:
    """A job that holds two accelerators, once it does."""
    uid = cluster.submit(occupant(name, store))
    until("the guest runs", lambda: cluster.job(uid).status.stage == "Running")
    return uid


def _pids(cluster: LocalCluster, uid: str) -> set[int]:
    """The processes that train."""
    return {rank.pid for rank in cluster.ranks(uid)}


def test_memory_that_runs_out_costs_a_plan_and_no_retry(cluster: LocalCluster, store: Path) -> None:
    script = Path(__file__).with_name("short_of_memory.py")
    one = {"minimum": 1, "maximum": 1}
    described = scripted("short", store, script, accelerators=one, plans=["dp1", "dp1-ga16"])
    described["spec"]["training"] = {"globalBatchSize": 64, "steps": 2}
    uid = cluster.submit(described)
    ended = cluster.finishes(uid).status
    assert ended.stage == "Succeeded", ended.reason.message
    first, second = cluster.exits(uid)
    assert (first["outcome"], first["reason"]["code"]) == ("Failed", "OutOfMemory")
    assert "can't allocate memory" in first["reason"]["message"]
    assert (second["outcome"], ended.attempt, ended.failures) == ("Succeeded", 2, 0)
    told = run(cluster.home, "describe", "job", "short")
    assert "dp1 on cpu: not tried there again" in told
    assert "starts as dp1-ga16" in run(cluster.home, "explain", "short")


def test_a_full_store_is_a_condition_of_the_job_until_there_is_room(
    cluster: LocalCluster, store: Path
) -> None:
    described = manifest("cramped", store, accelerators={"minimum": 1, "maximum": 1})
    described["spec"]["training"]["steps"] = 10_000  # not done before there is room again
    described["spec"]["checkpoint"]["everySteps"] = 10
    uid = cluster.submit(described)

    def missed() -> tuple[bool, str, str]:
        told = {each.type: each for each in cluster.job(uid).status.conditions}["CheckpointMissed"]
        return told.status == "True", told.reason, told.message

    until("it has a checkpoint", lambda: cluster.job(uid).status.progress.checkpoint_step)
    (rank,) = cluster.ranks(uid)
    # No file of this process can grow beyond this size from now on, as on a full disk.
    _, most = resource.prlimit(rank.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(rank.pid, resource.RLIMIT_FSIZE, (200_000, most))
    until("a checkpoint is missing", lambda: missed()[0])
    _, code, message = missed()
    assert code == "CheckpointStoreFull"
    assert "the newest is that of step" in message
    told = " ".join(run(cluster.home, "describe", "job", "cramped").split())
    assert "CheckpointMissed True" in told
    assert "trains on without a checkpoint" in " ".join(
        event.message for event in cluster.client.list_events(uid)
    )
    resource.prlimit(rank.pid, resource.RLIMIT_FSIZE, (most, most))
    until("a later one is there", lambda: not missed()[0])
    status = cluster.job(uid).status
    assert (status.stage, status.attempt, status.failures) == ("Running", 1, 0), cluster.exits(uid)
