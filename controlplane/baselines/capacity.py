"""Which accelerators are left, and a placement out of them that spans few nodes."""

from collections.abc import Collection, Container, Iterable, Iterator, Sequence

from controlplane.domain.ids import AcceleratorId, NodeId
from controlplane.domain.job import AcceleratorRequest, JobSpec, Topology
from controlplane.domain.node import Accelerator
from controlplane.domain.placement import LaunchUnit, Placement
from controlplane.domain.record import NodeRecord
from controlplane.domain.snapshot import ClusterSnapshot, Slot
from headrace.api.plan import ExecutionPlan

Signature = tuple[object, ...]

Allowed = Collection[NodeId] | None
"""Nodes that a request may use; None for every node of the pool."""


def signature(request: AcceleratorRequest) -> Signature:
    """What decides on which nodes a job can run; jobs of one signature compete fully."""
    return (
        request.type,
        request.selector,
        request.tolerations,
        request.cpu_cores_each,
        request.host_memory_bytes_each,
    )


def admits(request: AcceleratorRequest, node: NodeRecord) -> bool:
    """Whether the job may run on this node at all."""
    if request.selector:
        labels = dict(node.node.labels)
        if any(labels.get(key) != value for key, value in request.selector):
            return False
    return all(
        any(toleration.accepts(taint) for toleration in request.tolerations)
        for taint in node.node.taints
    )


def _large_enough(request: AcceleratorRequest, accelerators: list[Accelerator]) -> bool:
    return all(
        len(a.cpu_cores) >= request.cpu_cores_each
        and a.host_memory_bytes >= request.host_memory_bytes_each
        for a in accelerators
    )


class Pool:
    """Accelerators of one type that are left, with the nodes sorted by how many they have left.

    Finding a node costs a look into a few buckets, however many nodes there are.
    """

    def __init__(self) -> None:
        """Begins empty."""
        self.free: dict[NodeId, list[Accelerator]] = {}
        self.total = 0
        self._by_count: list[dict[NodeId, None]] = [{}]

    def add(self, node: NodeId, accelerators: list[Accelerator]) -> None:
        """Puts a node's accelerators in."""
        self.free[node] = accelerators
        self.total += len(accelerators)
        while len(self._by_count) <= len(accelerators):
            self._by_count.append({})
        self._by_count[len(accelerators)][node] = None

    def remove(self, node: NodeId, gone: Collection[AcceleratorId]) -> None:
        """Takes accelerators of a node out; those that are not there are passed over."""
        before = self.free.get(node)
        if before is None:
            return
        left = [a for a in before if a.id not in gone]
        del self._by_count[len(before)][node]
        self._by_count[len(left)][node] = None
        self.free[node] = left
        self.total -= len(before) - len(left)

    def most_full(self, count: int, allowed: Allowed) -> NodeId | None:
        """The node with the fewest left that still has ``count``."""
        for bucket in self._by_count[count:]:
            for node in bucket:
                if allowed is None or node in allowed:
                    return node
        return None

    def emptiest_first(self, allowed: Allowed) -> Iterator[NodeId]:
        """Nodes with something left, those with most first."""
        for bucket in reversed(self._by_count[1:]):
            for node in bucket:
                if allowed is None or node in allowed:
                    yield node

    def count(self, allowed: Allowed) -> int:
        """Accelerators left on the allowed nodes."""
        if allowed is None:
            return self.total
        return sum(len(self.free[node]) for node in allowed if node in self.free)


Chosen = list[tuple[NodeId, list[Accelerator]]]


