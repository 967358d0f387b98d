"""One local cluster for all tests of this folder, and the losses of an undisturbed job."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.local_cluster import ALONE, STEPS, LocalCluster, scripted


@pytest.fixture(scope="package")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    seed = random.SystemRandom().randrange(10**6)
    cluster = LocalCluster.up(tmp_path_factory.mktemp("home"), seed)
    print(f"luck of this cluster: seed {seed}")
    try:
        cluster.client.set_policy({"node_grace_seconds": 6.0, "policy": "equal-share"})
        yield cluster
    finally:
        cluster.down()


@pytest.fixture
def cluster(shared_cluster: LocalCluster) -> Iterator[LocalCluster]:
    """The cluster with both nodes online; afterwards every job is withdrawn."""
    yield shared_cluster
    for job in shared_cluster.client.list_jobs():
        shared_cluster.client.withdraw(job.uid)


@pytest.fixture(scope="package")
def undisturbed(shared_cluster: LocalCluster) -> dict[int, float]:
    """Loss by step of a job that nothing happened to."""
    uid = shared_cluster.submit(scripted("undisturbed", shared_cluster.store, accelerators=ALONE))
    job = shared_cluster.finishes(uid)
    losses = shared_cluster.losses(uid)
    assert job.status.stage == "Succeeded", job.status.reason.message
    assert sorted(losses) == list(range(1, STEPS + 1))
    shared_cluster.client.withdraw(uid)
    return losses


@pytest.fixture
def store(cluster: LocalCluster) -> Path:
    return cluster.store
