"""Who goes first, and why the others wait: the sentences that both baselines share."""

from collections import Counter
from collections.abc import Callable, Collection
from copy import copy
from functools import lru_cache

from controlplane.baselines.capacity import Capacity, Signature, signature
from controlplane.baselines.layout import sizes
from controlplane.domain.ids import JobUid, NodeId, QueueName
from controlplane.domain.job import AcceleratorRequest, ServiceClass
from controlplane.domain.lifecycle import FINISHED, Stage
from controlplane.domain.node import Contact
from controlplane.domain.placement import Placement
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import JobRecord
from controlplane.domain.snapshot import ClusterSnapshot

RUNNING = Reason(ReasonCode.RUNNING)

TOLD_PRECISELY = 20
"""So many jobs that ask the same are told what they miss; see ``Answers``."""

_OUT = FINISHED | {Stage.SUSPENDED}

Question = tuple[AcceleratorRequest, int, QueueName]
"""All that decides whether a waiting job fits; equal questions have equal answers."""


def question(record: JobRecord) -> Question:
    """What the job asks of the cluster."""
    spec = record.job.spec
    return (spec.accelerators, spec.global_batch_size, spec.queue)


def candidates(
    snapshot: ClusterSnapshot, standing: Callable[[JobRecord], int] | None = None
) -> list[JobRecord]:
    """Jobs that could hold accelerators: higher priority first, guaranteed before best effort,
    then by their ``standing`` if that is given, then in order of submission.
    """
    ranks: dict[tuple[int, bool, int], list[JobRecord]] = {}
    for record in snapshot.jobs.values():
        if record.stage in _OUT or record.withdrawn:
            continue
        spec = record.job.spec
        if spec.suspend:
            continue  # Its attempt, if it has one, is being stopped.
        best_effort = spec.service_class is not ServiceClass.GUARANTEED
        rank = (-spec.priority, best_effort, 0 if standing is None else standing(record))
        group = ranks.get(rank)
        if group is None:
            group = ranks[rank] = []
        group.append(record)
    return [record for rank in sorted(ranks) for record in ranks[rank]]


def nodes_to_leave(snapshot: ClusterSnapshot) -> frozenset[NodeId]:
    """Nodes that must not run anything now, because they were drained or lost.

    A node that was not heard of since the control plane started is not among them: nothing is
    known against it.
    """
    return frozenset(
        node.id for node in snapshot.nodes.values() if node.drained or node.contact is Contact.LOST
    )


def left_nodes(placement: Placement, away: frozenset[NodeId]) -> list[NodeId]:
    """Those of ``away`` that the placement is on."""
    return sorted({unit.node for unit in placement.units} & away) if away else []


def outdated(record: JobRecord, placement: Placement, capacity: Capacity) -> bool:
    """Whether the job's spec, if it was changed since, does not allow this placement any more."""
    if record.job.generation == 1:
        return False
    spec = record.job.spec
    if placement.accelerator_count not in sizes(spec):
        return True
    return not capacity.suits(spec.accelerators, placement.slots())


def impossible(record: JobRecord, capacity: Capacity, quotas: "Quotas") -> Reason | None:
    """Why the job can never run in this cluster as it is; None if it could.

    Args:
        record: The job.
        capacity: The cluster's accelerators.
        quotas: The queues.
    """
    spec = record.job.spec
    if not quotas.known(spec.queue):
        return Reason(
            ReasonCode.QUEUE_MISSING,
            f"queue {spec.queue} does not exist; `headrace queue set {spec.queue}` creates it",
        )
    possible = sizes(spec)
    if not possible:
        text = (
            f"no number of accelerators from {spec.accelerators.minimum} to "
            f"{spec.accelerators.maximum} divides the global batch of {spec.global_batch_size}"
        )
        return Reason(ReasonCode.BATCH_NOT_DIVISIBLE, text)
    most = capacity.most_if_empty(spec.accelerators)
    if most == 0:
        wanted = spec.accelerators.type or "accelerator"
        text = f"no usable node has an {wanted} that its selector, taints and sizes allow"
        return Reason(ReasonCode.NO_MATCHING_ACCELERATOR, text, possible[0], 0)
    if most < possible[0]:
        text = f"wants {possible[0]} accelerators, the usable nodes have {most} for it"
        return Reason(ReasonCode.EXCEEDS_CLUSTER, text, possible[0], most)
    quota = quotas.whole(spec.queue)
    if quota is not None and quota < possible[0]:
        text = f"wants {possible[0]} accelerators, the whole quota of queue {spec.queue} is {quota}"
        return Reason(ReasonCode.QUOTA_EXCEEDED, text, possible[0], quota)
    return None


