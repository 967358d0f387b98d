"""Nodes by how many accelerators they have left, rack by rack, and a choice out of them that spans
few nodes and few racks, and leaves whole nodes and whole racks to those who need them.

In order, where there is a choice: one node; else nodes of one rack; else as few racks as possible.
Of several nodes that will do the one with the fewest left, and of several racks likewise (best
fit). Where no rack is told, all nodes are alike.
"""

from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from controlplane.domain.ids import NodeId
from controlplane.domain.job import Topology
from controlplane.domain.step_times import Shares

Allowed = Collection[NodeId] | None
"""Nodes that a request may use; None for every node of the pool."""

Parts = list[tuple[NodeId, int]]
"""So many accelerators of each of these nodes."""

NO_RACKS: Mapping[NodeId, str] = MappingProxyType({})

_NOWHERE = ""
"""Stands for the rack of nodes that tell none. They are not in one rack, as far as is known."""


@dataclass(slots=True, eq=False)
class _Rack:
    """The nodes of a rack.

    Attributes:
        name: The rack.
        left: Accelerators left on them.
        by_count: The nodes by how many they have left.
    """

    name: str
    left: int = 0
    by_count: list[dict[NodeId, None]] = field(default_factory=list)

    @property
    def told(self) -> bool:
        """Whether it is a rack, and not the nodes that tell none."""
        return self.name != _NOWHERE

    def nodes(self, least: int, allowed: Allowed) -> int:
        """How many of the allowed nodes have at least so many left."""
        if allowed is None:
            return sum(map(len, self.by_count[least:]))
        return sum(node in allowed for bucket in self.by_count[least:] for node in bucket)

    def fullest(self, count: int, allowed: Allowed, used: Container[NodeId]) -> NodeId | None:
        """The node with the fewest left that still has ``count``."""
        for bucket in self.by_count[count:]:
            for node in bucket:
                if node not in used and (allowed is None or node in allowed):
                    return node
        return None

    def in_groups(self, group: int, allowed: Allowed) -> int:
        """Accelerators on the allowed nodes, of each node a multiple of the group."""
        if allowed is None and group == 1:
            return self.left
        found = 0
        for count in range(group, len(self.by_count)):
            bucket = self.by_count[count]
            if bucket:
                able = len(bucket) if allowed is None else sum(node in allowed for node in bucket)
                found += able * (count - count % group)
        return found

    def fill(self, count: int, group: int, allowed: Allowed) -> Parts:
        """So many accelerators on few nodes, or all that there are: whole nodes, those with most
        first, and for the rest the fullest node that has it.
        """
        found: Parts = []
        used: set[NodeId] = set()
        while count:
            node = self.fullest(count, allowed, used)
            if node is not None:
                found.append((node, count))
                break
            node, part = self._emptiest(group, allowed, used)
            if node is None:
                break
            used.add(node)
            found.append((node, part))
            count -= part
        return found

    def _emptiest(
        self, group: int, allowed: Allowed, used: Container[NodeId]
    ) -> tuple[NodeId | None, int]:
        for count in range(len(self.by_count) - 1, group - 1, -1):
            for node in self.by_count[count]:
                if node not in used and (allowed is None or node in allowed):
                    return node, count - count % group
        return None, 0


