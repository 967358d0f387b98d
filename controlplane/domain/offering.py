"""The plans that a job may be offered: those of its manifest, without those that ran out of
memory where it may run.
"""

from functools import lru_cache

from controlplane.domain.changing import changed
from controlplane.domain.job import JobSpec
from controlplane.domain.record import JobRecord
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


def data_parallel(spec: JobSpec, count: int) -> ExecutionPlan:
    """The plan of a job that names none: it accumulates as little as the micro-batch allows."""
    if not spec.global_batch_size or not spec.micro_batch_size_max:
        return ExecutionPlan(count)
    per_rank = spec.global_batch_size // count
    accumulation = -(-per_rank // spec.micro_batch_size_max)
    while per_rank % accumulation:
        accumulation += 1
    return ExecutionPlan(count, accumulation)


def plans_left(record: JobRecord) -> tuple[ExecutionPlan, ...]:
    """Every plan that may still be offered, in the order of the manifest.

    A plan that ran out of memory on one type is out wherever the job might get that type again:
    where any type will do, nobody could promise it another one.
    """
    spec = record.job.spec
    named = spec.plans or tuple(data_parallel(spec, count) for count in sizes(spec))
    wanted = spec.accelerators.type
    out = {plan for kind, plan in record.out_of_memory if not kind or wanted in ("", kind)}
    return tuple(plan for plan in named if plan not in out)


def offered(record: JobRecord) -> JobRecord:
    """The record as policies lay it out: its spec names the plans that are left."""
    if not record.out_of_memory:
        return record
    spec = changed(record.job.spec, plans=plans_left(record))
    return changed(record, job=changed(record.job, spec=spec))
