"""Which nodes Kubernetes keeps work off: protobuf to domain, and the words for it."""

from collections import Counter
from collections.abc import Sequence

from controlplane.domain.ids import NodeId
from controlplane.domain.node import Closed, ClosedNode
from controlplane.domain.record import NodeRecord
from controlplane.wire.violations import Checks
from headrace.api.generated import admin_pb2

MOST = 20_000
_REASON_MOST = 512
_KINDS = {closed.value: closed for closed in Closed}


def closed_nodes_from_wire(told: Sequence[admin_pb2.ClosedNode]) -> tuple[ClosedNode, ...]:
    """What an operator told, by name of node.

    Raises:
        InvalidMessageError: A node has no name or stands twice, or is closed in no way known here.
    """
    checks = Checks()
    checks.wants(len(told) <= MOST, "nodes", f"at most {MOST}", len(told))
    times = Counter(each.node for each in told)
    for index, each in enumerate(told):
        at = f"nodes[{index}]"
        checks.wants(0 < len(each.node) <= 253, f"{at}.node", "a name of 1 to 253", each.node)
        checks.wants(times[each.node] == 1, f"{at}.node", "every node once", each.node)
        checks.wants(
            each.closed in _KINDS, f"{at}.closed", f"one of {', '.join(_KINDS)}", each.closed
        )
    checks.finish()
    found = (
        ClosedNode(NodeId(each.node), _KINDS[each.closed], each.reason[:_REASON_MOST])
        for each in told
    )
    return tuple(sorted(found, key=lambda each: each.node))


def kept_closed(node: NodeRecord) -> str:
    """Why a node takes no work though nobody here drains it; empty if Kubernetes minds nothing."""
    if node.closed is None:
        return ""
    return (
        f"Kubernetes keeps work off {node.id} ({node.closed.closed.value}: {node.closed.why}); "
        f"`kubectl uncordon {node.id}`, or without its taint, it takes work again"
    )
