"""What is wrong with nodes: found once, and again only when a node changes."""

from collections.abc import Mapping
from dataclasses import dataclass

from controlplane.domain.ids import AcceleratorId, NodeId
from controlplane.domain.node import Contact
from controlplane.domain.record import NodeRecord

Unhealthy = Mapping[NodeId, Mapping[AcceleratorId, str]]
"""Quarantined accelerators by node, with why."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What is wrong with nodes.

    Attributes:
        unhealthy: Quarantined accelerators.
        away: Nodes that must not run anything now, because they were drained or lost.
        closed: Nodes where what runs stays as it is and nothing may be placed: they have not spoken
            since the control plane started, or Kubernetes has cordoned them.
        silent: Nodes that have not spoken since the control plane started.
        strays: Nodes with strays.
        tainted: Nodes with taints.
    """

    unhealthy: Unhealthy
    away: frozenset[NodeId]
    closed: frozenset[NodeId]
    silent: tuple[NodeId, ...]
    strays: tuple[NodeId, ...]
    tainted: tuple[NodeId, ...]


def conditions_of(nodes: Mapping[NodeId, NodeRecord]) -> Conditions:
    """What is wrong with these nodes; mostly nothing, and seldom anything new."""
    unhealthy: dict[NodeId, dict[AcceleratorId, str]] = {}
    for node in nodes.values():
        for accelerator in node.node.accelerators:
            if accelerator.unhealthy:
                unhealthy.setdefault(node.id, {})[accelerator.id] = accelerator.unhealthy
    return Conditions(
        unhealthy,
        frozenset(n.id for n in nodes.values() if n.must_be_left),
        frozenset(n.id for n in nodes.values() if n.only_goes_on),
        tuple(n.id for n in nodes.values() if n.contact is Contact.SILENT),
        tuple(n.id for n in nodes.values() if n.strays),
        tuple(n.id for n in nodes.values() if n.node.taints),
    )
