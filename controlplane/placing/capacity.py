"""Which accelerators are left, and a choice out of them that spans few nodes, racks and islands."""

from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from types import MappingProxyType

from controlplane.domain.changing import changed
from controlplane.domain.ids import AcceleratorId, NodeId
from controlplane.domain.job import AcceleratorRequest, JobSpec, Topology
from controlplane.domain.memory import Memory, memories, memory_of
from controlplane.domain.node import Accelerator
from controlplane.domain.offering import Misfit, admits, misfits
from controlplane.domain.racks import racks_spanned
from controlplane.domain.record import NOWHERE
from controlplane.domain.snapshot import ClusterSnapshot, Slot
from controlplane.domain.step_times import Shares
from controlplane.placing.islands import picked
from controlplane.placing.pool import Chosen, Pool
from controlplane.placing.racks import Allowed

Signature = tuple[object, ...]

Parts = Mapping[NodeId, Sequence[AcceleratorId]]
"""Accelerators by node."""

Nodes = tuple[NodeId, ...]

Sizes = tuple[tuple[int, int], ...]
"""How many nodes there are of each size: ((size, nodes), ...)."""

Shape = tuple[tuple[str, tuple[Sizes, ...]], ...]
"""Of each type the nodes that a job may have together: all of them, or those of one rack, or one
node. What looks the same is there once.
"""


def signature(request: AcceleratorRequest) -> Signature:
    """What decides on which nodes a job can run; jobs of one signature compete fully."""
    return (
        request.type,
        request.selector,
        request.tolerations,
        request.cpu_cores_each,
        request.host_memory_bytes_each,
        request.memory,
    )


def _large_enough(request: AcceleratorRequest, accelerators: list[Accelerator]) -> bool:
    return all(
        len(a.cpu_cores) >= request.cpu_cores_each
        and a.host_memory_bytes >= request.host_memory_bytes_each
        and (request.memory is None or request.memory.fits(memory_of(a)))
        for a in accelerators
    )


@dataclass(slots=True)
class Holding:
    """Accelerators that were taken out of a ``Capacity`` for one job; all of one type.

    Attributes:
        kind: Their type.
        parts: The accelerators by node.
        count: How many they are.
    """

    kind: str
    parts: dict[NodeId, list[Accelerator]] = field(default_factory=dict)
    count: int = 0

    def ids(self) -> dict[NodeId, list[AcceleratorId]]:
        """Which they are."""
        return {name: [a.id for a in held] for name, held in self.parts.items()}

    def covers(self, parts: Parts) -> bool:
        """Whether all of these are among them."""
        for name, ids in parts.items():
            held = self.parts.get(name, ())
            if len(held) < len(ids) or not {a.id for a in held}.issuperset(ids):
                return False
        return True

    def add(self, node: NodeId, accelerators: Sequence[Accelerator]) -> None:
        """Joins more of a node to it."""
        self.count += len(accelerators)
        known = self.parts.get(node)
        if known is None:
            self.parts[node] = list(accelerators)
        else:
            known.extend(accelerators)


