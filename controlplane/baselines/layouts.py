"""Which ways a job has under the plan that it asks for, or the same with more or fewer replicas,
and how accelerators are found for one.

Policies that are kept for comparison do not choose plans. Where step times are known, a job lies as
they were measured; where nothing is known of it, as the cluster has room.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from controlplane.domain.changing import changed
from controlplane.domain.ids import AcceleratorId, NodeId
from controlplane.domain.job import JobSpec, Topology
from controlplane.domain.offering import memory_need, plans_of, sizes
from controlplane.domain.placement import Placement
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import JobRecord
from controlplane.domain.step_times import Shares, StepTimes, Way
from controlplane.placing.capacity import Capacity, Holding, Parts
from controlplane.placing.layout import family, placement_on, placement_under, reserved
from controlplane.placing.order import as_wanted
from controlplane.placing.racks import NO_RACKS
from controlplane.placing.shares import exists, nodes_for
from headrace.api.counted import counted
from headrace.api.plan import ExecutionPlan


@dataclass(frozen=True, slots=True)
class Layout:
    """One way in which a job could be laid out.

    Attributes:
        accelerators: How many it takes.
        plan: Under which plan; None for the best that suits where it comes to lie.
        shares: How they lie; empty for wherever there is room.
        kind: Type of the accelerators; empty for any.
        seconds: What a step takes; 0 where nobody knows.
    """

    accelerators: int
    plan: ExecutionPlan | None = None
    shares: Shares = ()
    kind: str = ""
    seconds: float = 0.0

    def suits(self, placement: Placement, shares: Shares, kind: str) -> bool:
        """Whether a placement that lies so is this layout."""
        if placement.accelerator_count != self.accelerators or self.kind not in ("", kind):
            return False
        return not self.shares or (self.shares == shares and self.plan == placement.plan)


def requested(spec: JobSpec) -> tuple[int, ExecutionPlan] | None:
    """How many accelerators the job asks for, and under which plan; None if it has no plan."""
    able = sizes(spec)
    if not able:
        return None
    asked = spec.accelerators.asked_for
    count = next((size for size in able if size >= asked), able[-1])
    plan = spec.requested_plan
    if plan is not None and plan.ranks == count and (not spec.plans or plan in spec.plans):
        return count, plan
    return count, plans_of(spec, count)[0]


def requested_way(times: StepTimes, spec: JobSpec, kind: str) -> Way | None:
    """How the job runs where it gets just what it asks for: on the fewest nodes, of these ways
    the fastest; None if nobody knows one.
    """
    asked = requested(spec)
    plan = spec.requested_plan or (None if asked is None else asked[1])
    found = (way for way in times.ways(spec, kind) if way.plan == plan)
    return min(found, key=lambda way: (len(way.shares), way.seconds, way.shares), default=None)


def scaled(step_times: StepTimes, spec: JobSpec, capacity: Capacity) -> tuple[Layout, ...]:
    """Every known way of the plan that the job asks for, with any number of replicas: by size, the
    fastest of a size first.
    """
    asked = requested(spec)
    if asked is None:
        return ()
    same = family(asked[1])
    found = [
        Layout(way.accelerators, way.plan, way.shares, kind, way.seconds)
        for kind in capacity.allowed_nodes(spec.accelerators)
        for way in step_times.ways(spec, kind)
        if family(way.plan) == same and _can_lie(spec, kind, way.shares, capacity)
    ]
    return tuple(sorted(found, key=_by_size))


def as_requested(step_times: StepTimes, spec: JobSpec, capacity: Capacity) -> tuple[Layout, ...]:
    """The known ways of just what the job asks for, the fastest first. Of a job of which nothing is
    known at all: wherever there is room. Nothing if only other ways are known.
    """
    asked = requested(spec)
    if asked is None:
        return ()
    count, plan = asked
    kinds = capacity.allowed_nodes(spec.accelerators)
    found = [
        Layout(count, plan, way.shares, kind, way.seconds)
        for kind in kinds
        for way in step_times.ways(spec, kind)
        if way.plan == plan and _can_lie(spec, kind, way.shares, capacity)
    ]
    if found or any(step_times.ways(spec, kind) for kind in kinds):
        return tuple(sorted(found, key=_by_size))
    return (Layout(count),)


def _can_lie(spec: JobSpec, kind: str, shares: Shares, capacity: Capacity) -> bool:
    """Whether some rack has as many nodes as large, where a job must keep to one."""
    request = spec.accelerators
    if request.topology is not Topology.SAME_RACK or len(shares) < 2:
        return True
    return exists(capacity.shape(request), kind, shares)


def under_the_plan_asked_for(
    record: JobRecord, place: Placement, capacity: Capacity
) -> Placement | None:
    """The place where a job stays, under the plan that it asks for, with the replicas that it has:
    its spec may have been changed since it was laid out. See ``placing.standing.Under``.
    """
    spec = record.job.spec
    if record.job.generation == 1 or spec.requested_plan is None:
        return as_wanted(record, place, capacity)
    asked = requested(spec)
    same = asked is not None and family(asked[1]) == family(place.plan)
    return place if same and (not spec.plans or place.plan in spec.plans) else None


def unmeasured(spec: JobSpec) -> Reason:
    """Why a job waits of which other ways are known than those that it asks for."""
    asked = requested(spec)
    how = "" if asked is None else f"{asked[1]} on {counted(asked[0], 'accelerator')}"
    return Reason(
        ReasonCode.POLICY_REFUSED,
        f"it is not known how long a step of {spec.model_type or 'its model'} takes under {how}, "
        "and this policy chooses no other plan; ask for a plan and a number of accelerators that "
        "were measured",
        wanted=0 if asked is None else asked[0],
        type=spec.accelerators.type,
    )


def placed(
    spec: JobSpec, layout: Layout, capacity: Capacity, own: Placement | None = None
) -> Placement | None:
    """The job laid out so on accelerators that are used up; None, and nothing used, if there are
    none.

    Args:
        spec: Of the job.
        layout: How it should lie.
        capacity: What is left.
        own: Where it is: of that it keeps what it can.
    """
    if not layout.shares:
        holding = reserved(spec, layout.accelerators, capacity)
        return None if holding is None else placement_on(spec, holding.parts, capacity)
    assert layout.plan is not None, "shares are known for a plan"
    asking = with_room(spec, layout, capacity)
    free = capacity.free_by_node(asking.accelerators).get(layout.kind, {})
    parts = {} if own is None else own.by_node()
    names = nodes_near(layout.shares, free, parts, capacity.racks, spec.accelerators.topology)
    if names is None:
        return None
    holding = Holding(layout.kind)
    for name, share in zip(names, layout.shares, strict=True):
        group = layout.plan.tensor_parallel
        _take(holding, capacity, name, share, parts.get(name, ()), group)
    if own is not None and own.plan == layout.plan and holding.covers(parts):
        return own
    # Who stays keeps its rank, so its nodes come first and in their order.
    order = sorted(holding.parts, key=lambda name: (name not in parts, names.index(name)))
    return placement_under(spec, layout.plan, {name: holding.parts[name] for name in order})


def with_room(spec: JobSpec, layout: Layout, capacity: Capacity) -> JobSpec:
    """The job, asking for this type and for the memory that the plan needs."""
    request = spec.accelerators
    if layout.plan is not None:
        request = capacity.with_room_for(request, memory_need(spec, layout.plan))
    if layout.kind and request.type != layout.kind:
        request = changed(request, type=layout.kind)
    return spec if request is spec.accelerators else changed(spec, accelerators=request)


def nodes_near(
    shares: Shares,
    free: Mapping[NodeId, int],
    own: Parts,
    racks: Mapping[NodeId, str] = NO_RACKS,
    topology: Topology = Topology.ANY,
) -> tuple[NodeId, ...] | None:
    """A node of its own for each share: rather one where the job is; else one in a rack where it
    is; else the fullest that still has as much. None if there are not enough.

    Args:
        shares: Accelerators wanted of each node, most first.
        free: What is left of each node, what the job has itself included.
        own: What the job has.
        racks: The rack of each node that tells one.
        topology: How far apart they may be.
    """
    if free.keys().isdisjoint(own):
        return nodes_for(shares, free, racks, topology)
    if topology is Topology.SAME_RACK and len(shares) > 1:
        return _in_one_rack(shares, free, own, racks)
    chosen: list[NodeId] = []
    left = dict(free)
    near = {racks[name] for name in own if name in racks}
    for share in shares:
        able = [name for name, count in left.items() if count >= share]
        if not able:
            return None
        name = min(
            able,
            key=lambda each: (
                -min(share, len(own.get(each, ()))),
                racks.get(each) not in near,
                left[each],
            ),
        )
        chosen.append(name)
        del left[name]
        near |= {racks[name]} if name in racks else set()
    return tuple(chosen)


def _in_one_rack(
    shares: Shares, free: Mapping[NodeId, int], own: Parts, racks: Mapping[NodeId, str]
) -> tuple[NodeId, ...] | None:
    """The same within one rack: the one where the job has most, of those that have enough."""
    held: dict[str, int] = {}
    for name in free:
        if name in racks:
            held[racks[name]] = held.get(racks[name], 0) + len(own.get(name, ()))
    for rack in sorted(held, key=lambda each: -held[each]):
        there = {name: count for name, count in free.items() if racks.get(name) == rack}
        found = nodes_near(shares, there, own)
        if found is not None:
            return found
    return None


def _take(
    holding: Holding,
    capacity: Capacity,
    name: NodeId,
    share: int,
    own: Sequence[AcceleratorId],
    group: int,
) -> None:
    """Adds a share of a node: of the job's own accelerators there as many as there are."""
    kept = capacity.claim({name: list(own[:share])}) if own else None
    if kept is not None:
        holding.add(name, kept.parts[name])
        share -= kept.count
    if share:
        holding.add(name, capacity.take(holding.kind, {name: share}, group).parts[name])


def _by_size(layout: Layout) -> tuple[int, float, Shares, str]:
    return (layout.accelerators, layout.seconds, layout.shares, layout.kind)
