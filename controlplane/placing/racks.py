"""Nodes by how many accelerators they have left, rack by rack, and a choice out of them that spans
few nodes and few racks, and leaves whole nodes and whole racks to those who need them.

What comes first, where there is a choice: few nodes, since what joins racks also joins nodes; the
nodes with the fewest left that will do, so that those stay whole that are; few racks; the racks
with the fewest left that will do. Where no rack is told, all nodes are alike.
"""

from collections import Counter
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


_BESIDE = 2
"""So many accelerators more than need be may be left on the nodes of a job, if that gets it into
one rack. With more, jobs find less room: in benchmarks/racks.py (means of five seeds, 8,000 jobs
each) 2.8 % of all jobs are turned away with this and 3.0 % with 4, beside 2.9 % and 2.6 % where no
rack is told; in one rack are 65 % and 72 % of those on several nodes, with 0 60 %.
"""


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

    def nodes_with(self, allowed: Allowed) -> list[int]:
        """How many of the allowed nodes have no accelerator left, one, two, and so on."""
        if allowed is None:
            return [len(bucket) for bucket in self.by_count]
        return [sum(node in allowed for node in bucket) for bucket in self.by_count]

    def fullest(self, count: int, allowed: Allowed, used: Container[NodeId] = ()) -> NodeId | None:
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
        return sum(
            nodes * (count - count % group) for count, nodes in enumerate(self.nodes_with(allowed))
        )


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
        # Mostly no rack is told: what is known of the only group of nodes need not be known twice.
        self._only: _Rack | None = None
        self._nodes_with: list[int] = []

    def add(self, node: NodeId, count: int) -> None:
        """A node comes in, with so many left."""
        name = self._rack_of.get(node, _NOWHERE)
        rack = self._racks.get(name)
        if rack is None:
            rack = self._racks[name] = _Rack(name)
            if self._only is not None:
                self._nodes_with = self._only.nodes_with(None)
            self._only = rack if len(self._racks) == 1 else None
        self._grow(rack, count)
        rack.by_count[count][node] = None
        rack.left += count
        self._nodes_with[count] += 1

    def move(self, node: NodeId, before: int, after: int) -> None:
        """A node that had so many left has so many now."""
        only = self._only
        rack = only or self._racks[self._rack_of.get(node, _NOWHERE)]
        buckets = rack.by_count
        if after >= len(buckets):
            self._grow(rack, after)
        del buckets[before][node]
        buckets[after][node] = None
        rack.left += after - before
        if only is None:
            self._nodes_with[before] -= 1
            self._nodes_with[after] += 1

    def drop(self, node: NodeId, count: int) -> None:
        """A node goes, which had so many left."""
        rack = self._racks[self._rack_of.get(node, _NOWHERE)]
        del rack.by_count[count][node]
        rack.left -= count
        self._nodes_with[count] -= 1

    def _grow(self, rack: _Rack, count: int) -> None:
        rack.by_count += ({} for _ in range(len(rack.by_count), count + 1))
        self._nodes_with += [0] * (count + 1 - len(self._nodes_with))

    # -- looking --------------------------------------------------------------------------

    @property
    def left(self) -> int:
        """Accelerators left in all."""
        return sum(rack.left for rack in self._racks.values())

    def fullest_first(self) -> Iterator[NodeId]:
        """All nodes, those with least left first."""
        for count in range(len(self._nodes_with)):
            for rack in self._racks.values():
                yield from rack.by_count[count] if count < len(rack.by_count) else ()

    def emptiest_first(self, near: Collection[str] = ()) -> Iterator[NodeId]:
        """The same the other way round; all of the racks that are near before any others."""
        if near:
            every = self._racks.values()
            yield from self._emptiest_of([rack for rack in every if rack.name in near])
            yield from self._emptiest_of([rack for rack in every if rack.name not in near])
        else:
            yield from self._emptiest_of(self._racks.values())

    def _emptiest_of(self, racks: Collection[_Rack]) -> Iterator[NodeId]:
        for count in range(len(self._nodes_with) - 1, -1, -1):
            for rack in racks:
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

    def fullest(
        self, count: int, allowed: Allowed = None, near: Container[str] = ()
    ) -> NodeId | None:
        """The node with the fewest left that still has ``count``; of equals one of the rack with
        the fewest left. One in a rack that is near comes before all others.
        """
        if self._only is not None:
            for bucket in self._only.by_count[count:]:
                for name in bucket:
                    if allowed is None or name in allowed:
                        return name
            return None
        racks = self._racks.values()
        if near:
            close = [rack for rack in racks if rack.name in near]
            node = _fullest(close, self._nodes_with, count, allowed)
            if node is not None:
                return node
        return _fullest(racks, self._nodes_with, count, allowed)

    def find(
        self,
        shares: Shares,
        allowed: Allowed = None,
        topology: Topology = Topology.ANY,
        near: Collection[str] = (),
    ) -> tuple[NodeId, ...] | None:
        """A node of its own for each share; None if there are not as many. Whatever fits at all is
        found.

        Args:
            shares: Accelerators wanted of each node, most first.
            allowed: Nodes to look among.
            topology: How far apart they may be.
            near: Racks that come first.
        """
        if len(shares) == 1:
            node = self.fullest(shares[0], allowed, near)
            return None if node is None else (node,)
        if topology is Topology.SAME_NODE:
            return None
        required = topology is Topology.SAME_RACK
        if self._only is not None and not required:
            return _in_one(self._only, shares, allowed)
        begun = _begun(self._with(allowed), shares)
        if begun is None:
            return None
        one = _one_rack(self._racks.values(), shares, allowed, near)
        if one is not None and (required or one[0] <= sum(begun) - sum(shares) + _BESIDE):
            return _in_one(one[1], shares, allowed)
        return None if required else self._several(begun, allowed, near)

    def _with(self, allowed: Allowed) -> list[int]:
        """How many of the allowed nodes have no accelerator left, one, two, and so on."""
        if self._only is not None:
            return self._only.nodes_with(allowed)
        if allowed is None:
            return list(self._nodes_with)
        found = [0] * len(self._nodes_with)
        for rack in self._racks.values():
            for count, nodes in enumerate(rack.nodes_with(allowed)):
                found[count] += nodes
        return found

    def _several(
        self, begun: Sequence[int], allowed: Allowed, near: Container[str]
    ) -> tuple[NodeId, ...]:
        """Nodes that have just so many left each, of few racks: of the one that has most of them,
        until one has all the rest.
        """
        found: dict[int, list[NodeId]] = {count: [] for count in begun}
        rest = Counter(begun)
        unused = {rack.name: (rack, rack.nodes_with(allowed)) for rack in self._racks.values()}
        while rest:
            best: tuple[tuple[bool, int, bool, int], _Rack, dict[int, int]] | None = None
            wanted = rest.total()
            for rack, nodes in unused.values():
                has = {
                    count: min(want, nodes[count])
                    for count, want in rest.items()
                    if count < len(nodes) and nodes[count]
                }
                held = sum(has.values())
                far = rack.name not in near
                key = (far and held < wanted, -held, not rack.told, rack.left)
                if held and (best is None or key < best[0]):
                    best = (key, rack, has)
            assert best is not None, "there are as many nodes"
            _, rack, has = best
            del unused[rack.name]
            for count, nodes_taken in has.items():
                able = [n for n in rack.by_count[count] if allowed is None or n in allowed]
                found[count] += able[:nodes_taken]
            rest -= Counter(has)
        # As they were asked for, and neighbours in a rack side by side.
        turns = {count: iter(nodes) for count, nodes in found.items()}
        return tuple(next(turns[count]) for count in begun)

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
        if topology is Topology.SAME_NODE and near:
            return None
        if topology is Topology.SAME_RACK and near:
            racks = [rack for name, rack in self._racks.items() if name in names and rack.told]
            return _in_a_rack(racks, count, group, allowed)
        node = self.fullest(count, allowed, names)
        if node is not None:
            return [(node, count)]
        if topology is Topology.SAME_NODE:
            return None
        if topology is Topology.SAME_RACK:
            told = [rack for rack in self._racks.values() if rack.told]
            return _in_a_rack(told, count, group, allowed)
        shares = _filled(self._with(allowed), count, group)
        found = None if shares is None else self.find(shares, allowed, near=names)
        if found is None:
            return None
        assert shares is not None
        return list(zip(found, shares, strict=True))


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


