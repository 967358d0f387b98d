"""Queues: whose accelerators are counted together, and how many they may hold."""

from dataclasses import dataclass

from controlplane.domain.ids import QueueName
from controlplane.domain.job import Owner

DEFAULT_QUEUE = QueueName("default")


@dataclass(frozen=True, slots=True)
class Queue:
    """A tenant's queue.

    Attributes:
        name: Name that manifests use.
        quota_accelerators: Accelerators that are its own: its jobs may hold so many at once; None
            for no limit.
        submitters: Identities that may submit to it; empty for everyone who may submit.
        borrowing_accelerators: So many more may its jobs hold while no other queue's quota needs
            them; None for no limit.
        namespaces: Namespaces whose jobs it takes; empty for all.
        owner: Who has its object, and alone changes it.
    """

    name: QueueName
    quota_accelerators: int | None = None
    submitters: tuple[str, ...] = ()
    borrowing_accelerators: int | None = 0
    namespaces: tuple[str, ...] = ()
    owner: Owner = Owner.CONTROL_PLANE

    def takes(self, namespace: str) -> bool:
        """Whether jobs of this namespace may be in it."""
        return not self.namespaces or namespace in self.namespaces

    @property
    def limit_accelerators(self) -> int | None:
        """Most accelerators that its jobs may hold at once, those that it borrows among them; None
        for no limit.
        """
        if self.quota_accelerators is None or self.borrowing_accelerators is None:
            return None
        return self.quota_accelerators + self.borrowing_accelerators
