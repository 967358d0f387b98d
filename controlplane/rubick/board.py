"""How many accelerators are left where, while a round deals them out. Every step can be undone."""

from collections.abc import Collection, Iterable, Iterator, Mapping

from controlplane.domain.ids import NodeId
from controlplane.domain.job import Topology
from controlplane.domain.step_times import Shares
from controlplane.placing.racks import NO_RACKS, Allowed, Racks

Bin = tuple[str, NodeId]
"""A node's accelerators of one type."""

Parts = tuple[tuple[Bin, int], ...]
"""So many accelerators of each of these."""


class Board:
    """Free accelerators by type and node, with the nodes sorted by how many they have left.

    Attributes:
        free: Accelerators left of each bin.
        whole: Accelerators of each type in all.
        held: Who has how many of each bin, by a number of the holder's.
        racks: The rack of each node that tells one.
    """

    def __init__(
        self, free: Mapping[str, Mapping[NodeId, int]], racks: Mapping[NodeId, str] = NO_RACKS
    ) -> None:
        """Begins with these, of which nobody holds any.

        Args:
            free: Accelerators by type and node.
            racks: The rack of each node that tells one.
        """
        self.free: dict[Bin, int] = {}
        self.whole: dict[str, int] = {}
        self.held: dict[Bin, dict[int, int]] = {}
        self.racks = racks
        self._nodes: dict[str, Racks] = {}
        self._closed: set[Bin] = set()
        for kind, nodes in free.items():
            sorted_nodes = self._nodes[kind] = Racks(racks)
            for node, count in nodes.items():
                self.free[kind, node] = count
                self.held[kind, node] = {}
                sorted_nodes.add(node, count)
            self.whole[kind] = sum(nodes.values())

    @property
    def kinds(self) -> Iterable[str]:
        """Types of accelerators."""
        return self._nodes

    def bins(self, kind: str) -> Iterable[Bin]:
        """All bins of a type, those with least left first."""
        return ((kind, node) for node in self._nodes[kind].fullest_first())

    def emptiest_first(self, kind: str, near: Collection[str] = ()) -> Iterator[Bin]:
        """The same the other way round; all of the racks that are near before any others."""
        return ((kind, node) for node in self._nodes[kind].emptiest_first(near))

    def left(self, kind: str) -> int:
        """Accelerators of a type that are left on nodes that are not closed."""
        return self._nodes[kind].left

    def has(self, parts: Parts) -> bool:
        """Whether these are left."""
        return all(self.free[where] >= count for where, count in parts)

    def take(self, holder: int, parts: Parts) -> None:
        """The holder gets these, which are left."""
        for where, count in parts:
            self._set(where, self.free[where] - count)
            holders = self.held[where]
            holders[holder] = holders.get(holder, 0) + count

    def give_back(self, holder: int, parts: Parts) -> None:
        """The holder gives these back."""
        for where, count in parts:
            self._set(where, self.free[where] + count)
            holders = self.held[where]
            if holders[holder] == count:
                del holders[holder]
            else:
                holders[holder] -= count

    def _set(self, where: Bin, count: int) -> None:
        kind, node = where
        before = self.free[where]
        assert count >= 0, f"{node} has {before} left"
        self.free[where] = count
        if where not in self._closed:
            self._nodes[kind].move(node, before, count)

    def close(self, bins: Iterable[Bin]) -> None:
        """Nobody finds anything on these any more; what is held there stays held."""
        for where in bins:
            if where not in self._closed:
                self._closed.add(where)
                self._nodes[where[0]].drop(where[1], self.free[where])

    def is_open(self, where: Bin) -> bool:
        """Whether something may still be placed there."""
        return where not in self._closed

    def find(
        self,
        kind: str,
        shares: Shares,
        allowed: Allowed = None,
        topology: Topology = Topology.ANY,
    ) -> Parts | None:
        """A node of its own for each share; None if there are not as many. See ``Racks.find``.

        Args:
            kind: Type of the accelerators.
            shares: How many of each node, most first.
            allowed: Nodes to look among.
            topology: How far apart they may be.
        """
        nodes = self._nodes.get(kind)
        if nodes is None:
            return None
        if len(shares) == 1:
            node = nodes.fullest(shares[0], allowed)
            return None if node is None else (((kind, node), shares[0]),)
        found = nodes.find(shares, allowed, topology)
        if found is None:
            return None
        return tuple(((kind, node), share) for node, share in zip(found, shares, strict=True))

    def find_anywhere(
        self,
        kind: str,
        count: int,
        group: int = 1,
        allowed: Allowed = None,
        topology: Topology = Topology.ANY,
    ) -> Parts | None:
        """So many accelerators on few nodes; None if there are not as many. See
        ``Racks.find_anywhere``.

        Args:
            kind: Type of the accelerators.
            count: How many.
            group: Of each node a multiple of this.
            allowed: Nodes to look among.
            topology: How far apart they may be.
        """
        nodes = self._nodes.get(kind)
        found = None if nodes is None else nodes.find_anywhere(count, group, allowed, topology)
        return None if found is None else tuple(((kind, node), part) for node, part in found)


def both(one: Allowed, other: Allowed) -> Allowed:
    """Nodes that are in both."""
    if one is None or other is None:
        return other if one is None else one
    return dict.fromkeys(node for node in one if node in other)


def by_rack(nodes: Collection[NodeId], racks: Mapping[NodeId, str]) -> Iterator[Collection[NodeId]]:
    """These nodes, those of each rack by themselves; one that tells none is alone."""
    found: dict[tuple[bool, str], dict[NodeId, None]] = {}
    for node in nodes:
        where = (True, racks[node]) if node in racks else (False, node)
        found.setdefault(where, {})[node] = None
    yield from found.values()
