"""What whoever sets a queue should know, although it is not wrong."""

from collections.abc import Iterator, Mapping

from controlplane.domain.ids import QueueName
from controlplane.domain.queue import Queue
from headrace.api.counted import counted


def queue_warnings(
    queue: Queue, queues: Mapping[QueueName, Queue], accelerators: int
) -> Iterator[str]:
    """A sentence for each thing. Nodes come and go, and queues are set up before the first one
    registers: a quota that is larger than the cluster is no mistake, but may be one.

    Args:
        queue: The queue as it was set.
        queues: All queues, this one among them.
        accelerators: How many the cluster has now.
    """
    quota, borrowing = queue.quota_accelerators, queue.borrowing_accelerators
    if quota is None:
        if borrowing != 0:
            yield f"queue {queue.name} has no quota, so there is nothing that it could borrow"
        return
    if quota > accelerators:
        yield (
            f"the quota of queue {queue.name} is {counted(quota, 'accelerator')} and the cluster "
            "has "
            f"{accelerators} now: it cannot have them all before nodes join"
        )
        return
    together = sum(each.quota_accelerators or 0 for each in queues.values())
    if together > accelerators:
        yield (
            f"the quotas of all queues are {counted(together, 'accelerator')} together and the "
            "cluster has "
            f"{accelerators} now: not every queue can have its own at the same time"
        )
