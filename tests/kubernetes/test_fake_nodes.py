"""Nodes that are not there: a real scheduler fills their GPUs, and kwok lets the pods run."""

from collections import Counter

import pytest
from kubernetes import client

from tests.kubernetes.api_server import ApiServer
from tests.kubernetes.fake_nodes import FakeGpuNodes, toleration
from tests.kubernetes.waiting import until

pytestmark = pytest.mark.process

NODES = 20
GPUS_A_NODE = 8
GPUS_A_POD = 4


def gpu_pod(name: str, namespace: str) -> client.V1Pod:
    resources = client.V1ResourceRequirements(limits={"nvidia.com/gpu": str(GPUS_A_POD)})
    container = client.V1Container(name="c", image="localhost/none:test", resources=resources)
    return client.V1Pod(
        metadata=client.V1ObjectMeta(name=name),
        spec=client.V1PodSpec(
            containers=[container],
            tolerations=[client.V1Toleration(**toleration(namespace))],
            termination_grace_period_seconds=1,
        ),
    )


class Pods:
    """The pods of one namespace as they are now."""

    def __init__(self, api_server: ApiServer, namespace: str) -> None:
        self.core = client.CoreV1Api(api_server.client)
        self.namespace = namespace

    def create(self, name: str) -> None:
        self.core.create_namespaced_pod(self.namespace, gpu_pod(name, self.namespace))

    def running(self) -> Counter[str]:
        """How many run on each node."""
        pods = self.core.list_namespaced_pod(self.namespace).items
        return Counter(
            str(pod.spec and pod.spec.node_name)
            for pod in pods
            if pod.status and pod.status.phase == "Running"
        )

    def unschedulable(self, name: str) -> str:
        """What the scheduler says of a pod that it cannot place; else nothing."""
        status = self.core.read_namespaced_pod(name, self.namespace).status
        conditions = (status and status.conditions) or []
        return next((str(c.message) for c in conditions if c.reason == "Unschedulable"), "")


@pytest.fixture
def pods(api_server: ApiServer, namespace: str) -> Pods:
    return Pods(api_server, namespace)


def test_a_fake_node_is_ready_and_has_what_was_asked(
    api_server: ApiServer, fake_gpu_nodes: FakeGpuNodes
) -> None:
    [name] = fake_gpu_nodes(1, gpus=4, labels={"topology.kubernetes.io/zone": "west"})
    node = client.CoreV1Api(api_server.client).read_node(name)
    assert node.status is not None
    assert node.metadata is not None
    assert (node.status.allocatable or {})["nvidia.com/gpu"] == "4"
    assert (node.metadata.labels or {})["topology.kubernetes.io/zone"] == "west"


def test_the_scheduler_fills_fake_gpus_and_no_more(
    fake_gpu_nodes: FakeGpuNodes, pods: Pods
) -> None:
    names = fake_gpu_nodes(NODES, gpus=GPUS_A_NODE)
    fit = GPUS_A_NODE // GPUS_A_POD
    for number in range(NODES * fit):
        pods.create(f"p-{number}")
    until("all that fit run", lambda: pods.running().total() == NODES * fit)
    assert pods.running() == dict.fromkeys(names, fit)

    pods.create("too-many")
    said = until("the scheduler has tried", lambda: pods.unschedulable("too-many"))
    assert f"{NODES} Insufficient nvidia.com/gpu" in said


def test_pods_of_others_stay_off(fake_gpu_nodes: FakeGpuNodes, pods: Pods) -> None:
    fake_gpu_nodes(1)
    pod = gpu_pod("stranger", pods.namespace)
    assert pod.spec is not None
    pod.spec.tolerations = [client.V1Toleration(**toleration("somebody-else"))]
    pods.core.create_namespaced_pod(pods.namespace, pod)
    said = until("the scheduler has tried", lambda: pods.unschedulable("stranger"))
    assert "untolerated taint" in said
