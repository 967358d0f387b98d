"""Nodes with GPUs that are not there: kwok keeps them ready and lets their pods seem to run."""

from collections.abc import Sequence

from kubernetes import client

from tests.kubernetes.api_server import ApiServer
from tests.kubernetes.control_plane import NODE_LABEL
from tests.kubernetes.waiting import until

TAINT = "kwok"
"""Keeps off the pods of tests that do not mean these nodes."""

OWNER_LABEL = "headrace.test/of"


def toleration(owner: str) -> dict[str, str]:
    """What a pod needs to be put on the fake nodes of this owner."""
    return {"key": TAINT, "operator": "Equal", "value": owner, "effect": "NoSchedule"}


def _described(
    name: str, owner: str, gpus: int, labels: dict[str, str], taints: Sequence[client.V1Taint]
) -> client.V1Node:
    holds = {"cpu": "96", "memory": "1Ti", "pods": "110", "nvidia.com/gpu": str(gpus)}
    every = {NODE_LABEL[0]: NODE_LABEL[1], "kubernetes.io/hostname": name, OWNER_LABEL: owner}
    return client.V1Node(
        metadata=client.V1ObjectMeta(name=name, labels={**every, **labels}),
        spec=client.V1NodeSpec(taints=list(taints)),
        status=client.V1NodeStatus(capacity=holds, allocatable=holds),
    )


class FakeGpuNodes:
    """The fake nodes of one test, told apart from those of others by their owner's name."""

    def __init__(self, api_server: ApiServer, owner: str) -> None:
        self._core = client.CoreV1Api(api_server.client)
        self._owner = owner
        self._made: list[str] = []

    def __call__(
        self,
        count: int,
        *,
        gpus: int = 8,
        labels: dict[str, str] | None = None,
        taints: Sequence[client.V1Taint] | None = None,
    ) -> list[str]:
        """Makes more nodes and waits until the scheduler would use them.

        Args:
            count: How many.
            gpus: ``nvidia.com/gpu`` of each.
            labels: Further labels of each, such as its rack.
            taints: In place of the one that ``toleration(owner)`` tolerates.

        Returns:
            Their names.
        """
        if taints is None:
            taints = [client.V1Taint(key=TAINT, value=self._owner, effect="NoSchedule")]
        names = [f"{self._owner}-{len(self._made) + number:03}" for number in range(count)]
        for name in names:
            self._core.create_node(_described(name, self._owner, gpus, labels or {}, taints))
            self._made.append(name)
        until(f"{count} fake nodes are ready", lambda: set(names) <= self._ready())
        return names

    def remove(self) -> None:
        """Deletes them; does not wait."""
        if self._made:
            self._core.delete_collection_node(label_selector=f"{OWNER_LABEL}={self._owner}")

    def _ready(self) -> set[str]:
        nodes = self._core.list_node(label_selector=f"{OWNER_LABEL}={self._owner}").items
        return {_name(node) for node in nodes if _is_usable(node)}


def _name(node: client.V1Node) -> str:
    return str(node.metadata and node.metadata.name)


def _is_usable(node: client.V1Node) -> bool:
    """Ready, and without what the node controller puts on those that were not ready yet."""
    conditions = (node.status and node.status.conditions) or []
    taints = (node.spec and node.spec.taints) or []
    return any(one.type == "Ready" and one.status == "True" for one in conditions) and not any(
        taint.key.startswith("node.kubernetes.io/") for taint in taints
    )
