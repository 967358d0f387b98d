"""One job through the whole stack: started, changed while it runs, stopped, forgotten."""

from pathlib import Path

import pytest

from tests.cluster.local_cluster import STEPS, LocalCluster, manifest, run, until

pytestmark = [pytest.mark.process, pytest.mark.timeout(1200)]


def test_a_job_changes_its_plan_while_it_runs_and_no_step_changes(
    cluster: LocalCluster, undisturbed: dict[int, float], store: Path
) -> None:
    uid = cluster.submit(manifest("elastic", store, accelerators={"minimum": 1, "maximum": 4}))
    cluster.trains(uid, 10)
    assert cluster.job(uid).status.plan == "dp4"
    other = cluster.submit(manifest("newcomer", store))
    until("the newcomer starts", lambda: cluster.job(other).status.first_started_at.seconds)
    until("both train", lambda: cluster.step(other) > 0)
    ended, newcomer = cluster.finishes(uid), cluster.finishes(other)
    assert (ended.status.stage, newcomer.status.stage) == ("Succeeded", "Succeeded")
    assert ended.status.reconfigurations >= 1
    for losses in (cluster.losses(uid), cluster.losses(other)):
        assert sorted(losses) == list(range(1, STEPS + 1))
        assert max(abs(losses[step] - undisturbed[step]) for step in range(1, 51)) < 1e-4


def test_suspend_gives_the_accelerators_back_and_resume_goes_on(
    cluster: LocalCluster, undisturbed: dict[int, float], store: Path
) -> None:
    described = manifest("pausing", store)
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
    losses = cluster.losses(uid)
    assert sorted(losses) == list(range(1, STEPS + 1))
    assert max(abs(losses[step] - undisturbed[step]) for step in range(1, 51)) < 1e-4


def test_a_drained_node_is_left_and_purged_checkpoints_go(
    cluster: LocalCluster, store: Path
) -> None:
    uid = cluster.submit(manifest("moves", store))
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
    assert (store / uid).is_dir()
    run(cluster.home, "delete", "moves", "--purge")
    until("its checkpoints are gone", lambda: not (store / uid).exists())


def test_logs_and_backup_while_jobs_run(cluster: LocalCluster, store: Path, tmp_path: Path) -> None:
    uid = cluster.submit(manifest("talks", store))
    cluster.trains(uid, 5)
    file = tmp_path / "backup.gz"
    run(cluster.home, "backup", str(file))
    assert file.stat().st_size > 1000
    assert cluster.finishes(uid).status.stage == "Succeeded"
    assert run(cluster.home, "logs", "talks").strip()
    assert "Succeeded" in run(cluster.home, "get", "jobs")
