"""Which nodes are in one rack."""

from collections.abc import Collection, Mapping

from controlplane.domain.ids import NodeId
from controlplane.domain.record import NodeRecord


def racks_of(nodes: Mapping[NodeId, NodeRecord]) -> dict[NodeId, str]:
    """The rack of each node that tells one, in order of registration."""
    return {name: rack for name, node in nodes.items() if (rack := node.node.rack)}


def racks_spanned(racks: Mapping[NodeId, str], nodes: Collection[NodeId]) -> int:
    """Over how many racks these nodes are spread; one that tells none counts as a rack of its own.

    Args:
        racks: The rack of each node that tells one.
        nodes: The nodes, each once.
    """
    told = {racks[name] for name in nodes if name in racks}
    return len(told) + sum(name not in racks for name in nodes)
