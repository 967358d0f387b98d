"""How a job is laid out: which sizes it can have, under which plan, in which launch units."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from controlplane.domain.changing import changed
from controlplane.domain.ids import NodeId
from controlplane.domain.job import AcceleratorRequest, JobSpec
from controlplane.domain.node import Accelerator
from controlplane.domain.offering import largest_need, memory_need, plans_of, sizes
from controlplane.domain.placement import LaunchUnit, Placement
from controlplane.domain.record import NOWHERE, JobRecord
from controlplane.domain.snapshot import Slot
from controlplane.placing.capacity import Capacity, Holding, Parts
from controlplane.placing.islands import side_by_side
from headrace.api.plan import ExecutionPlan


class Way(NamedTuple):
    """How the accelerators for a plan are asked for.

    Attributes:
        group: How many of one node it uses together.
        request: The job's own request; with the memory that the plan needs, if not all have it.
    """

    group: int
    request: AcceleratorRequest


def sizes_in(spec: JobSpec, capacity: Capacity) -> tuple[int, ...]:
    """Those sizes, without the ones for which the cluster has no room: no node for a
    tensor-parallel group, or too few accelerators with the memory that a plan needs.
    """
    request, roomy = spec.accelerators, has_room_everywhere(spec, capacity)
    if roomy and not spec.plans:
        return sizes(spec)
    return tuple(
        size
        for size in sizes(spec)
        if any(
            (way.group == 1 and way.request is request)
            or size <= capacity.most_if_empty(way.request, way.group)
            for way in _ways(spec, size, capacity, roomy)
        )
    )


def has_room_everywhere(spec: JobSpec, capacity: Capacity) -> bool:
    """Whether each of its plans fits the memory of each accelerator that the job could get."""
    return not spec.model or capacity.has_room_for(spec.accelerators, largest_need(spec))


def ways(spec: JobSpec, count: int, capacity: Capacity) -> tuple[Way, ...]:
    """How accelerators for a size may be asked for, the best plan's way first."""
    return _ways(spec, count, capacity, has_room_everywhere(spec, capacity))


def _ways(spec: JobSpec, count: int, capacity: Capacity, roomy: bool) -> tuple[Way, ...]:
    request = spec.accelerators
    if roomy and not spec.plans:
        return (Way(1, request),)
    plans = plans_of(spec, count)
    if roomy:
        return tuple(
            Way(group, request) for group in dict.fromkeys(p.tensor_parallel for p in plans)
        )
    needs = ((plan, memory_need(spec, plan)) for plan in plans)
    every = (Way(p.tensor_parallel, capacity.with_room_for(request, need)) for p, need in needs)
    return tuple(dict.fromkeys(every))


def requests(asked: Iterable[Way]) -> tuple[AcceleratorRequest, ...]:
    """What is asked for in one of these ways, each once."""
    return tuple(dict.fromkeys(way.request for way in asked))


def as_asked(record: JobRecord, asked: Iterable[Way]) -> JobRecord:
    """The job, asking for the memory without which it cannot do in any of these ways."""
    spec = record.job.spec
    modest = min(
        requests(asked),
        key=lambda each: (
            (0, 0)
            if each.memory is None
            else (each.memory.accelerator_bytes, each.memory.host_bytes)
        ),
    )
    if modest is spec.accelerators:
        return record
    spec = changed(spec, accelerators=modest)
    return changed(record, job=changed(record.job, spec=spec))


def has_room(spec: JobSpec, plan: ExecutionPlan, slots: Iterable[Slot], capacity: Capacity) -> bool:
    """Whether the plan fits the memory of these accelerators."""
    request = spec.accelerators
    if has_room_everywhere(spec, capacity):
        return True
    asked = capacity.with_room_for(request, memory_need(spec, plan))
    return asked is request or capacity.suits(asked, slots)


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
    for way in ways(spec, count, capacity):
        holding = capacity.reserve(way.request, count, way.group, without)
        if holding is not None:
            return holding
    return None


def reserved_rather_off(
    spec: JobSpec, count: int, capacity: Capacity, avoid: frozenset[NodeId]
) -> Holding | None:
    """The same; of nodes to avoid only if there is no other room."""
    holding = reserved(spec, count, capacity, avoid) if avoid else None
    return holding or reserved(spec, count, capacity)


def plan_for(
    spec: JobSpec, parts: Parts, capacity: Capacity, runs: ExecutionPlan | None = None
) -> ExecutionPlan | None:
    """The best plan for these accelerators; None if no plan can be laid out so.

    Without plans of its own a job is data parallel, accumulating as little as the micro-batch
    allows.

    Args:
        spec: Of the job.
        parts: The accelerators by node.
        capacity: Knows their memory.
        runs: What runs there already, and so has room, whatever was estimated.
    """
    slots = [(node, each) for node, ids in parts.items() for each in ids]
    for plan in plans_of(spec, len(slots)):
        # Neighbours in a tensor-parallel group have consecutive ranks.
        if any(len(ids) % plan.tensor_parallel for ids in parts.values()):
            continue
        if plan == runs or has_room(spec, plan, slots, capacity):
            return plan
    return None


def placement_on(
    spec: JobSpec, parts: Mapping[NodeId, Sequence[Accelerator]], capacity: Capacity
) -> Placement:
    """The job laid out over these accelerators under the best plan that suits them."""
    plan = plan_for(spec, {name: [a.id for a in each] for name, each in parts.items()}, capacity)
    assert plan is not None, "what was reserved suits a plan"
    return placement_under(spec, plan, parts)


def family(plan: ExecutionPlan) -> ExecutionPlan:
    """What plans have in common that differ in replicas alone, and in the micro-batches that follow
    from their number.
    """
    return replace(plan, data_parallel=1, accumulation_steps=1)


def placement_under(
    spec: JobSpec, plan: ExecutionPlan, parts: Mapping[NodeId, Sequence[Accelerator]]
) -> Placement:
    """The job laid out over these accelerators: one rank each, node after node, and those of an
    NVLink island side by side.

    Args:
        spec: Of the job.
        plan: A plan that suits them; nobody asks here whether it does.
        parts: The accelerators by node.
    """
    units: list[LaunchUnit] = []
    rank = 0
    for name, each in parts.items():
        accelerators = side_by_side(each, plan.tensor_parallel)
        unit_groups = [accelerators] if spec.unit_per_node else [[a] for a in accelerators]
        for group in unit_groups:
            units.append(_unit(len(units), name, group, rank))
            rank += len(group)
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
