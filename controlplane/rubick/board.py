"""How many accelerators are left where, while a round deals them out. Every step can be undone."""

from collections.abc import Collection, Iterable, Iterator, Mapping

from controlplane.domain.ids import NodeId
from controlplane.domain.step_times import Shares

Bin = tuple[str, NodeId]
"""A node's accelerators of one type."""

Parts = tuple[tuple[Bin, int], ...]
"""So many accelerators of each of these."""

Allowed = Collection[NodeId] | None
"""Nodes that a job may use; None for all."""


class Board:
    """Free accelerators by type and node, with the nodes sorted by how many they have left.

    Attributes:
        free: Accelerators left of each bin.
        whole: Accelerators of each type in all.
        held: Who has how many of each bin, by a number of the holder's.
    """

    def __init__(self, free: Mapping[str, Mapping[NodeId, int]]) -> None:
        """Begins with these, of which nobody holds any.

        Args:
            free: Accelerators by type and node.
        """
        self.free: dict[Bin, int] = {}
        self.whole: dict[str, int] = {}
        self.held: dict[Bin, dict[int, int]] = {}
        self._by_count: dict[str, list[dict[NodeId, None]]] = {}
        self._closed: set[Bin] = set()
        for kind, nodes in free.items():
            most = max(nodes.values(), default=0)
            buckets: list[dict[NodeId, None]] = [{} for _ in range(most + 1)]
            for node, count in nodes.items():
                self.free[kind, node] = count
                self.held[kind, node] = {}
                buckets[count][node] = None
            self._by_count[kind] = buckets
            self.whole[kind] = sum(nodes.values())

    @property
    def kinds(self) -> Iterable[str]:
        """Types of accelerators."""
        return self._by_count

    def bins(self, kind: str) -> Iterable[Bin]:
        """All bins of a type, those with least left first."""
        for bucket in self._by_count[kind]:
            for node in bucket:
                yield kind, node

    def emptiest_first(self, kind: str) -> Iterator[Bin]:
        """The same the other way round."""
        for bucket in reversed(self._by_count[kind]):
            for node in reversed(bucket):
                yield kind, node

    def left(self, kind: str) -> int:
        """Accelerators of a type that are left on nodes that are not closed."""
        return sum(i * len(bucket) for i, bucket in enumerate(self._by_count[kind]))

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
            buckets = self._by_count[kind]
            del buckets[before][node]
            buckets[count][node] = None

    def close(self, bins: Iterable[Bin]) -> None:
        """Nobody finds anything on these any more; what is held there stays held."""
        for where in bins:
            if where not in self._closed:
                self._closed.add(where)
                del self._by_count[where[0]][self.free[where]][where[1]]

    def is_open(self, where: Bin) -> bool:
        """Whether something may still be placed there."""
        return where not in self._closed

    def find(self, kind: str, shares: Shares, allowed: Allowed = None) -> Parts | None:
        """A node of its own for each share: the one with least left that has enough; None if there
        are not as many.

        Args:
            kind: Type of the accelerators.
            shares: How many of each node, most first.
            allowed: Nodes to look among.
        """
        buckets = self._by_count.get(kind)
        if buckets is None or shares[0] >= len(buckets):
            return None
        found: list[tuple[Bin, int]] = []
        used: set[NodeId] = set()
        for share in shares:
            node = self._best_fit(buckets, share, used, allowed)
            if node is None:
                return None
            used.add(node)
            found.append(((kind, node), share))
        return tuple(found)

    def _best_fit(
        self, buckets: list[dict[NodeId, None]], share: int, used: set[NodeId], allowed: Allowed
    ) -> NodeId | None:
        for bucket in buckets[share:]:
            for node in bucket:
                if node not in used and (allowed is None or node in allowed):
                    return node
        return None

    def find_anywhere(
        self, kind: str, count: int, group: int = 1, allowed: Allowed = None, one_node: bool = False
    ) -> Parts | None:
        """So many accelerators on few nodes: on the fullest node that has them all, else on the
        emptiest ones; None if there are not as many.

        Args:
            kind: Type of the accelerators.
            count: How many.
            group: Of each node a multiple of this.
            allowed: Nodes to look among.
            one_node: Whether they must be on one node.
        """
        buckets = self._by_count.get(kind, [])
        if count < len(buckets):
            node = self._best_fit(buckets, count, set(), allowed)
            if node is not None:
                return (((kind, node), count),)
        if one_node:
            return None
        found: list[tuple[Bin, int]] = []
        for left in range(len(buckets) - 1, 0, -1):
            part = left - left % group
            for node in buckets[left] if part else ():
                if allowed is None or node in allowed:
                    found.append(((kind, node), min(part, count)))
                    count -= found[-1][1]
                    if not count:
                        return tuple(found)
        return None


def both(one: Allowed, other: Allowed) -> Allowed:
    """Nodes that are in both."""
    if one is None or other is None:
        return other if one is None else one
    return dict.fromkeys(node for node in one if node in other)
