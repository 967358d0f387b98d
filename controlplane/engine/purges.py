"""Which node removes the checkpoints of jobs that are forgotten. Pure."""

from collections.abc import Mapping

from controlplane.domain.ids import Attempt, JobUid, NodeId
from controlplane.domain.node import Contact
from controlplane.domain.record import NodeRecord

Purges = dict[JobUid, tuple[NodeId, Attempt, str]]
"""Of each job who removes them, under which attempt, and its manifest."""


def purger(nodes: Mapping[NodeId, NodeRecord]) -> NodeId:
    """A node to remove checkpoints; empty while none can be reached.

    A node that has not spoken since a restart is as good as one that has: the choice is folded
    again from the log and must not depend on what only the live process knew.
    """
    heard = (node.id for node in nodes.values() if node.contact is not Contact.LOST)
    return next(heard, NodeId(""))


def hand_over(purges: Purges, nodes: Mapping[NodeId, NodeRecord], lost: NodeId) -> None:
    """Another node removes what one was to remove that is lost."""
    for uid, (holder, attempt, manifest) in purges.items():
        if holder == lost:
            purges[uid] = (purger(nodes), attempt, manifest)
