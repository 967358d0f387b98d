"""What a job that waits is told: what it wants, what it lacks, who holds that, and who comes first.

Thousands of jobs that ask the same are told the same object: it is made once, and recognised
without a comparison.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from controlplane.domain.ids import JobUid, NodeId, QueueName
from controlplane.domain.job import AcceleratorRequest
from controlplane.domain.reason import Reason, ReasonCode, named_holders
from controlplane.domain.record import JobRecord
from controlplane.domain.snapshot import ClusterSnapshot, Slot
from controlplane.placing.capacity import Capacity, Signature, signature
from headrace.api.plan import ExecutionPlan

Question = tuple[AcceleratorRequest, int, tuple[ExecutionPlan, ...], str, QueueName, str]
"""All that decides whether a waiting job fits; equal questions have equal answers."""


def question(record: JobRecord) -> Question:
    """What the job asks of the cluster."""
    spec = record.job.spec
    asked = (spec.accelerators, spec.global_batch_size, spec.plans, spec.model, spec.queue)
    return (*asked, record.job.namespace)


@dataclass(frozen=True, slots=True)
class Ahead:
    """A job that waits and comes first.

    Attributes:
        record: The job.
        wanted: Accelerators that it waits for.
        of_quota: Whether it is its queue's quota that it waits for.
    """

    record: JobRecord
    wanted: int
    of_quota: bool = False


_Held = tuple[tuple[JobUid, ...], int]
"""The largest holders of what a job could use, and how many more there are."""


class Waits:
    """The reasons of jobs that wait, with who holds what they lack.

    Holders are counted once for all jobs that can use the same nodes, or share a queue. Those who
    start or move in this very cycle are among them: it is because of them that others wait.
    """

    def __init__(self, snapshot: ClusterSnapshot, capacity: Capacity) -> None:
        """Counts nothing yet."""
        self._snapshot = snapshot
        self._capacity = capacity
        self._starting: dict[Slot, JobUid] = {}
        self._of_nodes: dict[Signature, _Held] = {}
        self._of_queues: dict[QueueName, _Held] = {}

    def gets(self, uid: JobUid, slots: Iterable[Slot]) -> None:
        """A job starts on these, or moves there, before anyone is told that they are gone."""
        holders = self._snapshot.holders
        new = [slot for slot in slots if holders.get(slot) != uid]
        self._starting.update(dict.fromkeys(new, uid))
        self._everywhere[uid] += len(new)

    def for_accelerators(self, record: JobRecord, wanted: int, available: int) -> Reason:
        """The job waits for accelerators that others hold."""
        request = record.job.spec.accelerators
        where = request.topology.words
        text = f"wants {_accelerators(wanted, request.type)}{where}, {available} free for it{where}"
        code, held = ReasonCode.WAITING_FOR_ACCELERATORS, self._on_nodes(request)
        return Reason(code, text, wanted, available, *held, request.type)

    def for_quota(self, record: JobRecord, wanted: int, left: int) -> Reason:
        """The job waits for a share of its queue's quota."""
        queue, kind = record.job.spec.queue, record.job.spec.accelerators.type
        text = f"wants {_accelerators(wanted, kind)}, the quota of queue {queue} leaves {left}"
        held = self._in_queue(queue)
        return Reason(ReasonCode.QUOTA_EXCEEDED, text, wanted, left, *held, kind)

    def behind(self, record: JobRecord, wanted: int, ahead: Ahead) -> Reason:
        """The job waits behind another one, for which all that is free is kept."""
        queue, request = record.job.spec.queue, record.job.spec.accelerators
        first = ahead.record.job
        text = (
            f"wants {_accelerators(wanted, request.type)}; "
            f"{first.full_name} wants {ahead.wanted} before it"
        )
        held = self._in_queue(queue) if ahead.of_quota else self._on_nodes(request)
        if ahead.of_quota:
            text += f", of the quota of queue {queue}"
        code = ReasonCode.BEHIND_EARLIER_JOB
        return Reason(code, text, wanted, 0, *held, request.type, first.uid, ahead.of_quota)

    def _on_nodes(self, request: AcceleratorRequest) -> _Held:
        key = signature(request)
        found = self._of_nodes.get(key)
        if found is None:
            found = self._of_nodes[key] = named_holders(self._counted(request))
        return found

    def _in_queue(self, queue: QueueName) -> _Held:
        found = self._of_queues.get(queue)
        if found is None:
            jobs, aside = self._snapshot.jobs, self._snapshot.set_aside
            held = {
                uid: count
                for uid, count in self._everywhere.items()
                if (record := jobs.get(uid) or aside.get(uid)) is not None
                and record.job.spec.queue == queue
            }
            found = self._of_queues[queue] = named_holders(held)
        return found

    def _counted(self, request: AcceleratorRequest) -> Counter[JobUid]:
        """Accelerators that the request could use, by who holds them."""
        nodes = self._capacity.names(request)
        others = self._of_other_types(request, nodes)
        if not others and len(nodes) == len(self._snapshot.nodes):
            return self._everywhere
        every = [*self._snapshot.holders.items(), *self._starting.items()]
        return Counter(uid for slot, uid in every if slot[0] in nodes and slot not in others)

    def _of_other_types(self, request: AcceleratorRequest, nodes: Iterable[NodeId]) -> set[Slot]:
        """On nodes with several types, what is of another one than the request asks for."""
        if not request.type:
            return set()
        usable, known = self._snapshot.usable, self._snapshot.nodes
        return {
            (name, accelerator.id)
            for name in nodes
            if len(usable[name]) > 1
            for accelerator in known[name].node.accelerators
            if accelerator.type != request.type
        }

    @cached_property
    def _everywhere(self) -> Counter[JobUid]:
        return Counter(self._snapshot.holders.values())


def _accelerators(count: int, kind: str) -> str:
    return f"{count} {kind}{' ' if kind else ''}accelerator{'' if count == 1 else 's'}"
