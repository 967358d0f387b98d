"""Who made a job give back what it held: facts for people and machines, as Kueue tells them."""

from dataclasses import dataclass

from controlplane.domain.ids import JobUid, QueueName


@dataclass(frozen=True, slots=True)
class Preemption:
    """One job makes room for another.

    Attributes:
        uid: Of the job that gets what was held.
        queue: Its queue.
        priority: Its priority.
        preempted_queue: The queue of the job that makes room.
        preempted_priority: The priority of that job.
    """

    uid: JobUid
    queue: QueueName
    priority: int
    preempted_queue: QueueName
    preempted_priority: int

    def __str__(self) -> str:
        return (
            f"(preemptor UID: {self.uid}; preemptor path: /{self.queue}; preemptee path: "
            f"/{self.preempted_queue}; preemptor priority: {self.priority}; preemptee priority: "
            f"{self.preempted_priority})"
        )