def _begun(nodes: list[int], shares: Sequence[int]) -> list[int] | None:
    """How many each node has left that the shares get: the largest first, each takes the node with
    the fewest left that has it, and such a node is never one that a larger share still needs. None
    if there are not as many.

    Args:
        nodes: How many nodes have no accelerator left, one, two, and so on; used up.
        shares: Most first.
    """
    found: list[int] = []
    for share in shares:
        left = share
        while left < len(nodes) and not nodes[left]:
            left += 1
        if left >= len(nodes):
            return None
        nodes[left] -= 1
        found.append(left)
    return found


def _filled(nodes: list[int], count: int, group: int) -> Shares | None:
    """So many accelerators as shares of few nodes: all of those that have most left, and for the
    rest a node that has it. None if there are not as many.

    Args:
        nodes: How many nodes have no accelerator left, one, two, and so on; used up.
        count: Accelerators wanted.
        group: Of each node a multiple of this.
    """
    found: list[int] = []
    for left in range(len(nodes) - 1, group - 1, -1):
        whole = left - left % group
        while nodes[left] and count:
            nodes[left] -= 1
            found.append(min(whole, count))
            count -= found[-1]
    return None if count else tuple(found)


def _one_rack(
    racks: Iterable[_Rack],
    shares: Sequence[int],
    allowed: Allowed,
    near: Container[str],
) -> tuple[int, _Rack] | None:
    """The rack that has a node for each share, and how many accelerators would be left beside them:
    the rack where these are fewest, and of such the one with the fewest left. Nodes that tell no
    rack are not taken to be in one.
    """
    best: tuple[tuple[bool, int, int], _Rack] | None = None
    total = sum(shares)
    for rack in racks:
        if rack.left < total or not rack.told:
            continue
        begun = _begun(rack.nodes_with(allowed), shares)
        if begun is not None:
            key = (rack.name not in near, sum(begun) - total, rack.left)
            if best is None or key < best[0]:
                best = (key, rack)
    return None if best is None else (best[0][1], best[1])


def _in_one(rack: _Rack, shares: Sequence[int], allowed: Allowed) -> tuple[NodeId, ...] | None:
    found: dict[NodeId, None] = {}
    for share in shares:
        node = rack.fullest(share, allowed, found)
        if node is None:
            return None
        found[node] = None
    return tuple(found)


def _in_a_rack(racks: Iterable[_Rack], count: int, group: int, allowed: Allowed) -> Parts | None:
    """So many accelerators of one of these racks: of the one where they are on the fewest nodes,
    and of such the one with the fewest left.
    """
    best: tuple[tuple[int, int], _Rack, Shares] | None = None
    for rack in racks:
        shares = _filled(rack.nodes_with(allowed), count, group) if rack.left >= count else None
        if shares is not None:
            key = (len(shares), rack.left)
            if best is None or key < best[0]:
                best = (key, rack, shares)
    if best is None:
        return None
    found = _in_one(best[1], best[2], allowed)
    assert found is not None, "the shares were made of these nodes"
    return list(zip(found, best[2], strict=True))
