"""Fixtures for tests against a real API server. Folders that want them import them in a conftest.

``HEADRACE_TEST_KUBECONFIG`` names an existing cluster to use instead of one of our own, and
``KUBEBUILDER_ASSETS`` a folder of programs to use before those that ``make kube-binaries`` built.
Without programs the tests are skipped; with ``HEADRACE_KUBE_REQUIRED=1`` they fail.
"""

import os
import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.architecture.source_tree import ROOT
from tests.kubernetes.api_server import ApiServer
from tests.kubernetes.fake_nodes import FakeGpuNodes
from tests.kubernetes.keeper import SharedCluster
from tests.kubernetes.programs import API_SERVER, FAKE_NODES, how_to_get, missing

Command = Callable[..., str]

_LONGEST_NAME = 40  # of 63 that a namespace may have: others make names of it


def _cannot(reason: str) -> NoReturn:
    """Skips what needs this, or fails it where all of Kubernetes is required."""
    if os.environ.get("HEADRACE_KUBE_REQUIRED") == "1":
        pytest.fail(f"HEADRACE_KUBE_REQUIRED=1, but {reason}", pytrace=False)
    pytest.skip(reason)


def expect_programs(names: tuple[str, ...]) -> None:
    """Skips or fails who asks if one of these programs is nowhere."""
    if lacking := missing(names):
        _cannot(how_to_get(lacking))


def _folder_of_run(factory: pytest.TempPathFactory) -> Path:
    """All workers of one run see it."""
    own = factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedCluster]:
    """The cluster of our own that all workers share; started when first wanted."""
    expect_programs(API_SERVER)
    cluster = SharedCluster.join(_folder_of_run(tmp_path_factory))
    yield cluster
    cluster.leave()


@pytest.fixture(scope="session")
def api_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ApiServer]:
    """A real API server with its controllers, as administrator: kubectl, helm, official client.

    Its garbage collector looks for new kinds every 30 s: until then it may leave objects of a kind,
    and what they own, when their owner goes. Tests of that wait for longer than a look.
    """
    if given := os.environ.get("HEADRACE_TEST_KUBECONFIG"):
        if not Path(given).is_file():
            _cannot(f"HEADRACE_TEST_KUBECONFIG={given} is no file")
        expect_programs(("kubectl",))
        existing = ApiServer(Path(given), tmp_path_factory.mktemp("kubernetes"))
        yield existing
        existing.close()
        return
    yield request.getfixturevalue("shared_cluster").api_server


@pytest.fixture(scope="session")
def kubectl(api_server: ApiServer) -> Command:
    """Runs the real kubectl as administrator: ``kubectl("get", "pods", "-n", namespace)``."""
    return api_server.kubectl


@pytest.fixture(scope="session")
def helm(api_server: ApiServer) -> Command:
    """Runs the real helm as administrator: ``helm("install", name, chart, "-n", namespace)``."""
    expect_programs(("helm",))
    return api_server.helm


@pytest.fixture(scope="session")
def kubeconfig_of(api_server: ApiServer) -> Callable[..., Path]:
    """Makes kubeconfigs of people: ``kubeconfig_of("ann", "readers")`` for a user and groups."""
    if os.environ.get("HEADRACE_TEST_KUBECONFIG"):
        _cannot("the cluster of HEADRACE_TEST_KUBECONFIG trusts no certificates of these tests")
    return api_server.kubeconfig_of


@pytest.fixture(scope="session")
def custom_resources(kubectl: Command) -> None:
    """The custom resources of this repository are there, as `make crds` wrote them."""
    folder = ROOT / "deploy/helm/headrace/files/crds"
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(folder))
    kubectl("wait", "--for=condition=Established", "-f", str(folder))


@pytest.fixture
def namespace(request: pytest.FixtureRequest, api_server: ApiServer) -> Iterator[str]:
    """A namespace of the test's own, in which pods can be made; deleted without waiting."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).removeprefix("test-")
    name = f"{words[:_LONGEST_NAME].strip('-')}-{uuid.uuid4().hex[:6]}"
    api_server.new_namespace(name)
    yield name
    api_server.delete_namespace(name)


@pytest.fixture(scope="session")
def scheduler(request: pytest.FixtureRequest) -> None:
    """A real scheduler, and kwok, on the shared cluster."""
    if os.environ.get("HEADRACE_TEST_KUBECONFIG"):
        _cannot("fake nodes are made in a cluster of our own, not in HEADRACE_TEST_KUBECONFIG")
    expect_programs((*API_SERVER, *FAKE_NODES))
    request.getfixturevalue("shared_cluster").start_fake_nodes()


@pytest.fixture
def fake_gpu_nodes(
    scheduler: None, api_server: ApiServer, namespace: str
) -> Iterator[FakeGpuNodes]:
    """Makes nodes with fake GPUs: ``fake_gpu_nodes(20)`` gives their names once they are ready.

    Only pods that tolerate their taint come there: ``fake_nodes.toleration(namespace)``.
    """
    nodes = FakeGpuNodes(api_server, namespace)
    yield nodes
    nodes.remove()
