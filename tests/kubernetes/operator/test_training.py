"""The whole chain: kubectl, a real API server, operator, control plane, agents, Ray actors, and the
status back.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from headrace.cli.local_cluster import read_record
from tests.architecture.source_tree import ROOT
from tests.cluster.local_cluster import LocalCluster, manifest, until
from tests.kubernetes.api_server import ApiServer
from tests.kubernetes.fixtures import Command

pytestmark = [pytest.mark.process, pytest.mark.timeout(900)]

STEPS = 60


@contextmanager
def operating(cluster: LocalCluster, kubernetes: ApiServer, namespace: str) -> Iterator[None]:
    """An operator between the two."""
    record = read_record(cluster.home)
    assert record is not None
    command = [
        *(sys.executable, "-m", "operators"),
        *("--control-plane", record.endpoints["grpc"]),
        *("--kubeconfig", str(kubernetes.kubeconfig)),
        *("--namespaces", namespace, "--cluster-objects", "no"),
        *("--nodes", "no"),
        *("--lease-namespace", namespace, "--listen", "127.0.0.1:0"),
    ]
    with (cluster.home / "operator.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        assert process.wait(60) == 0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    cluster = LocalCluster.up(tmp_path / "home", seed=0)
    try:
        yield cluster
    finally:
        cluster.down()


def conditions(job: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Status and reason of each condition."""
    told = job.get("status", {}).get("conditions", [])
    return {each["type"]: (each["status"], each["reason"]) for each in told}


def test_kubectl_apply_trains_in_ray_actors_and_ends_succeeded(
    cluster: LocalCluster, api_server: ApiServer, kubectl: Command, namespace: str
) -> None:
    described = manifest("train", cluster.store, model={"name": "gpt2", "preset": "tiny"})
    described["spec"]["training"]["steps"] = STEPS

    def there() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            kubectl("get", "trainingjob", "train", "-n", namespace, "-o", "json")
        )
        return found

    with operating(cluster, api_server, namespace):
        kubectl("apply", "--server-side", "-n", namespace, "-f", "-", stdin=json.dumps(described))
        until(
            "the object says that it succeeded",
            lambda: conditions(there()).get("Succeeded", ("",))[0] == "True",
        )
        ended = there()
        uid = ended["metadata"]["uid"]
        assert conditions(ended)["Succeeded"] == ("True", "Succeeded")
        assert ended["status"]["progress"]["step"] == STEPS
        assert ended["status"]["observedGeneration"] == ended["metadata"]["generation"]
        # It was trained here, once, and the control plane knows it by the object's uid.
        assert sorted(cluster.losses(uid)) == list(range(1, STEPS + 1))
        job = cluster.job(uid)
        assert (job.owner, job.status.attempt) == ("Kubernetes", 1)
        (line,) = kubectl("get", "hrjob", "-n", namespace, "--no-headers").splitlines()
        assert f"{STEPS}/{STEPS}" in line
        assert "Succeeded" in line
        kubectl("delete", "trainingjob", "train", "-n", namespace, "--timeout=90s")
        assert [job.uid for job in cluster.client.list_jobs()] == []