class Capacity:
    """What is left of the cluster's usable, healthy accelerators, by type.

    ``reserve``, ``extend`` and ``claim`` use it up, ``give_back`` undoes that. A ``group`` is how
    many accelerators of a node a job can only use together: of each node it gets a multiple.
    """

    def __init__(self, snapshot: ClusterSnapshot, without: Collection[Slot] = ()) -> None:
        """Everything that can be used except ``without``."""
        self._snapshot = snapshot
        self._nodes = snapshot.nodes
        self._pools: dict[str, Pool] = {}
        self._allowed: dict[Signature, dict[str, Allowed]] = {}
        self._memory: dict[Signature, Mapping[str, frozenset[Memory | None]]] = {}
        self._shapes: dict[tuple[Signature, Topology], Shape] = {}
        self._most_if_empty: dict[tuple[Signature, Topology, int], int] = {}
        gone = Counter(map(itemgetter(0), without))
        for name, offer in snapshot.usable.items():
            for kind, every in offer.items():
                taken = gone.get(name, 0)
                if not taken:
                    free = list(every)
                elif taken >= len(self._nodes[name].node.accelerators):
                    free = []
                else:
                    free = [a for a in every if (name, a.id) not in without]
                pool = self._pools.get(kind)
                if pool is None:
                    pool = self._pools[kind] = Pool(snapshot.racks)
                pool.add(name, free, every)

    def allowed_nodes(self, request: AcceleratorRequest) -> dict[str, Allowed]:
        """For each type that the request accepts, the nodes it may use; None for all."""
        key = signature(request)
        known = self._allowed.get(key)
        if known is None and request.memory is not None:
            known = self._allowed[key] = self._with_memory(request, request.memory)
        if known is None:
            known = {}
            anywhere = not self._is_choosy(request)
            for kind, pool in self._pools.items():
                if anywhere and pool.free and request.type in ("", kind):
                    known[kind] = None
                elif request.type in ("", kind):
                    # A dict and not a set: its order does not depend on the process.
                    fit = {name: None for name in pool.free if self._fits(request, name, kind)}
                    if fit:
                        known[kind] = None if len(fit) == len(pool.free) else fit.keys()
            self._allowed[key] = known
        return known

    def _with_memory(self, request: AcceleratorRequest, need: Memory) -> dict[str, Allowed]:
        """Of the nodes that it may use otherwise those with as much memory. Mostly that is a
        question of the type, and not of the node.
        """
        known: dict[str, Allowed] = {}
        for kind, allowed in self.allowed_nodes(changed(request, memory=None)).items():
            there = self._snapshot.memory[kind]
            if there.least is None or need.within(there.least):
                known[kind] = allowed
            elif any(map(need.fits, there.every)):
                names = self._pools[kind].free if allowed is None else allowed
                usable = self._snapshot.usable
                fit = {n: None for n in names if all(map(need.fits, memories(usable[n][kind])))}
                if fit:
                    known[kind] = fit.keys()
        return known

    def _is_choosy(self, request: AcceleratorRequest) -> bool:
        """Whether it may depend on the node if the request can use it."""
        each = request.cpu_cores_each or request.host_memory_bytes_each
        return bool(request.selector or each or self._snapshot.conditions.tainted)

    def _fits(self, request: AcceleratorRequest, name: NodeId, kind: str) -> bool:
        node = self._nodes[name]
        if not admits(request, node):
            return False
        if not request.cpu_cores_each and not request.host_memory_bytes_each:
            return True
        return _large_enough(request, [a for a in node.node.accelerators if a.type == kind])

    def has_room_for(self, request: AcceleratorRequest, need: Memory | None) -> bool:
        """Whether every accelerator that could be meant has as much memory."""
        if need is None:
            return True
        there = self._snapshot.memory
        if request.type:
            own = there.get(request.type)
            return own is None or own.least is None or need.within(own.least)
        return all(each.least is None or need.within(each.least) for each in there.values())

    def with_room_for(self, request: AcceleratorRequest, need: Memory | None) -> AcceleratorRequest:
        """The request for accelerators with as much memory; the very same one if all have it."""
        if self.has_room_for(request, need):
            return request
        return changed(request, memory=need)

    def misfits(self, spec: JobSpec) -> list[Misfit]:
        """The job's plans that do not fit the memory of a type."""
        return misfits(spec, self.memory_for(spec.accelerators))

    def memory_for(self, request: AcceleratorRequest) -> Mapping[str, frozenset[Memory | None]]:
        """What accelerators tell of their memory on the nodes that the request may use, by type."""
        key = signature(request)
        there = self._memory.get(key)
        if there is None:
            there = self._memory[key] = self._memory_for(request)
        return there

    def _memory_for(self, request: AcceleratorRequest) -> dict[str, frozenset[Memory | None]]:
        usable, every = self._snapshot.usable, self._snapshot.memory
        return {
            kind: every[kind].every
            if allowed is None
            else frozenset().union(*(memories(usable[name][kind]) for name in allowed))
            for kind, allowed in self.allowed_nodes(request).items()
        }

    def most(self, request: AcceleratorRequest, group: int = 1) -> int:
        """Most accelerators that the request could get at once from what is left."""
        allowed = self.allowed_nodes(request).items()
        return max(
            (self._pools[k].most(nodes, request.topology, group) for k, nodes in allowed),
            default=0,
        )

    def most_if_empty(self, request: AcceleratorRequest, group: int = 1) -> int:
        """Most accelerators that the request could get at once if nobody held any."""
        key = (signature(request), request.topology, group)
        known = self._most_if_empty.get(key)
        if known is None:
            allowed = self.allowed_nodes(request).items()
            known = max(
                (
                    self._pools[k].most_if_empty(nodes, request.topology, group)
                    for k, nodes in allowed
                ),
                default=0,
            )
            self._most_if_empty[key] = known
        return known

    def total_left(self, request: AcceleratorRequest) -> int:
        """Accelerators of one type that are left for the request, wherever they are."""
        allowed = self.allowed_nodes(request).items()
        return max((self._pools[kind].count(nodes) for kind, nodes in allowed), default=0)

    def names(self, request: AcceleratorRequest) -> dict[NodeId, None]:
        """Every node that the request could use, in order of registration within a type."""
        found: dict[NodeId, None] = {}
        for kind, allowed in self.allowed_nodes(request).items():
            found.update(dict.fromkeys(self._pools[kind].free if allowed is None else allowed))
        return found

    def suits(self, request: AcceleratorRequest, slots: Iterable[Slot]) -> bool:
        """Whether a job that asks for this could have been put where it is."""
        held: dict[NodeId, set[AcceleratorId]] = {}
        for name, accelerator_id in slots:
            held.setdefault(name, set()).add(accelerator_id)
        kinds = set()
        for name, ids in held.items():
            node = self._nodes.get(name)
            if node is None or not admits(request, node):
                return False
            own = [a for a in node.node.accelerators if a.id in ids]
            if not _large_enough(request, own):
                return False
            kinds |= {a.type for a in own}
        if not self.are_together(request.topology, held):
            return False
        return len(kinds) == 1 and request.type in ("", *kinds)

    def are_together(self, topology: Topology, nodes: Collection[NodeId]) -> bool:
        """Whether these nodes, each once, are no farther apart than that."""
        if topology is Topology.ANY or len(nodes) < 2:
            return True
        return topology is Topology.SAME_RACK and racks_spanned(self._snapshot.racks, nodes) == 1

    def _allowed_without(
        self, request: AcceleratorRequest, without: Collection[NodeId]
    ) -> dict[str, Allowed]:
        """The same nodes except some."""
        every = self.allowed_nodes(request)
        if not without:
            return every
        return {
            kind: {
                name: None
                for name in (self._pools[kind].free if allowed is None else allowed)
                if name not in without
            }.keys()
            for kind, allowed in every.items()
        }

    def reserve(
        self,
        request: AcceleratorRequest,
        count: int,
        group: int = 1,
        without: Collection[NodeId] = NOWHERE,
    ) -> Holding | None:
        """Uses up ``count`` accelerators for the request; None, and nothing used, if impossible.

        Prefers the type with the least left over, then few nodes and few racks; see ``Racks``.

        Args:
            request: What is asked for.
            count: How many.
            group: What it gets of each node is a multiple of this.
            without: Nodes of which it gets nothing.
        """
        best: tuple[int, str, Chosen] | None = None
        for kind, allowed in self._allowed_without(request, without).items():
            pool = self._pools[kind]
            if best is not None and pool.total >= best[0]:
                continue
            chosen = pool.chosen(count, group, allowed, request.topology)
            if chosen is not None:
                best = (pool.total, kind, chosen)
        if best is None:
            return None
        holding = Holding(best[1])
        self._move(holding, best[2])
        return holding

    def extend(
        self,
        request: AcceleratorRequest,
        holding: Holding,
        more: int,
        prefer: Parts = MappingProxyType({}),
        group: int = 1,
        without: Collection[NodeId] = NOWHERE,
    ) -> bool:
        """Adds ``more`` accelerators to a holding; False, and nothing used, if impossible.

        Args:
            request: Of the job that holds it.
            holding: What it has so far.
            more: How many to add.
            prefer: Accelerators to take first where there is a choice.
            group: What it has of each node afterwards is a multiple of this.
            without: Nodes of which it gets no more.
        """
        pool = self._pools[holding.kind]
        if pool.total < more:
            return False
        allowed = self._allowed_without(request, without).get(holding.kind, frozenset())
        added = Holding(holding.kind)
        # What makes each node's part whole comes first, or there may be too few left for it.
        lacking = sum(-len(held) % group for held in holding.parts.values())
        for name, held in holding.parts.items():
            if more and (allowed is None or name in allowed):
                free, own = pool.free.get(name, []), -len(held) % group
                lacking -= own
                most = own + _whole_groups(min(len(free), more - lacking) - own, group)
                beside = {each.island for each in held}
                part = picked(free, max(0, most), group, prefer.get(name, ()), beside)
                self._move(added, [(name, part)])
                more -= len(part)
        if any(
            (len(held) + len(added.parts.get(name, ()))) % group
            for name, held in (holding.parts.items() if group > 1 else ())
        ):
            self.give_back(added)
            return False
        if more:
            # What it has on its own nodes is used up now, so these are other nodes.
            rest = pool.chosen(more, group, allowed, request.topology, near=holding.parts)
            if rest is None:
                self.give_back(added)
                return False
            self._move(added, rest)
        for name, accelerators in added.parts.items():
            holding.add(name, accelerators)
        return True

    def free_by_node(self, request: AcceleratorRequest) -> dict[str, dict[NodeId, int]]:
        """What is left of each node that the request may use, by type, in order of registration."""
        return {
            kind: {
                name: len(free)
                for name, free in self._pools[kind].free.items()
                if allowed is None or name in allowed
            }
            for kind, allowed in self.allowed_nodes(request).items()
        }

    def find(self, request: AcceleratorRequest, shares: Shares) -> tuple[str, Nodes] | None:
        """A node of its own for each share, and their type: of several types the one with the least
        left over. None if there are none; nothing is used up.

        Args:
            request: What is asked for.
            shares: Accelerators wanted of each node, most first.
        """
        kinds = self.allowed_nodes(request).items()
        for kind, allowed in sorted(kinds, key=lambda each: self._pools[each[0]].count(each[1])):
            names = self._pools[kind].racks.find(shares, allowed, request.topology)
            if names is not None:
                return kind, names
        return None

    def take(self, kind: str, counts: Mapping[NodeId, int], group: int = 1) -> Holding:
        """Uses up so many accelerators of each of these nodes, which must have them left.

        Args:
            kind: Their type.
            counts: How many of each node.
            group: How many the job uses most closely together.
        """
        holding, pool = Holding(kind), self._pools[kind]
        for name, count in counts.items():
            assert count <= len(pool.free[name]), f"{name} has {count} left"
            self._move(holding, [(name, picked(pool.free[name], count, group))])
        return holding

    @property
    def racks(self) -> Mapping[NodeId, str]:
        """The rack of each node that tells one."""
        return self._snapshot.racks

    def shape(self, request: AcceleratorRequest) -> Shape:
        """How large the nodes are that the request may have together, whoever holds them."""
        key = (signature(request), request.topology)
        known = self._shapes.get(key)
        if known is None:
            known = self._shapes[key] = tuple(
                (kind, self._sizes(kind, allowed, request.topology))
                for kind, allowed in self.allowed_nodes(request).items()
            )
        return known

    def _sizes(self, kind: str, allowed: Allowed, topology: Topology) -> tuple[Sizes, ...]:
        whole = self._pools[kind].whole
        names = whole if allowed is None else allowed
        if topology is Topology.ANY:
            return (tuple(sorted(Counter(whole[name] for name in names).items())),)
        racks = self._snapshot.racks if topology is Topology.SAME_RACK else {}
        together: dict[tuple[bool, str], list[int]] = {}
        for name in names:
            own = (True, racks[name]) if name in racks else (False, name)
            together.setdefault(own, []).append(whole[name])
        found = (tuple(sorted(Counter(each).items())) for each in together.values())
        return tuple(dict.fromkeys(found))

    def by_node(self) -> dict[str, dict[NodeId, int]]:
        """What is left of each node, by type, in order of registration."""
        return {
            kind: {name: len(free) for name, free in pool.free.items()}
            for kind, pool in self._pools.items()
        }

    def take_rather(
        self,
        kind: str,
        counts: Mapping[NodeId, int],
        own: Parts,
        wanted: Container[Slot],
        group: int = 1,
    ) -> Holding:
        """Uses up so many accelerators of each of these nodes, which must have them left.

        Args:
            kind: Their type.
            counts: How many of each node.
            own: Those to take first.
            wanted: Those to take last: others would take them first.
            group: How many the job uses most closely together.
        """
        holding, pool = Holding(kind), self._pools[kind]
        for name, count in counts.items():
            mine, free = own.get(name, ()), pool.free[name]
            rather = [a for a in free if a.id in mine or (name, a.id) not in wanted]
            alike = not mine and not pool.is_divided
            part = rather[:count] if alike else picked(rather, count, group, mine)
            if len(part) < count:
                taken = {a.id for a in part}
                rest = [a for a in free if a.id not in taken]
                beside = {a.island for a in part}
                part += picked(rest, count - len(part), group, beside=beside)
            self._move(holding, [(name, part)])
        return holding

    @property
    def is_divided(self) -> bool:
        """Whether some node has accelerators in an island, and others that are not in it."""
        return any(pool.is_divided for pool in self._pools.values())

    def _move(self, holding: Holding, chosen: Chosen) -> None:
        pool = self._pools[holding.kind]
        for name, accelerators in chosen:
            pool.remove(name, {a.id for a in accelerators})
            holding.add(name, accelerators)

    def claim(self, parts: Parts) -> Holding | None:
        """Uses up exactly these; None, and nothing used, unless all are left and of one type."""
        wanted = sum(map(len, parts.values()))
        for kind, pool in self._pools.items():
            holding = Holding(kind)
            for name, ids in parts.items():
                holding.add(name, pool.remove(name, ids))
            if holding.count == wanted:
                return holding
            self.give_back(holding)
        return None

    def give_back(self, holding: Holding) -> None:
        """What the job held is left again."""
        pool = self._pools[holding.kind]
        for name, accelerators in holding.parts.items():
            if accelerators:
                pool.put_back(name, accelerators)

    def withhold(self, request: AcceleratorRequest) -> None:
        """Uses up everything on the nodes that the request could use."""
        for kind, allowed in self.allowed_nodes(request).items():
            pool = self._pools[kind]
            for name in list(pool.free if allowed is None else allowed):
                pool.remove(name, {a.id for a in pool.free[name]})


def _whole_groups(count: int, group: int) -> int:
    return count - count % group
