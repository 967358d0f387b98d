"""The accelerators of one type that are left."""

from collections.abc import Collection, Container, Mapping, Sequence

from controlplane.domain.ids import AcceleratorId, NodeId
from controlplane.domain.job import Topology
from controlplane.domain.node import Accelerator
from controlplane.placing.islands import in_groups, is_divided, picked
from controlplane.placing.racks import Allowed, Racks

Chosen = list[tuple[NodeId, list[Accelerator]]]


class Pool:
    """What is left of each node, and the nodes sorted by how many that are.

    Attributes:
        free: What is left of each node.
        whole: How many accelerators each node has, held ones included.
        total: How many are left in all.
        racks: The nodes, sorted.
        is_divided: Whether some node has accelerators in an island, and others that are not in it.
    """

    def __init__(self, racks: Mapping[NodeId, str]) -> None:
        """Begins empty.

        Args:
            racks: The rack of each node that tells one.
        """
        self.free: dict[NodeId, list[Accelerator]] = {}
        self.whole: dict[NodeId, int] = {}
        self.total = 0
        self.racks = Racks(racks)
        self.is_divided = False
        self._rack_of = racks

    def add(self, node: NodeId, free: list[Accelerator], every: Sequence[Accelerator]) -> None:
        """Puts a node in: what is left of it, out of all that it has."""
        self.free[node] = free
        self.whole[node] = len(every)
        self.total += len(free)
        self.racks.add(node, len(free))
        self.is_divided = self.is_divided or is_divided(every)

    def _replace(self, node: NodeId, left: list[Accelerator]) -> None:
        before = len(self.free[node])
        if before != len(left):
            self.racks.move(node, before, len(left))
            self.total += len(left) - before
        self.free[node] = left

    def remove(self, node: NodeId, gone: Container[AcceleratorId]) -> list[Accelerator]:
        """Takes accelerators of a node out; those that are not there are passed over."""
        before = self.free.get(node)
        if not before:
            return []
        removed = [a for a in before if a.id in gone]
        if len(removed) == len(before):
            self._replace(node, [])
        elif removed:
            self._replace(node, [a for a in before if a.id not in gone])
        return removed

    def put_back(self, node: NodeId, accelerators: Sequence[Accelerator]) -> None:
        """Gives back what ``remove`` took."""
        self._replace(node, [*self.free[node], *accelerators])

    def count(self, allowed: Allowed) -> int:
        """Accelerators left on the allowed nodes."""
        if allowed is None:
            return self.total
        return sum(len(self.free[node]) for node in allowed if node in self.free)

    def most(self, allowed: Allowed, topology: Topology, group: int) -> int:
        """Most accelerators that one job could get from what is left."""
        if topology is Topology.ANY and group == 1:
            return self.count(allowed)
        return self.racks.most(allowed, topology, group)

    def most_if_empty(self, allowed: Allowed, topology: Topology, group: int) -> int:
        """Most accelerators that one job could get if nobody held any."""
        empty = Racks(self._rack_of)
        for node, count in self.whole.items():
            if allowed is None or node in allowed:
                empty.add(node, count)
        return empty.most(None, topology, group)

    def chosen(
        self,
        count: int,
        group: int,
        allowed: Allowed,
        topology: Topology,
        near: Collection[NodeId] = (),
    ) -> Chosen | None:
        """So many accelerators out of what is left; None if there are not as many. See ``Racks``
        and ``picked``.
        """
        if self.total < count:
            return None
        parts = None
        if self.is_divided and group > 1:
            undivided = self._islands_in_groups(group)
            parts = undivided.find_anywhere(count, group, allowed, topology, near)
        if parts is None:
            parts = self.racks.find_anywhere(count, group, allowed, topology, near)
        if parts is None:
            return None
        return [(name, picked(self.free[name], part, group)) for name, part in parts]

    def _islands_in_groups(self, group: int) -> Racks:
        """The nodes as if they had only what is left of an island in whole groups."""
        found = Racks(self._rack_of)
        for name, free in self.free.items():
            found.add(name, in_groups(free, group))
        return found
