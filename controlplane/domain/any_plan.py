"""The plans among which a policy chooses for a job that names none, if it trains a built-in model.

Not all that can train it: of those that differ little, or of which one is never the worse, one.
"""

from functools import lru_cache

from controlplane.domain.job import JobSpec
from controlplane.domain.model_type import type_named
from headrace.api.feasible_plans import PlanForm, feasible_forms
from headrace.api.plan import ExecutionPlan, PipelineSchedule, data_parallel_plan

_EVERY_SIZE_UP_TO = 8
_FOURS_UP_TO = 64
_STEPS_APART = 4
"""Numbers of micro-batches that are tried grow by this factor."""


def plans_to_choose(spec: JobSpec, most: int) -> tuple[ExecutionPlan, ...]:
    """Plans for the job, by number of accelerators; none if it names its own, or may not choose.

    Args:
        spec: Of the job.
        most: Accelerators that there are. A little more may be answered for.
    """
    if not spec.any_plan or spec.plans:
        return ()
    request = spec.accelerators
    reach = min(request.maximum, max(reach_of(most), request.minimum))
    return _plans(spec.model_type, request.minimum, reach, spec.micro_batch_size_max)


def reach_of(accelerators: int) -> int:
    """So many are answered for, so that the answer stays when a node comes or goes."""
    return 1 << max(0, accelerators - 1).bit_length()


@lru_cache(maxsize=512)
def _plans(model_type: str, least: int, most: int, micro: int) -> tuple[ExecutionPlan, ...]:
    """One answer for all jobs that are alike: it is compared and looked up by, in every cycle."""
    known = type_named(model_type)
    if known is None:
        return ()
    found: list[ExecutionPlan] = []
    for size in range(least, most + 1):
        if size not in (least, most) and not _is_worth_a_look(size):
            continue
        plain = data_parallel_plan(size, known.samples, micro)
        as_form = PlanForm(size, plain.accumulation_steps, 1, 1, None, 0, False, False)
        plans = [
            ExecutionPlan(*form)
            for form in feasible_forms(known.shape, size, known.samples)
            if form == as_form or _is_offered(form, known.samples, micro)
        ]
        if plain not in plans and known.samples % (size * plain.accumulation_steps) == 0:
            plans.append(plain)
        found += plans
    return tuple(found)


def _is_worth_a_look(size: int) -> bool:
    if size <= _EVERY_SIZE_UP_TO or size & (size - 1) == 0:
        return True
    return size <= _FOURS_UP_TO and size % 4 == 0


def _is_offered(plan: PlanForm, samples: int, micro: int) -> bool:
    """Whether nothing else is mostly better: ZeRO-1 sends as much as ZeRO-2 and shares less; GPipe
    keeps more at a time than 1F1B and is as idle.
    """
    if plan.zero_stage == 1 or plan.schedule is PipelineSchedule.GPIPE:
        return False
    share = samples // plan.data_parallel
    if micro and share // plan.accumulation_steps > micro:
        return False
    steps, first = plan.accumulation_steps, plan.pipeline_parallel
    while first < steps:
        first *= _STEPS_APART
    return steps in (first, share)
