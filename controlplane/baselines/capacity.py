"""Which accelerators are left, and a placement out of them that spans few nodes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from controlplane.domain.ids import NodeId
from controlplane.domain.job import AcceleratorRequest, JobSpec, Topology
from controlplane.domain.node import Accelerator
from controlplane.domain.placement import LaunchUnit, Placement
from controlplane.domain.record import NodeRecord
from controlplane.domain.snapshot import ClusterSnapshot, Slot
from headrace.api.plan import ExecutionPlan

Signature = tuple[object, ...]


def signature(request: AcceleratorRequest) -> Signature:
    """What decides on which nodes a job can run; jobs of one signature compete fully."""
    return (
        request.type,
        request.selector,
        request.tolerations,
        request.cpu_cores_each,
        request.host_memory_bytes_each,
    )


def accepts(request: AcceleratorRequest, node: NodeRecord, accelerator: Accelerator) -> bool:
    """Whether the job could use this accelerator if it were free."""
    return (
        (not request.type or accelerator.type == request.type)
        and not accelerator.unhealthy
        and len(accelerator.cpu_cores) >= request.cpu_cores_each
        and accelerator.host_memory_bytes >= request.host_memory_bytes_each
    )


def admits(request: AcceleratorRequest, node: NodeRecord) -> bool:
    """Whether the job may run on this node at all."""
    if not node.usable:
        return False
    if request.selector:
        labels = dict(node.node.labels)
        if any(labels.get(key) != value for key, value in request.selector):
            return False
    return all(
        any(toleration.accepts(taint) for toleration in request.tolerations)
        for taint in node.node.taints
    )


@dataclass(slots=True)
class Capacity:
    """Accelerators by node; ``take`` removes them as they are given out.

    Attributes:
        nodes: Every known node.
        free: Accelerators still to be given out, by node, in the node's order.
    """

    nodes: Mapping[NodeId, NodeRecord]
    free: dict[NodeId, list[Accelerator]]
    _eligible: dict[Signature, tuple[NodeId, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, snapshot: ClusterSnapshot, without: Iterable[Slot] = ()) -> "Capacity":
        """All usable, healthy accelerators of the cluster except ``without``."""
        gone = set(without)
        free = {}
        for name, node in snapshot.nodes.items():
            if node.usable:
                left = [
                    a
                    for a in node.node.accelerators
                    if not a.unhealthy and (name, a.id) not in gone
                ]
                if left:
                    free[name] = left
        return cls(snapshot.nodes, free)

    def eligible(self, request: AcceleratorRequest) -> tuple[NodeId, ...]:
        """Nodes with some accelerator, free or not, that the request accepts."""
        key = signature(request)
        known = self._eligible.get(key)
        if known is None:
            known = tuple(
                name
                for name, node in self.nodes.items()
                if admits(request, node)
                and any(accepts(request, node, a) for a in node.node.accelerators)
            )
            self._eligible[key] = known
        return known

    def usable(self, request: AcceleratorRequest) -> dict[str, dict[NodeId, list[Accelerator]]]:
        """Free accelerators that the request accepts, by type and node."""
        by_type: dict[str, dict[NodeId, list[Accelerator]]] = {}
        for name in self.eligible(request):
            for accelerator in self.free.get(name, ()):
                if accepts(request, self.nodes[name], accelerator):
                    of_type = by_type.setdefault(accelerator.type, {})
                    of_type.setdefault(name, []).append(accelerator)
        return by_type

    def most(self, request: AcceleratorRequest) -> int:
        """Most accelerators that the request could get at once from what is left."""
        same_node = request.topology is Topology.SAME_NODE
        best = 0
        for of_type in self.usable(request).values():
            sizes = [len(found) for found in of_type.values()]
            best = max(best, max(sizes) if same_node else sum(sizes))
        return best

    def take(self, spec: JobSpec, count: int) -> Placement | None:
        """A placement of ``count`` accelerators, removed from what is left; None if impossible.

        Prefers the accelerator type with the least left over, then few nodes: the fullest node
        that still holds the whole job, else the emptiest nodes first.
        """
        request = spec.accelerators
        best: Sequence[tuple[NodeId, list[Accelerator]]] | None = None
        spare = 0
        for of_type in self.usable(request).values():
            chosen = _choose(of_type, count, request.topology)
            total = sum(len(found) for found in of_type.values())
            if chosen is not None and (best is None or total < spare):
                best, spare = chosen, total
        if best is None:
            return None
        for name, accelerators in best:
            taken = {a.id for a in accelerators}
            self.free[name] = [a for a in self.free[name] if a.id not in taken]
        return Placement(plan_for(spec, count), _units(spec, best))

    def drop(self, slots: Iterable[Slot]) -> None:
        """Removes accelerators that somebody keeps."""
        for name, accelerator_id in slots:
            left = self.free.get(name)
            if left is not None:
                self.free[name] = [a for a in left if a.id != accelerator_id]


def _choose(
    of_type: Mapping[NodeId, list[Accelerator]], count: int, topology: Topology
) -> list[tuple[NodeId, list[Accelerator]]] | None:
    whole = [(len(found), name) for name, found in of_type.items() if len(found) >= count]
    if whole:
        name = min(whole, key=lambda item: item[0])[1]
        return [(name, of_type[name][:count])]
    if topology is Topology.SAME_NODE or sum(map(len, of_type.values())) < count:
        return None
    chosen = []
    for name, found in sorted(of_type.items(), key=lambda item: -len(item[1])):
        part = found[:count]
        chosen.append((name, part))
        count -= len(part)
        if count == 0:
            return chosen
    return None


def _units(
    spec: JobSpec, chosen: Sequence[tuple[NodeId, list[Accelerator]]]
) -> tuple[LaunchUnit, ...]:
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
