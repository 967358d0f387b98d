"""``kill -9`` at a random step: control plane, agent, rank, node, Ray. No step is lost or differs.

Each test trains for real and compares every step's loss with a job that nothing happened to.
"""

import json
import signal
import sys
from pathlib import Path

import psutil
import pytest

from tests.cluster.local_cluster import STEPS, LocalCluster, command, manifest, until

pytestmark = [pytest.mark.process, pytest.mark.failure, pytest.mark.timeout(1200)]


def same(losses: dict[int, float], undisturbed: dict[int, float]) -> None:
    """Every step has one loss that counts, and it is the undisturbed one."""
    assert sorted(losses) == list(range(1, STEPS + 1))
    worst = max(abs(losses[step] - undisturbed[step]) for step in losses)
    assert worst < 1e-3, f"losses differ by up to {worst}"
    early = max(abs(losses[step] - undisturbed[step]) for step in range(1, 51))
    assert early < 1e-4, f"losses of the first 50 steps differ by up to {early}"


def test_a_killed_control_plane_disturbs_no_training(
    cluster: LocalCluster, undisturbed: dict[int, float], store: Path
) -> None:
    uid = cluster.submit(manifest("survives-control-plane", store))
    cluster.somewhere(uid)
    ranks = {process.pid for process in cluster.ranks(uid)}
    term = cluster.client.cluster().term
    cluster.kill("controlplane")
    assert cluster.client.cluster().term > term
    ended = cluster.finishes(uid)
    assert ended.status.stage == "Succeeded"
    assert ended.status.attempt in (0, 1)
    assert len(cluster.starts(uid)) == 1
    assert ranks
    same(cluster.losses(uid), undisturbed)


def test_a_killed_agent_disturbs_no_training(
    cluster: LocalCluster, undisturbed: dict[int, float], store: Path
) -> None:
    uid = cluster.submit(manifest("survives-agent", store))
    cluster.somewhere(uid)
    node = cluster.job(uid).status.units[0].node
    ranks = {process.pid for process in cluster.ranks(uid)}
    cluster.kill(f"agent-{node}")
    ended = cluster.finishes(uid)
    assert ended.status.stage == "Succeeded"
    assert ranks
    # On a loaded machine the agent may stay away for longer than a node may be silent; then
    # the job is moved. It is never started twice side by side.
    assert len(cluster.starts(uid)) in (1, 2)
    same(cluster.losses(uid), undisturbed)


def test_a_killed_rank_costs_a_retry_and_no_step(
    cluster: LocalCluster, undisturbed: dict[int, float], store: Path
) -> None:
    uid = cluster.submit(manifest("survives-rank", store))
    cluster.somewhere(uid)
    cluster.luck.choice(until("ranks run", lambda: cluster.ranks(uid))).send_signal(signal.SIGKILL)
    ended = cluster.finishes(uid)
    assert ended.status.stage == "Succeeded", ended.status.reason.message
    assert ended.status.failures == 1
    told = [event.message for event in cluster.client.list_events(uid)]
    assert any("SIGKILL" in message for message in told), told
    same(cluster.losses(uid), undisturbed)


def test_the_jobs_of_a_lost_node_move_and_its_leftovers_end(
    cluster: LocalCluster, undisturbed: dict[int, float], store: Path
) -> None:
    uid = cluster.submit(manifest("survives-node", store))
    cluster.somewhere(uid)
    node = cluster.job(uid).status.units[0].node
    agent = cluster.part(f"agent-{node}")
    agent.send_signal(signal.SIGSTOP)
    try:
        until("the node is lost", lambda: cluster.nodes_online() == 1)
        for process in cluster.ranks(uid, node):
            process.send_signal(signal.SIGKILL)
        until(
            "the job runs elsewhere",
            lambda: (
                cluster.ended(uid)
                or {unit.node for unit in cluster.job(uid).status.units} not in (set(), {node})
            ),
        )
    finally:
        agent.send_signal(signal.SIGCONT)
    ended = cluster.finishes(uid)
    assert ended.status.stage == "Succeeded", ended.status.reason.message
    assert ended.status.failures == 0
    until("the node is back", lambda: cluster.nodes_online() == 2)
    same(cluster.losses(uid), undisturbed)


def test_without_ray_the_job_resumes_and_says_so(
    cluster: LocalCluster, undisturbed: dict[int, float], store: Path
) -> None:
    uid = cluster.submit(manifest("survives-ray", store))
    cluster.somewhere(uid)
    before = {process.pid for process in cluster.ranks(uid)}
    for process in cluster.part("ray").children(recursive=True):
        if process.name() in ("gcs_server", "raylet"):
            process.send_signal(signal.SIGKILL)
    cluster.kill("ray")
    ended = cluster.finishes(uid)
    assert ended.status.stage == "Succeeded", ended.status.reason.message
    told = [event.message for event in cluster.client.list_events(uid)]
    codes = {
        body["exit"]["reason"]["code"]
        for body in map(json.loads, (e.body_json for e in cluster.client.list_events(uid)))
        if body.get("kind") == "UnitExited" and body["exit"].get("reason")
    }
    assert codes & {"RayLost", "RankLost"}, (codes, told)
    assert before
    assert not any(psutil.pid_exists(pid) for pid in before)
    same(cluster.losses(uid), undisturbed)


def test_a_job_that_always_fails_holds_up_nobody_and_says_why(
    cluster: LocalCluster, store: Path
) -> None:
    program = "import sys; print('the disk of this data set is gone'); sys.exit(3)"
    broken = cluster.submit(
        command(
            "always-fails",
            store,
            sys.executable,
            "-c",
            program,
            retries={"max": 1, "backoffSeconds": 1},
        )
    )
    other = cluster.submit(
        command("goes-well", store, sys.executable, "-c", "print('all is well')")
    )
    assert cluster.finishes(other).status.stage == "Succeeded"
    ended = cluster.finishes(broken)
    assert ended.status.stage == "Failed"
    assert ended.status.reason.code == "RetriesExhausted"
    assert "the disk of this data set is gone" in ended.status.reason.message
    assert len(cluster.starts(broken)) == 2
