"""What Sia's configurations use up together: accelerators, quotas, and nodes.

The paper's program counts accelerators alone: powers of two and whole nodes always fit if their sum
does. A rigid job may lie in other ways (4 of each of six nodes), and a job that is
being restarted cannot be moved out of the way. So nodes are counted too, as far as no allocation
that could be laid out is lost by it.
"""

from collections.abc import Collection, Iterable

from controlplane.baselines.layouts import Layout
from controlplane.domain.ids import JobUid
from controlplane.domain.job import JobSpec
from controlplane.domain.snapshot import ClusterSnapshot, Slot
from controlplane.placing.capacity import Capacity
from controlplane.placing.order import Quotas


class Limits:
    """How much there is, and what a layout uses of it.

    Attributes:
        amounts: By name.
    """

    def __init__(
        self, snapshot: ClusterSnapshot, taken: Collection[Slot], quotas: Quotas, empty: Capacity
    ) -> None:
        """Counts what there is.

        Args:
            snapshot: The cluster.
            taken: Accelerators that do not take part.
            quotas: What queues may still hold.
            empty: The cluster with nothing used.
        """
        self.amounts: dict[str, int] = {}
        self._empty = empty
        self._free: dict[str, list[int]] = {}
        self._sizes: dict[str, int] = {}
        self._wide: dict[str, list[str]] = {}
        for node, offer in snapshot.usable.items():
            for kind, every in offer.items():
                free = sum((node, each.id) not in taken for each in every)
                self._free.setdefault(kind, []).append(free)
                self._sizes[kind] = max(self._sizes.get(kind, 0), len(every))
        for kind, counts in self._free.items():
            self.amounts[f"type {kind}"] = sum(counts)
            self.amounts[f"whole nodes of {kind}"] = counts.count(self._sizes[kind])
        self._queues: set[str] = set()
        for queue in snapshot.queues:
            left = quotas.left(queue)
            if left is not None:
                self._queues.add(queue)
                self.amounts[f"queue {queue}"] = left

    def nodes(self, kind: str) -> tuple[int, int]:
        """Accelerators of the largest node of a type, and how many nodes there are of it."""
        return self._sizes.get(kind, 0), len(self._free.get(kind, ()))

    def lies_on_whole_nodes(self, layout: Layout) -> bool:
        """Whether it takes all of each node."""
        return set(layout.shares) == {self._sizes.get(layout.kind, 0)}

    def is_regular(self, layout: Layout) -> bool:
        """Whether it lies within a node, or on whole nodes."""
        within = len(layout.shares) == 1 and layout.accelerators <= self._sizes.get(layout.kind, 0)
        return within or self.lies_on_whole_nodes(layout)

    def add_wide(self, uid: JobUid, layouts: Iterable[Layout]) -> None:
        """A job that lies on parts of several nodes cannot lie on those that others have whole."""
        for each in layouts:
            if len(each.shares) > 1 and not self.lies_on_whole_nodes(each):
                name = _nodes_for(uid, each)
                able = sum(count >= each.shares[-1] for count in self._free.get(each.kind, ()))
                self.amounts[name] = able
                self._wide.setdefault(each.kind, []).append(name)

    def uses(self, uid: JobUid, spec: JobSpec, layout: Layout) -> tuple[tuple[str, int], ...]:
        """What a job uses of which limits if it lies so. Wide ones must have been added before."""
        count, nodes = layout.accelerators, len(layout.shares)
        found = [(f"type {layout.kind or self._largest(spec)}", count)]
        if spec.queue in self._queues:
            found.append((f"queue {spec.queue}", count))
        if self.lies_on_whole_nodes(layout):
            found.append((f"whole nodes of {layout.kind}", nodes))
            found += [(name, nodes) for name in self._wide.get(layout.kind, ())]
        elif nodes > 1:
            found.append((_nodes_for(uid, layout), nodes))
        return tuple(found)

    def _largest(self, spec: JobSpec) -> str:
        """Of the types that a job may use the one with most: as which one is counted that says
        nothing.
        """
        there = self._empty.free_by_node(spec.accelerators)
        return max(there, key=lambda kind: sum(there[kind].values()), default="")


def _nodes_for(uid: JobUid, layout: Layout) -> str:
    return f"nodes of {layout.kind} for {uid} on {layout.shares}"
