"""What whoever sets a queue is told, although it is not wrong."""

import pytest

from controlplane.domain.ids import QueueName
from controlplane.domain.queue import Queue
from controlplane.edges.grpc_server.queue_warnings import queue_warnings


@pytest.mark.parametrize(
    ("quota", "borrowing", "told"),
    [
        (None, 0, []),
        (None, 3, ["queue q has no quota, so there is nothing that it could borrow"]),
        (4, 0, []),
        (4, None, []),
        (5, 0, ["the quotas of all queues are 9 accelerators together and the cluster has 8 now"]),
        (64, 0, ["the quota of queue q is 64 accelerators and the cluster has 8 now"]),
    ],
)
def test_a_quota_is_held_against_the_cluster(
    quota: int | None, borrowing: int | None, told: list[str]
) -> None:
    queue = Queue(QueueName("q"), quota, borrowing_accelerators=borrowing)
    queues = {each.name: each for each in (Queue(QueueName("other"), 4), queue)}
    found = list(queue_warnings(queue, queues, 8))
    assert [each.partition(":")[0] for each in found] == told