class Racks:
    """All nodes of one type of accelerators. To find one costs a look into a few buckets of each
    rack, however many nodes there are.
    """

    def __init__(self, racks: Mapping[NodeId, str] = NO_RACKS) -> None:
        """No nodes yet.

        Args:
            racks: The rack of each node that tells one.
        """
        self._rack_of = racks
        self._racks: dict[str, _Rack] = {}
        self._nodes_with: list[int] = []

    def add(self, node: NodeId, count: int) -> None:
        """A node comes in, with so many left."""
        rack = self._of(node)
        _bucket(rack, count)[node] = None
        rack.left += count
        self._count(count, 1)

    def move(self, node: NodeId, before: int, after: int) -> None:
        """A node that had so many left has so many now."""
        rack = self._racks[self._rack_of.get(node, _NOWHERE)]
        del rack.by_count[before][node]
        _bucket(rack, after)[node] = None
        rack.left += after - before
        self._nodes_with[before] -= 1
        self._count(after, 1)

    def drop(self, node: NodeId, count: int) -> None:
        """A node goes, which had so many left."""
        rack = self._racks[self._rack_of.get(node, _NOWHERE)]
        del rack.by_count[count][node]
        rack.left -= count
        self._nodes_with[count] -= 1

    def _of(self, node: NodeId) -> _Rack:
        name = self._rack_of.get(node, _NOWHERE)
        rack = self._racks.get(name)
        if rack is None:
            rack = self._racks[name] = _Rack(name)
        return rack

    def _count(self, count: int, more: int) -> None:
        while len(self._nodes_with) <= count:
            self._nodes_with.append(0)
        self._nodes_with[count] += more

    # -- looking --------------------------------------------------------------------------

    @property
    def left(self) -> int:
        """Accelerators left in all."""
        return sum(rack.left for rack in self._racks.values())

    def fullest_first(self) -> Iterator[NodeId]:
        """All nodes, those with least left first."""
        for count in range(len(self._nodes_with)):
            for rack in self._racks.values() if self._nodes_with[count] else ():
                yield from rack.by_count[count] if count < len(rack.by_count) else ()

    def emptiest_first(self) -> Iterator[NodeId]:
        """The same the other way round."""
        for count in range(len(self._nodes_with) - 1, -1, -1):
            for rack in self._racks.values() if self._nodes_with[count] else ():
                yield from reversed(rack.by_count[count]) if count < len(rack.by_count) else ()

    def most(self, allowed: Allowed, topology: Topology, group: int) -> int:
        """Most accelerators that one job could get, of each node a multiple of the group."""
        if topology is Topology.ANY:
            return sum(rack.in_groups(group, allowed) for rack in self._racks.values())
        able = (
            count - count % group
            for rack in self._racks.values()
            for count in range(len(rack.by_count) - 1, 0, -1)
            if any(allowed is None or node in allowed for node in rack.by_count[count])
        )
        of_a_node = max(able, default=0)
        if topology is Topology.SAME_NODE:
            return of_a_node
        told = (rack.in_groups(group, allowed) for rack in self._racks.values() if rack.told)
        return max(of_a_node, max(told, default=0))

    # -- finding --------------------------------------------------------------------------

    def fullest(self, count: int, allowed: Allowed = None) -> NodeId | None:
        """The node with the fewest left that still has ``count``; of equals one of the rack with
        the fewest left.
        """
        return _fullest(self._racks.values(), self._nodes_with, count, allowed)

    def find(
        self, shares: Shares, allowed: Allowed = None, topology: Topology = Topology.ANY
    ) -> tuple[NodeId, ...] | None:
        """A node of its own for each share; None if there are not as many.

        Whatever fits at all is found: largest shares first, each takes the node with the fewest
        left that has it, and such a node is never one that a larger share still needs.

        Args:
            shares: Accelerators wanted of each node, most first.
            allowed: Nodes to look among.
            topology: How far apart they may be.
        """
        if not shares[1:]:
            node = self.fullest(shares[0], allowed)
            return None if node is None else (node,)
        if topology is Topology.SAME_NODE or not self._could_hold(shares):
            return None
        required = topology is Topology.SAME_RACK
        if len(self._racks) == 1 and not required:
            found, rest = _as_many(next(iter(self._racks.values())), shares, allowed)
            return None if rest else tuple(node for node, _ in found)
        rack = _one_rack(self._racks.values(), shares, allowed, required)
        if rack is not None:
            found, _ = _as_many(rack, shares, allowed)
        elif required:
            return None
        else:
            found = self._several(shares, allowed)
        return tuple(node for node, _ in found) if found else None

    def _could_hold(self, shares: Shares) -> bool:
        """Whether there are as many nodes as large, if all were allowed."""
        return all(sum(self._nodes_with[share:]) >= nodes for share, nodes in _needs(shares))

    def _several(self, shares: Shares, allowed: Allowed) -> Parts:
        """Nodes of few racks: of the one that holds most shares, until one holds the rest; empty
        if there are not enough.
        """
        found: Parts = []
        unused = dict(self._racks)
        rest: Sequence[int] = shares
        while rest:
            rack = _one_rack(unused.values(), rest, allowed, required=False)
            if rack is None:
                run = rest.count(rest[0])
                held = {
                    name: min(run, each.nodes(rest[0], allowed)) for name, each in unused.items()
                }
                best = max(
                    unused.values(),
                    key=lambda each: (held[each.name], each.told, -each.left),
                    default=None,
                )
                if best is None or not held[best.name]:
                    return []
                rack = best
            del unused[rack.name]
            part, rest = _as_many(rack, rest, allowed)
            found += part
        # As they were asked for, and neighbours in a rack side by side.
        return sorted(found, key=lambda each: -each[1])

    def find_anywhere(
        self,
        count: int,
        group: int = 1,
        allowed: Allowed = None,
        topology: Topology = Topology.ANY,
        near: Collection[NodeId] = (),
    ) -> Parts | None:
        """So many accelerators on few nodes; None if there are not as many.

        Args:
            count: How many.
            group: Of each node a multiple of this.
            allowed: Nodes to look among.
            topology: How far apart they may be.
            near: Nodes that the job has already: what is in their racks comes first.
        """
        names = {self._rack_of.get(node, _NOWHERE) for node in near}
        if near and topology is not Topology.ANY:
            if topology is Topology.SAME_NODE or _NOWHERE in names:
                return None
            racks = [self._racks[name] for name in names if name in self._racks]
            return _within(racks, self._nodes_with, count, group, allowed, required=True)
        every = list(self._racks.values())
        if names and len(every) > 1:
            close = [rack for rack in every if rack.name in names]
            found = _within(close, self._nodes_with, count, group, allowed, required=False)
            if found is not None:
                return found
        if topology is Topology.SAME_NODE:
            node = self.fullest(count, allowed)
            return None if node is None else [(node, count)]
        required = topology is Topology.SAME_RACK
        return _within(every, self._nodes_with, count, group, allowed, required)


