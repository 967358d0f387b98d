"""How a job is laid out: which sizes it can have, under which plan, in which launch units."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

from controlplane.domain.ids import NodeId
from controlplane.domain.job import JobSpec
from controlplane.domain.node import Accelerator
from controlplane.domain.placement import LaunchUnit, Placement
from headrace.api.plan import ExecutionPlan


@lru_cache(maxsize=4096)
def _equal_shares(minimum: int, maximum: int, batch: int) -> tuple[int, ...]:
    return tuple(n for n in range(minimum, maximum + 1) if not batch or batch % n == 0)


def sizes(spec: JobSpec) -> tuple[int, ...]:
    """Numbers of accelerators the job can train on, ascending: equal shares of the batch."""
    request = spec.accelerators
    maximum = request.maximum if spec.elastic else request.minimum
    return _equal_shares(request.minimum, maximum, spec.global_batch_size)


def plan_for(spec: JobSpec, count: int) -> ExecutionPlan:
    """Data parallel over ``count`` ranks, accumulating as little as the micro-batch allows."""
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
        groups = [accelerators] if spec.unit_per_node else [[a] for a in accelerators]
        for group in groups:
            units.append(_unit(len(units), name, group, rank))
            rank += len(group)
    return Placement(plan_for(spec, rank), tuple(units))


def _unit(index: int, node: NodeId, group: Sequence[Accelerator], first_rank: int) -> LaunchUnit:
    return LaunchUnit(
        index=index,
        node=node,
        accelerators=tuple(a.id for a in group),
        first_rank=first_rank,
        cpu_cores=tuple(sorted({core for a in group for core in a.cpu_cores})),
        host_memory_bytes=sum(a.host_memory_bytes for a in group),
    )
