"""All that was known at one instant: what a policy may see."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from controlplane.domain.clock import Instant
from controlplane.domain.ids import AcceleratorId, JobUid, NodeId, QueueName
from controlplane.domain.queue import Queue
from controlplane.domain.record import JobRecord, NodeRecord

Slot = tuple[NodeId, AcceleratorId]


@dataclass(frozen=True)
class ClusterSnapshot:
    """A frozen view of the cluster.

    Attributes:
        at: The instant it holds for.
        jobs: Every job that is not forgotten, in order of submission.
        nodes: Every known node, in order of registration.
        queues: Every queue.
    """

    at: Instant
    jobs: Mapping[JobUid, JobRecord]
    nodes: Mapping[NodeId, NodeRecord]
    queues: Mapping[QueueName, Queue]

    @cached_property
    def holders(self) -> Mapping[Slot, JobUid]:
        """Who holds each accelerator that is not free: attempts not released, and strays."""
        held: dict[Slot, JobUid] = {}
        for node in self.nodes.values():
            for stray in node.strays:
                held.update({(node.id, slot): stray.uid for slot in stray.accelerators})
        for uid, record in self.jobs.items():
            attempt = record.attempt
            if attempt is None:
                continue
            released = {known.unit for known in attempt.exits} if attempt.exits else ()
            for unit in attempt.placement.units:
                if unit.index not in released:
                    node_id = unit.node
                    for slot in unit.accelerators:
                        held[node_id, slot] = uid
        return held