class Holders:
    """Who holds what a job misses; counted once for all jobs that can use the same nodes."""

    def __init__(self, snapshot: ClusterSnapshot, capacity: Capacity) -> None:
        """Counts nothing yet."""
        self._snapshot = snapshot
        self._capacity = capacity
        self._known: dict[Signature, tuple[JobUid, ...]] = {}

    def of(self, record: JobRecord) -> tuple[JobUid, ...]:
        """The largest holders of accelerators that the job could use, itself left out."""
        request = record.job.spec.accelerators
        key = signature(request)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._largest(self._capacity.names(request))
        return tuple(uid for uid in found if uid != record.uid)[:5]

    def _largest(self, nodes: Collection[NodeId]) -> tuple[JobUid, ...]:
        holders = self._snapshot.holders
        if len(nodes) == len(self._snapshot.nodes):
            held = Counter(holders.values())
        else:
            held = Counter(uid for (node, _), uid in holders.items() if node in nodes)
        return tuple(uid for uid, _ in sorted(held.items(), key=lambda i: (-i[1], i[0]))[:6])


class Answers:
    """What was answered to a question, for those who ask the same later in the order.

    The first ones are told precisely what they miss and who holds it. Those far behind are told
    only that others come first: their reasons would all change whenever somebody starts, and a
    queue of thousands would fill the log with it.
    """

    def __init__(self) -> None:
        """Nothing was asked yet."""
        self._known: dict[Question, list[Reason]] = {}

    def give(self, record: JobRecord, reason: Reason, *, lasting: bool) -> None:
        """Notes the answer to the job's question; a lasting one does not change with who runs
        just now.
        """
        asked = question(record)
        if lasting:
            self._known[asked] = [reason]
        else:
            behind = _behind_others(max(1, asked[0].minimum))
            self._known[asked] = [behind, *[reason] * TOLD_PRECISELY]

    def take(self, record: JobRecord) -> Reason | None:
        """The answer for the next one who asks; None if nobody asked the same before."""
        known = self._known.get(question(record))
        if known is None:
            return None
        return known.pop() if len(known) > 1 else known[0]


@lru_cache(maxsize=4096)
def _behind_others(wanted: int) -> Reason:
    """One object for all, cycle after cycle, so that it is recognised without a comparison."""
    text = "earlier jobs wait for the same accelerators"
    return Reason(ReasonCode.BEHIND_EARLIER_JOB, text, wanted=wanted)


def waits(wanted: int, available: int, holders: tuple[JobUid, ...]) -> Reason:
    """The job waits for accelerators that others hold."""
    text = f"wants {wanted} accelerators, {available} are free for it"
    return Reason(ReasonCode.WAITING_FOR_ACCELERATORS, text, wanted, available, holders)


class Quotas:
    """Accelerators that each queue may still hold; counts down as they are given out."""

    def __init__(self, snapshot: ClusterSnapshot) -> None:
        """Starts with every queue's whole quota."""
        self._whole: dict[QueueName, int | None] = {
            name: queue.quota_accelerators for name, queue in snapshot.queues.items()
        }
        self._left = dict(self._whole)

    def copy(self) -> "Quotas":
        """The same counts, to go on with separately."""
        twin = copy(self)
        twin._left = dict(self._left)
        return twin

    def known(self, queue: QueueName) -> bool:
        """Whether there is such a queue."""
        return queue in self._whole

    def whole(self, queue: QueueName) -> int | None:
        """The queue's whole quota; None for no limit."""
        return self._whole.get(queue)

    def allows(self, queue: QueueName, count: int) -> bool:
        """Whether ``count`` more accelerators stay within the queue's quota."""
        left = self._left.get(queue)
        return left is None or count <= left

    def use(self, queue: QueueName, count: int) -> None:
        """Counts ``count`` accelerators (negative gives them back)."""
        left = self._left.get(queue)
        if left is not None:
            self._left[queue] = left - count

    def exceeded(self, queue: QueueName, wanted: int) -> Reason:
        """The reason of a job that its queue's quota keeps waiting."""
        left = max(0, self._left.get(queue) or 0)
        text = f"wants {wanted} accelerators, the quota of queue {queue} leaves {left}"
        return Reason(ReasonCode.QUOTA_EXCEEDED, text, wanted, left)
