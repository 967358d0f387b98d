"""How a job is laid out: which sizes it can have, under which plan, in which launch units."""

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache

from controlplane.baselines.capacity import Capacity, Holding
from controlplane.domain.ids import NodeId
from controlplane.domain.job import JobSpec
from controlplane.domain.node import Accelerator
from controlplane.domain.placement import LaunchUnit, Placement
from headrace.api.plan import ExecutionPlan


@lru_cache(maxsize=4096)
def _equal_shares(minimum: int, maximum: int, batch: int) -> tuple[int, ...]:
    return tuple(n for n in range(minimum, maximum + 1) if not batch or batch % n == 0)


def sizes(spec: JobSpec) -> tuple[int, ...]:
    """Numbers of accelerators the job can train on, ascending: those of its plans, else equal
    shares of the batch.
    """
    if spec.plans:
        return tuple(sorted({plan.ranks for plan in spec.plans}))
    request = spec.accelerators
    maximum = request.maximum if spec.elastic else request.minimum
    return _equal_shares(request.minimum, maximum, spec.global_batch_size)


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


def reserved(spec: JobSpec, count: int, capacity: Capacity) -> Holding | None:
    """Uses up accelerators for a size; where there is a choice, for the best plan of that size."""
    for group in groups(spec, count):
        holding = capacity.reserve(spec.accelerators, count, group)
        if holding is not None:
            return holding
    return None


def plan_for(spec: JobSpec, counts: Collection[int]) -> ExecutionPlan | None:
    """The best plan for so many accelerators on each node; None if no plan can be laid out so.

    Without plans of its own a job is data parallel, accumulating as little as the micro-batch
    allows.
    """
    total = sum(counts)
    if not spec.plans:
        return _data_parallel(spec, total)
    for plan in spec.plans:
        # Neighbours in a tensor-parallel group have consecutive ranks.
        if plan.ranks == total and not any(count % plan.tensor_parallel for count in counts):
            return plan
    return None


def _data_parallel(spec: JobSpec, count: int) -> ExecutionPlan:
    if not spec.global_batch_size or not spec.micro_batch_size_max:
        return ExecutionPlan(count)
    per_rank = spec.global_batch_size // count
    accumulation = -(-per_rank // spec.micro_batch_size_max)
    while per_rank % accumulation:
        accumulation += 1
    return ExecutionPlan(count, accumulation)


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
