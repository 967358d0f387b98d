"""The plans that a job may be offered: those of its manifest, without those that ran out of
memory where it may run; and what each of them needs, for which not every accelerator has room.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache

from controlplane.domain.any_plan import plans_to_choose, reach_of
from controlplane.domain.changing import changed
from controlplane.domain.job import AcceleratorRequest, JobSpec
from controlplane.domain.memory import Memory, estimated, memories, misfit
from controlplane.domain.memory_loss import losses_of_others
from controlplane.domain.record import JobRecord, NodeRecord
from controlplane.domain.snapshot import ClusterSnapshot
from headrace.api.plan import ExecutionPlan, data_parallel_plan

_LOOKED_FOR_UP_TO = 64
"""Accelerators for which other plans are looked for when the data-parallel ones ran out of memory
and nobody says how many there are."""

_LOSSES_TOLD = 3

There = Mapping[str, Collection[Memory | None]]
"""What accelerators of each type tell of their memory, those that are alike once."""


@lru_cache(maxsize=4096)
def _equal_shares(minimum: int, maximum: int, batch: int) -> tuple[int, ...]:
    return tuple(n for n in range(minimum, maximum + 1) if not batch or batch % n == 0)


def sizes(spec: JobSpec) -> tuple[int, ...]:
    """Numbers of accelerators the job can train on, ascending: those of its plans, else equal
    shares of the batch; none if no plan is left for it.
    """
    if spec.unfit:
        return ()
    if spec.plans:
        return tuple(sorted({plan.ranks for plan in spec.plans}))
    request = spec.accelerators
    maximum = request.maximum if spec.elastic else request.minimum
    return _equal_shares(request.minimum, maximum, spec.global_batch_size)


def data_parallel(spec: JobSpec, count: int) -> ExecutionPlan:
    """The plan of a job that names none: it accumulates as little as the micro-batch allows."""
    return data_parallel_plan(count, spec.global_batch_size, spec.micro_batch_size_max)


def plans_of(spec: JobSpec, count: int) -> tuple[ExecutionPlan, ...]:
    """Its plans for so many accelerators, the best first."""
    if not spec.plans:
        return (data_parallel(spec, count),)
    return tuple(plan for plan in spec.plans if plan.ranks == count)


def _named(spec: JobSpec) -> tuple[ExecutionPlan, ...]:
    return spec.plans or tuple(data_parallel(spec, count) for count in sizes(spec))


def _out(record: JobRecord) -> frozenset[ExecutionPlan]:
    """Plans that are not tried again.

    A plan that ran out of memory on one type is out wherever the job might get that type again:
    where any type will do, nobody could promise it another one.
    """
    wanted = record.job.spec.accelerators.type
    every = record.out_of_memory
    return frozenset(plan for kind, plan in every if not kind or wanted in ("", kind))


def plans_left(record: JobRecord) -> tuple[ExecutionPlan, ...]:
    """Every plan that may still be offered, in the order of the manifest; of a job that may run
    under any plan the data-parallel ones, and others only if none of these is left.
    """
    spec, out = record.job.spec, _out(record)
    left = tuple(plan for plan in _named(spec) if plan not in out)
    if left or not spec.any_plan:
        return left
    return tuple(plan for plan in plans_to_choose(spec, _LOOKED_FOR_UP_TO) if plan not in out)


def offered(record: JobRecord) -> JobRecord:
    """The record as policies lay it out: its spec names the plans that are left."""
    if not record.out_of_memory:
        return record
    spec = _with_plans(record.job.spec, plans_left(record))
    return changed(record, job=changed(record.job, spec=spec))


@lru_cache(maxsize=4096)
def _with_plans(spec: JobSpec, plans: tuple[ExecutionPlan, ...]) -> JobSpec:
    """The very same object for jobs that are alike."""
    return changed(spec, plans=plans)


def warned(record: JobRecord, snapshot: ClusterSnapshot) -> JobRecord:
    """The record, to be offered, of a job that need not find out again what other jobs ran out of.

    If no plan is left, its spec says so.
    """
    losses = losses_of_others(record, snapshot.memory_losses, snapshot.memory)
    if not losses:
        return record
    known = tuple((loss.type, loss.plan) for loss in losses)
    record = changed(record, out_of_memory=(*record.out_of_memory, *known))
    if plans_left(record):
        return record
    told = [f"{loss.plan} {loss.sentence}" for loss in losses]
    if len(told) > _LOSSES_TOLD:
        told[_LOSSES_TOLD:] = [f"{len(told) - _LOSSES_TOLD} more"]
    unfit = (
        f"no plan is left for it: {', '.join(told)}; what helps: name plans that take less of it "
        "each (more ZeRO, gc, offload, tensor or pipeline parallelism), or accelerators with more "
        "memory; with ignoreMemoryEstimate in its spec it is tried all the same"
    )
    return changed(record, job=changed(record.job, spec=changed(record.job.spec, unfit=unfit)))


def accelerators_offered(snapshot: ClusterSnapshot) -> int:
    """Of all types together."""
    return sum(len(every) for offer in snapshot.usable.values() for every in offer.values())


def offered_to_choose(record: JobRecord, most: int) -> JobRecord:
    """The same for a policy that chooses plans: the spec of a job that may run under any plan
    names those among which to choose.

    Args:
        record: The job.
        most: Accelerators that are offered.
    """
    spec = record.job.spec
    if not spec.any_plan or spec.plans:
        return offered(record)
    spec = _spec_to_choose(spec, reach_of(most), _out(record))
    return changed(record, job=changed(record.job, spec=spec)) if spec.plans else offered(record)


@lru_cache(maxsize=2**14)
def _spec_to_choose(spec: JobSpec, most: int, out: frozenset[ExecutionPlan]) -> JobSpec:
    """The very same object as long as nothing changes: what policies know of it they find by it."""
    every = plans_to_choose(spec, most)
    return changed(spec, plans=tuple(plan for plan in every if plan not in out) if out else every)


def memory_need(spec: JobSpec, plan: ExecutionPlan) -> Memory | None:
    """What each rank needs under the plan; None if nobody can say, or shall."""
    return estimated(spec.model, plan, spec.global_batch_size) if spec.model else None


def largest_need(spec: JobSpec) -> Memory | None:
    """The most that any of its plans needs, of either kind; None if nobody can say, or shall."""
    if not spec.model:
        return None
    counts = () if spec.plans else sizes(spec)
    batch, micro = spec.global_batch_size, spec.micro_batch_size_max
    return _largest(spec.model, spec.plans, counts, batch, micro)


@lru_cache(maxsize=4096)
def _largest(
    model: str, plans: tuple[ExecutionPlan, ...], counts: tuple[int, ...], batch: int, micro: int
) -> Memory | None:
    every = plans or tuple(data_parallel_plan(count, batch, micro) for count in counts)
    needs = [need for plan in every if (need := estimated(model, plan, batch)) is not None]
    if not needs:
        return None
    return Memory(
        max(need.accelerator_bytes for need in needs), max(need.host_bytes for need in needs)
    )


@dataclass(frozen=True, slots=True)
class Misfit:
    """A plan for which no accelerator of a type has room.

    Attributes:
        plan: The plan.
        type: The type.
        missing_bytes: By how much, where it misses least.
        message: Of what, and what would help.
    """

    plan: ExecutionPlan
    type: str
    missing_bytes: int
    message: str


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


def memory_for(snapshot: ClusterSnapshot, request: AcceleratorRequest) -> There:
    """What accelerators of each type tell where a job may run."""
    found: dict[str, set[Memory | None]] = {}
    for name, offer in snapshot.usable.items():
        for kind, every in offer.items() if admits(request, snapshot.nodes[name]) else ():
            if request.type in ("", kind):
                found.setdefault(kind, set()).update(memories(every))
    return found


def misfits(spec: JobSpec, there: There) -> list[Misfit]:
    """The job's plans that do not fit any accelerator of a type, those that miss least first.

    Args:
        spec: Of the job.
        there: What accelerators tell where the job may run.
    """
    if not spec.model:
        return []
    found = (_misfit(spec, plan, kind, there[kind]) for kind in there for plan in _named(spec))
    return sorted(filter(None, found), key=lambda each: each.missing_bytes)


def _misfit(
    spec: JobSpec, plan: ExecutionPlan, kind: str, there: Collection[Memory | None]
) -> Misfit | None:
    need, found = memory_need(spec, plan), []
    if need is None:
        return None
    for each in there:
        if each is None or need.fits(each):
            return None
        why = misfit(spec.model, plan, spec.global_batch_size, each)
        if why is not None:
            found.append(Misfit(plan, kind, why.missing_bytes, why.message))
    return min(found, key=lambda each: each.missing_bytes, default=None)
