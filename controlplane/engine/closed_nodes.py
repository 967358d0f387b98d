"""Which nodes Kubernetes keeps work off, as each operator told last. Pure."""

from collections.abc import Mapping

from controlplane.domain.changing import changed
from controlplane.domain.event import NodesClosed
from controlplane.domain.ids import NodeId
from controlplane.domain.node import Closed, ClosedNode
from controlplane.domain.record import NodeRecord

Told = Mapping[str, tuple[ClosedNode, ...]]
"""By the name of the operator's lease, for several may look at nodes. An operator that told of none
has no entry.
"""


def _told_by(told: Told, event: NodesClosed) -> dict[str, tuple[ClosedNode, ...]]:
    """What all of them told, once one told anew."""
    rest = {name: nodes for name, nodes in told.items() if name != event.operator}
    return {**rest, event.operator: event.nodes} if event.nodes else rest


def closing_of(told: Told, name: NodeId) -> ClosedNode | None:
    """What keeps work off a node: of several operators who say so, the strictest; None if none."""
    found = [each for nodes in told.values() for each in nodes if each.node == name]
    strict = (each for each in found if each.closed is Closed.TO_ALL_WORK)
    return next(strict, found[0] if found else None)


def close(
    before: Told, nodes: dict[NodeId, NodeRecord], event: NodesClosed
) -> dict[str, tuple[ClosedNode, ...]]:
    """Closes and opens nodes as one operator told anew; returns what all of them told by now."""
    told = _told_by(before, event)
    for name, record in nodes.items():
        closed = closing_of(told, name)
        if record.closed != closed:
            nodes[name] = changed(record, closed=closed)
    return told
