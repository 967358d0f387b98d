"""How a job is laid out: which sizes it can have, under which plan, in which launch units."""

from collections.abc import Collection, Mapping, Sequence

from controlplane.baselines.capacity import Capacity, Holding
from controlplane.domain.ids import NodeId
from controlplane.domain.job import JobSpec
from controlplane.domain.node import Accelerator
from controlplane.domain.offering import data_parallel, sizes
from controlplane.domain.placement import LaunchUnit, Placement
from controlplane.domain.record import NOWHERE
from headrace.api.plan import ExecutionPlan


def sizes_in(spec: JobSpec, capacity: Capacity) -> tuple[int, ...]:
    """Those sizes, without the ones whose tensor-parallel groups fit on no nodes of the cluster."""
    if not spec.plans:
        return sizes(spec)
    request = spec.accelerators
    return tuple(
        size
        for size in sizes(spec)
        if any(
            group == 1 or size <= capacity.most_if_empty(request, group)
            for group in groups(spec, size)
        )
    )


def groups(spec: JobSpec, count: int) -> tuple[int, ...]:
    """How many accelerators of one node the plans of a size use together, the best plan's first."""
    if not spec.plans:
        return (1,)
    return tuple(dict.fromkeys(p.tensor_parallel for p in spec.plans if p.ranks == count))


def reserved(
    spec: JobSpec, count: int, capacity: Capacity, without: frozenset[NodeId] = NOWHERE
) -> Holding | None:
    """Uses up accelerators for a size; where there is a choice, for the best plan of that size.

    Args:
        spec: Of the job.
        count: The size.
        capacity: What is left.
        without: Nodes of which it gets nothing.
    """
    for group in groups(spec, count):
        holding = capacity.reserve(spec.accelerators, count, group, without)
        if holding is not None:
            return holding
    return None


def reserved_rather_off(
    spec: JobSpec, count: int, capacity: Capacity, avoid: frozenset[NodeId]
) -> Holding | None:
    """The same; of nodes to avoid only if there is no other room."""
    holding = reserved(spec, count, capacity, avoid) if avoid else None
    return holding or reserved(spec, count, capacity)


def plan_for(spec: JobSpec, counts: Collection[int]) -> ExecutionPlan | None:
    """The best plan for so many accelerators on each node; None if no plan can be laid out so.

    Without plans of its own a job is data parallel, accumulating as little as the micro-batch
    allows.
    """
    total = sum(counts)
    if not spec.plans:
        return data_parallel(spec, total)
    for plan in spec.plans:
        # Neighbours in a tensor-parallel group have consecutive ranks.
        if plan.ranks == total and not any(count % plan.tensor_parallel for count in counts):
            return plan
    return None


def placement_on(spec: JobSpec, parts: Mapping[NodeId, Sequence[Accelerator]]) -> Placement:
    """The job laid out over these accelerators: one rank each, node after node."""
    units: list[LaunchUnit] = []
    rank = 0
    for name, accelerators in parts.items():
        unit_groups = [accelerators] if spec.unit_per_node else [[a] for a in accelerators]
        for group in unit_groups:
            units.append(_unit(len(units), name, group, rank))
            rank += len(group)
    plan = plan_for(spec, [len(accelerators) for accelerators in parts.values()])
    assert plan is not None, "what was reserved suits a plan"
    return Placement(plan, tuple(units))


def _unit(index: int, node: NodeId, group: Sequence[Accelerator], first_rank: int) -> LaunchUnit:
    return LaunchUnit(
        index=index,
        node=node,
        accelerators=tuple(a.id for a in group),
        first_rank=first_rank,
        cpu_cores=tuple(sorted({core for a in group for core in a.cpu_cores})),
        host_memory_bytes=sum(a.host_memory_bytes for a in group),
    )
