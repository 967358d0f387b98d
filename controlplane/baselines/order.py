"""Who goes first, and why the others wait: the sentences that both baselines share."""

from collections import Counter

from controlplane.baselines.capacity import Capacity, sizes
from controlplane.domain.ids import JobUid, QueueName
from controlplane.domain.job import ServiceClass
from controlplane.domain.lifecycle import FINISHED, Stage
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import JobRecord
from controlplane.domain.snapshot import ClusterSnapshot

RUNNING = Reason(ReasonCode.RUNNING)


def candidates(snapshot: ClusterSnapshot) -> list[JobRecord]:
    """Jobs that could hold accelerators: higher priority first, guaranteed before best effort,
    then in order of submission.
    """
    unfinished = [
        record
        for record in snapshot.jobs.values()
        if record.stage not in FINISHED
        and record.stage is not Stage.SUSPENDED
        and not record.withdrawn
        and not (record.job.spec.suspend and record.attempt is None)
    ]
    return sorted(
        unfinished,
        key=lambda record: (
            -record.job.spec.priority,
            record.job.spec.service_class is not ServiceClass.GUARANTEED,
        ),
    )


def impossible(record: JobRecord, capacity: Capacity, queue_known: bool) -> Reason | None:
    """Why the job can never run in this cluster as it is; None if it could.

    Args:
        record: The job.
        capacity: All usable accelerators, held or not.
        queue_known: Whether its queue exists.
    """
    spec = record.job.spec
    if not queue_known:
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
    most = capacity.most(spec.accelerators)
    if most == 0:
        wanted = spec.accelerators.type or "accelerator"
        text = f"no usable node has an {wanted} that its selector, taints and sizes allow"
        return Reason(ReasonCode.NO_MATCHING_ACCELERATOR, text, possible[0], 0)
    if most < possible[0]:
        text = f"wants {possible[0]} accelerators, the usable nodes have {most} for it"
        return Reason(ReasonCode.EXCEEDS_CLUSTER, text, possible[0], most)
    return None


def largest_holders(snapshot: ClusterSnapshot, limit: int = 5) -> tuple[JobUid, ...]:
    """The jobs that hold most accelerators, largest first."""
    held = Counter(snapshot.holders.values())
    return tuple(uid for uid, _ in sorted(held.items(), key=lambda i: (-i[1], i[0]))[:limit])


def waits(wanted: int, available: int, holders: tuple[JobUid, ...]) -> Reason:
    """The job waits for accelerators that others hold."""
    text = f"wants {wanted} accelerators, {available} are free for it"
    return Reason(ReasonCode.WAITING_FOR_ACCELERATORS, text, wanted, available, holders)


class Quotas:
    """Accelerators that each queue may still hold; counts down as they are given out."""

    def __init__(self, snapshot: ClusterSnapshot) -> None:
        """Starts with every queue's whole quota."""
        self._left: dict[QueueName, int | None] = {
            name: queue.quota_accelerators for name, queue in snapshot.queues.items()
        }

    def known(self, queue: QueueName) -> bool:
        """Whether there is such a queue."""
        return queue in self._left

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
