"""``kill -9`` at a random step: control plane, agent, rank, node, Ray. No step is lost or differs.

Each test trains for real and compares every step's loss with a job that nothing happened to.
"""

import signal
import sys
from pathlib import Path

import pytest

from tests.cluster.local_cluster import (
    ALONE,
    LocalCluster,
    command,
    run,
    same,
    scripted,
    until,
)

pytestmark = [pytest.mark.process, pytest.mark.failure, pytest.mark.timeout(1200)]


def test_a_killed_control_plane_disturbs_no_training(
    cluster: LocalCluster, undisturbed: dict[int, float], store: Path
) -> None:
    uid = cluster.submit(scripted("survives-control-plane", store))
    cluster.somewhere(uid)
    node = cluster.job(uid).status.units[0].node
    ranks = set(cluster.ranks(uid))
    before = cluster.client.cluster()
    cluster.kill("controlplane")
    trained_on = cluster.who_trains_on(uid)
    assert cluster.client.cluster().term > before.term
    assert cluster.job(uid).status.stage == "Succeeded"
    assert ranks
    _moved_only_from_lost_nodes(cluster, uid, node, before.last_sequence, trained_on <= ranks)
    same(cluster.losses(uid), undisturbed)


def test_a_killed_agent_disturbs_no_training(
    cluster: LocalCluster, undisturbed: dict[int, float], store: Path
) -> None:
    uid = cluster.submit(scripted("survives-agent", store))
    cluster.somewhere(uid)
    node = cluster.job(uid).status.units[0].node
    ranks = set(cluster.ranks(uid))
    before = cluster.client.cluster().last_sequence
    cluster.kill(f"agent-{node}")
    trained_on = cluster.who_trains_on(uid)
    assert cluster.job(uid).status.stage == "Succeeded"
    assert ranks
    _moved_only_from_lost_nodes(cluster, uid, node, before, trained_on <= ranks)
    same(cluster.losses(uid), undisturbed)


def _moved_only_from_lost_nodes(
    cluster: LocalCluster, uid: str, node: str, before: int, undisturbed: bool
) -> None:
    """On a loaded machine an agent may stay away for longer than a node may be silent.

    Then, and only then, the job is moved.
    """
    first, *moves = cluster.starts(uid)
    lost = cluster.when_lost(node, before)
    if not lost:
        assert undisturbed, "other processes trained"
        assert moves == []
        assert {end["outcome"] for end in cluster.exits(uid)} == {"Succeeded"}
    assert len(moves) <= len(lost)
    assert all(first < away < move for away, move in zip(lost, moves, strict=False))


def test_a_killed_rank_costs_a_retry_and_no_step(
    cluster: LocalCluster, undisturbed: dict[int, float], store: Path
) -> None:
    uid = cluster.submit(scripted("survives-rank", store))
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
    uid = cluster.submit(scripted("survives-node", store, accelerators=ALONE))
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


@pytest.mark.long
def test_without_ray_the_job_resumes_and_says_so(
    cluster: LocalCluster, undisturbed: dict[int, float], store: Path
) -> None:
    # It waits for about as long as Ray takes to come back, so it can be asked what happened.
    patient = {"max": 3, "backoffSeconds": 10}
    uid = cluster.submit(scripted("survives-ray", store, retries=patient))
    cluster.somewhere(uid)
    ranks = cluster.ranks(uid)
    for process in cluster.part("ray").children(recursive=True):
        if process.name() in ("gcs_server", "raylet"):
            process.send_signal(signal.SIGKILL)
    cluster.kill("ray")
    until("it waits for its next try", lambda: cluster.job(uid).status.stage == "BackingOff")
    told = cluster.job(uid).status.reason
    ended = cluster.finishes(uid)
    assert ended.status.stage == "Succeeded", ended.status.reason.message
    # A rank may say that it lost its neighbour before Ray's end is known; that is not the cause.
    assert told.code == "RayLost"
    assert "Ray went away" in told.message
    reasons = [end["reason"]["code"] for end in cluster.exits(uid) if end.get("reason")]
    assert "RayLost" in reasons
    assert ranks
    assert not any(process.is_running() for process in ranks)
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


def test_a_rank_that_was_lost_with_its_actor_comes_back_on_another_node(
    cluster: LocalCluster, store: Path
) -> None:
    endless = "import time; time.sleep(1000)"
    retries = {"max": 1, "backoffSeconds": 1}
    uid = cluster.submit(command("loses", store, sys.executable, "-c", endless, retries=retries))
    (rank,) = until("its rank runs", lambda: cluster.ranks(uid))
    (before,) = cluster.job(uid).status.units
    actor = rank.parent()
    assert actor is not None
    actor.send_signal(signal.SIGKILL)
    until("it starts again", lambda: len(cluster.starts(uid)) == 2)
    status = cluster.job(uid).status
    (suspected,) = status.suspected_nodes
    assert (suspected.node, suspected.reason, suspected.attempt) == (before.node, "RankLost", 1)
    (after,) = status.units
    assert after.node != before.node
    told = " ".join(run(cluster.home, "describe", "job", "loses").split())
    assert f"Keeps off: {before.node} for" in told
    decided = [event.body_json for event in cluster.client.list_events()]
    assert any(f"; it keeps off {before.node} (attempt 1: RankLost)" in body for body in decided)