def _bucket(rack: _Rack, count: int) -> dict[NodeId, None]:
    while len(rack.by_count) <= count:
        rack.by_count.append({})
    return rack.by_count[count]


def _needs(shares: Sequence[int]) -> list[tuple[int, int]]:
    """Each share, and how many are at least as large."""
    last = len(shares) - 1
    return [(share, i + 1) for i, share in enumerate(shares) if i == last or shares[i + 1] != share]


def _fullest(
    racks: Collection[_Rack], nodes_with: Sequence[int], count: int, allowed: Allowed
) -> NodeId | None:
    for left in range(count, len(nodes_with)):
        if not nodes_with[left]:
            continue
        best: tuple[int, NodeId] | None = None
        for rack in racks:
            bucket = rack.by_count[left] if left < len(rack.by_count) else None
            if not bucket or (best is not None and rack.left >= best[0]):
                continue
            for node in bucket:
                if allowed is None or node in allowed:
                    best = (rack.left, node)
                    break
        if best is not None:
            return best[1]
    return None


def _one_rack(
    racks: Iterable[_Rack], shares: Sequence[int], allowed: Allowed, required: bool
) -> _Rack | None:
    """The rack with the fewest left that has a node for each share."""
    best: _Rack | None = None
    total, needs = sum(shares), _needs(shares)
    for rack in racks:
        if rack.left < total or (required and not rack.told):
            continue
        if best is not None and _rather(best) <= _rather(rack):
            continue
        if all(rack.nodes(share, allowed) >= nodes for share, nodes in needs):
            best = rack
    return best


def _rather(rack: _Rack) -> tuple[bool, int]:
    return (not rack.told, rack.left)


def _as_many(rack: _Rack, shares: Sequence[int], allowed: Allowed) -> tuple[Parts, tuple[int, ...]]:
    """Nodes of the rack for as many shares as it has, the largest first, and the other shares."""
    found: Parts = []
    rest: list[int] = []
    used: set[NodeId] = set()
    for share in shares:
        # Where there was no node for a share there is none for another one as large.
        node = rack.fullest(share, allowed, used) if rest[-1:] != [share] else None
        if node is None:
            rest.append(share)
        else:
            used.add(node)
            found.append((node, share))
    return found, tuple(rest)


def _within(
    racks: Collection[_Rack],
    nodes_with: Sequence[int],
    count: int,
    group: int,
    allowed: Allowed,
    required: bool,
) -> Parts | None:
    """So many accelerators of these racks, on few nodes and of few racks; of one if that is
    required; None if there are not as many.
    """
    node = _fullest(racks, nodes_with, count, allowed)
    if node is not None:
        return [(node, count)]
    able = {
        rack.name: rack.in_groups(group, allowed) for rack in racks if rack.told or not required
    }
    unused = {rack.name: rack for rack in racks if rack.name in able}
    if required:
        if max(able.values(), default=0) < count:
            return None
    elif sum(able.values()) < count:
        return None
    found: Parts = []
    while count:
        enough = [rack for rack in unused.values() if able[rack.name] >= count]
        rack = (
            min(enough, key=_rather)
            if enough
            else max(unused.values(), key=lambda each: (able[each.name], each.told))
        )
        del unused[rack.name]
        part = rack.fill(min(count, able[rack.name]), group, allowed)
        count -= sum(taken for _, taken in part)
        found += part
    return found
