"""Queues: whose accelerators are counted together, and how many they may hold."""

from dataclasses import dataclass

from controlplane.domain.ids import QueueName

DEFAULT_QUEUE = QueueName("default")


@dataclass(frozen=True, slots=True)
class Queue:
    """A tenant's queue.

    Attributes:
        name: Name that manifests use.
        quota_accelerators: Most accelerators its jobs may hold at once; None for no limit.
        submitters: Identities that may submit to it; empty for everyone who may submit.
    """

    name: QueueName
    quota_accelerators: int | None = None
    submitters: tuple[str, ...] = ()