class Capacity:
    """What is left of the cluster, by accelerator type; ``take`` and ``reserve`` use it up."""

    def __init__(self, snapshot: ClusterSnapshot, without: Container[Slot] = ()) -> None:
        """All usable, healthy accelerators of the cluster except ``without``."""
        self._nodes = snapshot.nodes
        self._pools: dict[str, Pool] = {}
        self._allowed: dict[Signature, dict[str, Allowed]] = {}
        for name, node in snapshot.nodes.items():
            if node.usable:
                self._add(name, node, without)

    def _add(self, name: NodeId, node: NodeRecord, without: Container[Slot]) -> None:
        by_type: dict[str, list[Accelerator]] = {}
        for accelerator in node.node.accelerators:
            if not accelerator.unhealthy:
                left = by_type.setdefault(accelerator.type, [])
                if (name, accelerator.id) not in without:
                    left.append(accelerator)
        for kind, accelerators in by_type.items():
            self._pools.setdefault(kind, Pool()).add(name, accelerators)

    def _allowed_nodes(self, request: AcceleratorRequest) -> dict[str, Allowed]:
        """For each type that the request accepts, the nodes it may use; None for all."""
        key = signature(request)
        known = self._allowed.get(key)
        if known is None:
            known = {}
            for kind, pool in self._pools.items():
                if request.type in ("", kind):
                    fit = {name for name in pool.free if self._fits(request, name, kind)}
                    if fit:
                        known[kind] = None if len(fit) == len(pool.free) else fit
            self._allowed[key] = known
        return known

    def _fits(self, request: AcceleratorRequest, name: NodeId, kind: str) -> bool:
        node = self._nodes[name]
        if not admits(request, node):
            return False
        if not request.cpu_cores_each and not request.host_memory_bytes_each:
            return True
        return _large_enough(request, [a for a in node.node.accelerators if a.type == kind])

    def most(self, request: AcceleratorRequest) -> int:
        """Most accelerators that the request could get at once from what is left."""
        best = 0
        for kind, allowed in self._allowed_nodes(request).items():
            pool = self._pools[kind]
            if request.topology is Topology.SAME_NODE:
                largest = next(pool.emptiest_first(allowed), None)
                best = max(best, 0 if largest is None else len(pool.free[largest]))
            else:
                best = max(best, pool.count(allowed))
        return best

    def reserve(self, request: AcceleratorRequest, count: int) -> Chosen | None:
        """Uses up ``count`` accelerators for the request; None, and nothing used, if impossible.

        Prefers the type with the least left over, then few nodes: the fullest node that still
        holds the whole job, else the emptiest nodes first.
        """
        best: Chosen | None = None
        best_pool, spare = Pool(), 0
        for kind, allowed in self._allowed_nodes(request).items():
            pool = self._pools[kind]
            chosen = _choose(pool, count, request.topology, allowed)
            if chosen is not None and (best is None or pool.total < spare):
                best, best_pool, spare = chosen, pool, pool.total
        if best is not None:
            for name, accelerators in best:
                best_pool.remove(name, {a.id for a in accelerators})
        return best

    def take(self, spec: JobSpec, count: int) -> Placement | None:
        """A placement of ``count`` accelerators, used up; None if impossible."""
        chosen = self.reserve(spec.accelerators, count)
        if chosen is None:
            return None
        return Placement(plan_for(spec, count), _units(spec, chosen))

    def drop(self, slots: Iterable[Slot]) -> None:
        """Uses up accelerators that somebody keeps."""
        by_node: dict[NodeId, set[AcceleratorId]] = {}
        for name, accelerator_id in slots:
            by_node.setdefault(name, set()).add(accelerator_id)
        for name, gone in by_node.items():
            for pool in self._pools.values():
                pool.remove(name, gone)

    def withhold(self, request: AcceleratorRequest) -> None:
        """Uses up everything on the nodes that the request could use."""
        for kind, allowed in self._allowed_nodes(request).items():
            pool = self._pools[kind]
            for name in list(pool.free) if allowed is None else allowed:
                pool.remove(name, {a.id for a in pool.free[name]})


def _choose(pool: Pool, count: int, topology: Topology, allowed: Allowed) -> Chosen | None:
    name = pool.most_full(count, allowed)
    if name is not None:
        return [(name, pool.free[name][:count])]
    if topology is Topology.SAME_NODE or pool.count(allowed) < count:
        return None
    chosen: Chosen = []
    for emptiest in pool.emptiest_first(allowed):
        part = pool.free[emptiest][:count]
        chosen.append((emptiest, part))
        count -= len(part)
        if count == 0:
            return chosen
    return None


def _units(spec: JobSpec, chosen: Chosen) -> tuple[LaunchUnit, ...]:
    units: list[LaunchUnit] = []
    rank = 0
    for name, accelerators in chosen:
        groups = [accelerators] if spec.unit_per_node else [[a] for a in accelerators]
        for group in groups:
            cores = sorted({core for a in group for core in a.cpu_cores})
            units.append(
                LaunchUnit(
                    index=len(units),
                    node=name,
                    accelerators=tuple(a.id for a in group),
                    first_rank=rank,
                    cpu_cores=tuple(cores),
                    host_memory_bytes=sum(a.host_memory_bytes for a in group),
                )
            )
            rank += len(group)
    return tuple(units)


def plan_for(spec: JobSpec, count: int) -> ExecutionPlan:
    """Data parallel over ``count`` ranks, accumulating as little as the micro-batch allows."""
    if not spec.global_batch_size or not spec.micro_batch_size_max:
        return ExecutionPlan(count)
    per_rank = spec.global_batch_size // count
    accumulation = -(-per_rank // spec.micro_batch_size_max)
    while per_rank % accumulation:
        accumulation += 1
    return ExecutionPlan(count, accumulation)


def sizes(spec: JobSpec) -> tuple[int, ...]:
    """Numbers of accelerators the job can train on: equal shares of the global batch."""
    request, batch = spec.accelerators, spec.global_batch_size
    if request.minimum == request.maximum:
        counts: Sequence[int] = (request.minimum,)
    else:
        counts = range(request.minimum, request.maximum + 1)
    return tuple(n for n in counts if not batch or batch % n == 0)
