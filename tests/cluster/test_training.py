"""What people do to a job that runs, through the whole stack: no step is lost or differs."""

from pathlib import Path

import pytest

from tests.cluster.local_cluster import ALONE, STEPS, LocalCluster, manifest, run, same, until

pytestmark = [pytest.mark.process, pytest.mark.timeout(1200)]


def test_suspend_gives_the_accelerators_back_and_resume_goes_on(
    cluster: LocalCluster, undisturbed: dict[int, float], store: Path
) -> None:
    described = manifest("pausing", store, accelerators=ALONE)
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
    uid = cluster.submit(manifest("moves", store, accelerators=ALONE))
    cluster.trains(uid, 10)
    file = tmp_path / "backup.gz"
    run(cluster.home, "backup", str(file))
    assert file.stat().st_size > 1000
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
