"""What a Node's object keeps off it: cordons, drains and taints. Pure.

Kubernetes knows cordoned nodes and taints, but no drained ones: `kubectl drain` cordons, then
evicts pods, and those of DaemonSets, as agents and Ray workers are, stay. So whoever wants what
runs there to move away says so with an annotation beside the cordon, or with a NoExecute taint.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from controlplane.domain.ids import NodeId
from controlplane.domain.node import Closed, ClosedNode

DRAIN = "headrace.dev/drain"
"""Annotation: with "true", what runs on a cordoned node moves away."""
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
_OF_EVERY_DAEMON = frozenset(
    f"node.kubernetes.io/{name}"
    for name in (
        "not-ready",
        "unreachable",
        "disk-pressure",
        "memory-pressure",
        "pid-pressure",
        "network-unavailable",
    )
)
"""Taints that agents' pods tolerate unasked; whether such a node lives, its agent tells."""
_KEEPS_OFF = ("NoSchedule", "NoExecute")


class Toleration(BaseModel):
    """As in a pod's spec."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True)

    key: str = ""
    operator: Literal["Exists", "Equal"] = "Equal"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    toleration_seconds: int | None = None

    def tolerates(self, taint: Mapping[str, Any]) -> bool:
        """Whether pods with it may stay beside the taint. One for a while does not count."""
        if self.effect not in ("", taint.get("effect")) or self.toleration_seconds is not None:
            return False
        if not self.key:
            return self.operator == "Exists"
        same = self.key == taint.get("key")
        return same and (self.operator == "Exists" or self.value == (taint.get("value") or ""))


class Pool(BaseModel):
    """Nodes that agents run on, as the chart has them.

    Attributes:
        node_selector: Labels that they all have; empty for every node.
        tolerations: Of the agents' pods.
    """

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True)

    node_selector: dict[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()

    def has(self, labels: Mapping[str, str]) -> bool:
        """Whether a node with these labels is one of them."""
        return all(labels.get(key) == value for key, value in self.node_selector.items())


Pools = tuple[Pool, ...]
ANY_NODE: Pools = (Pool(),)
_POOLS: TypeAdapter[Pools] = TypeAdapter(Pools)


def read_pools(text: str) -> Pools:
    """Pools of a JSON array; an empty text is one pool of all nodes that tolerates nothing.

    Raises:
        ValueError: It is none; a sentence that says where.
    """
    if not text.strip():
        return ANY_NODE
    try:
        return _POOLS.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "its beginning"
        raise ValueError(
            "wanted a JSON array of pools, each with nodeSelector and tolerations as in a pod's "
            f"spec; at {where}: {first['msg']}"
        ) from None


@dataclass(frozen=True, slots=True)
class Node:
    """What is kept of one object, of which there may be thousands.

    Attributes:
        name: Its name, which its agent has too.
        uid: Minted by the API server.
        version: Its resourceVersion.
        closed: What it keeps off itself; None if nothing.
    """

    name: str
    uid: str
    version: int
    closed: ClosedNode | None

    @property
    def key(self) -> tuple[str, str]:
        """No namespace, and the name."""
        return "", self.name


def node(document: Mapping[str, Any], pools: Pools) -> Node:
    """What is kept of an object."""
    metadata = document["metadata"]
    return Node(
        metadata["name"],
        metadata["uid"],
        int(metadata["resourceVersion"]),
        closed_node(document, pools),
    )


def closed_node(document: Mapping[str, Any], pools: Pools) -> ClosedNode | None:
    """What a node's object keeps off it; None if nothing, or if no agent of ours runs there."""
    metadata, spec = document["metadata"], document.get("spec", {})
    labels = metadata.get("labels") or {}
    mine = [pool for pool in pools if pool.has(labels)]
    if not mine:
        return None
    closed, why = None, []
    taints = [each for each in spec.get("taints") or () if _counts(each, mine)]
    if spec.get("unschedulable"):
        closed = Closed.TO_NEW_WORK
        why.append("it is cordoned")
        if (metadata.get("annotations") or {}).get(DRAIN) == "true":
            closed = Closed.TO_ALL_WORK
            why.append(f"its annotation {DRAIN} is true")
    for taint in taints:
        if taint["effect"] == "NoExecute":
            closed = Closed.TO_ALL_WORK
        why.append(f"taint {_said(taint)} is not tolerated")
    if taints and closed is None:
        closed = Closed.TO_NEW_WORK
    return None if closed is None else ClosedNode(NodeId(metadata["name"]), closed, "; ".join(why))


def _counts(taint: Mapping[str, Any], pools: Sequence[Pool]) -> bool:
    if taint.get("effect") not in _KEEPS_OFF or taint["key"] in _OF_EVERY_DAEMON:
        return False
    if taint["key"] == UNSCHEDULABLE:
        return False  # That is the cordon, which the spec tells first.
    return not any(each.tolerates(taint) for pool in pools for each in pool.tolerations)


def _said(taint: Mapping[str, Any]) -> str:
    value = f"={taint['value']}" if taint.get("value") else ""
    return f"{taint['key']}{value}:{taint['effect']}"
