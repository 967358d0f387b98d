"""Nodes and their accelerators, as agents register them."""

from dataclasses import dataclass
from enum import StrEnum

from controlplane.domain.ids import AcceleratorId, NodeId
from headrace.api.racks import RACK_LABEL


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One GPU, or one CPU slot that stands in for one.

    Attributes:
        id: GPU UUID or stable slot name.
        type: Model as a label value, e.g. ``nvidia-h100-80gb-hbm3`` or ``cpu``.
        memory_bytes: Device memory; 0 for a CPU slot.
        cpu_cores: Core numbers of the node that belong to this accelerator.
        host_memory_bytes: The share of the node's memory that belongs to it.
        unhealthy: Why it is quarantined; empty while healthy.
        island: Those of a node with the same name reach each other over NVLink; empty for one that
            reaches none so, or where nobody knows.
    """

    id: AcceleratorId
    type: str
    memory_bytes: int = 0
    cpu_cores: tuple[int, ...] = ()
    host_memory_bytes: int = 0
    unhealthy: str = ""
    island: str = ""


@dataclass(frozen=True, slots=True)
class Taint:
    """Keeps jobs off a node unless they tolerate it."""

    key: str
    value: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """One machine as its agent describes it.

    Attributes:
        id: Name of the node.
        accelerators: What it has, in a stable order.
        labels: Sorted key-value pairs, matched by selectors.
        taints: Kept off unless tolerated.
        address: Host name or IP that other nodes reach it under.
        agent_version: Version of the agent that speaks for it.
    """

    id: NodeId
    accelerators: tuple[Accelerator, ...]
    labels: tuple[tuple[str, str], ...] = ()
    taints: tuple[Taint, ...] = ()
    address: str = ""
    agent_version: str = ""

    @property
    def rack(self) -> str:
        """The rack that it is in; empty where it tells none."""
        return next((value for key, value in self.labels if key == RACK_LABEL), "")


class Closed(StrEnum):
    """What Kubernetes keeps off one of its nodes."""

    TO_NEW_WORK = "Cordoned"
    """Nothing is placed there; what runs there goes on."""
    TO_ALL_WORK = "Drained"
    """The same, and what runs there moves away."""


@dataclass(frozen=True, slots=True)
class ClosedNode:
    """A node that Kubernetes keeps work off, as an operator tells.

    Attributes:
        node: Its name, which need not be known here yet.
        closed: To what.
        why: What its object says, for example ``spec.unschedulable is set``.
    """

    node: NodeId
    closed: Closed
    why: str = ""


class Contact(StrEnum):
    """Whether the node's agent can be heard."""

    ONLINE = "Online"
    SILENT = "Silent"
    """Known from the store, not heard of yet since the control plane started."""
    LOST = "Lost"
    """Silent for longer than allowed. What ran there counts as ended, and is fenced."""
