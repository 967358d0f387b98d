"""Which plans are measured, by a rule that is fixed before anything is measured.

All plans that can train the model are asked about, whatever memory they need. First comes the
simplest plan of each of `KINDS`, in that order: little accumulation, and nothing that the kind does
not ask for. Then, one by one, the plan that is farthest from all that were chosen (`_distance`).
Equals are taken in the order of `feasible_plans`.
"""

import math
from collections.abc import Callable, Sequence

from headrace.api.feasible_plans import feasible_plans
from headrace.api.models import ModelShape
from headrace.api.plan import ExecutionPlan, PipelineSchedule

MOST = 24
"""Plans of a model and a number of accelerators."""

_FAR_ACCUMULATION = 3.0
"""Doublings of micro-batches that count as one whole difference."""

KINDS: Sequence[Callable[[ExecutionPlan], bool]] = (
    lambda plan: _is_plain(plan) and plan.accumulation_steps == 1,
    lambda plan: plan.schedule is PipelineSchedule.ONE_F_ONE_B,
    lambda plan: plan.tensor_parallel > 1,
    lambda plan: plan.zero_stage == 3 and not plan.offload,
    lambda plan: plan.zero_stage == 2 and plan.offload,
    lambda plan: _is_plain(plan) and plan.activation_checkpointing,
    lambda plan: plan.ranks == plan.data_parallel and plan.accumulation_steps > 1,
    lambda plan: plan.schedule is PipelineSchedule.ZERO_BUBBLE,
    lambda plan: plan.schedule is PipelineSchedule.INTERLEAVED,
    lambda plan: plan.schedule is PipelineSchedule.GPIPE,
    lambda plan: plan.zero_stage == 1,
    lambda plan: plan.zero_stage == 2 and not plan.offload,
    lambda plan: plan.zero_stage == 3 and plan.offload,
    lambda plan: plan.data_parallel > 1 and plan.tensor_parallel > 1,
    lambda plan: plan.data_parallel > 1 and plan.pipeline_parallel > 1,
    lambda plan: plan.tensor_parallel > 1 and plan.pipeline_parallel > 1,
)
"""What a performance model must tell apart: the first seven are as many as it has parameters."""


def chosen_plans(
    shape: ModelShape, accelerators: int, batch: int, most: int = MOST
) -> tuple[ExecutionPlan, ...]:
    """At most so many plans for exactly so many accelerators, the most different ones first.

    Args:
        shape: The model.
        accelerators: Accelerators that each plan occupies.
        batch: Samples of a step.
        most: How many plans there shall be.
    """
    left = list(feasible_plans(shape, accelerators, batch))
    chosen: list[ExecutionPlan] = []

    def take(plan: ExecutionPlan) -> None:
        left.remove(plan)
        chosen.append(plan)

    for is_of_kind in KINDS:
        of_kind = [plan for plan in left if is_of_kind(plan)]
        if of_kind and not any(map(is_of_kind, chosen)):
            take(min(of_kind, key=_extras))
    while left and len(chosen) < most:
        take(max(left, key=lambda plan: min(_distance(plan, other) for other in chosen)))
    return tuple(chosen[:most])


def _is_plain(plan: ExecutionPlan) -> bool:
    """Whether nothing is split or shared."""
    return plan.ranks == plan.data_parallel and plan.zero_stage == 0 and not plan.offload


def _extras(plan: ExecutionPlan) -> tuple[int, int]:
    """How far a plan is from a simple one."""
    sizes = (plan.data_parallel, plan.tensor_parallel, plan.pipeline_parallel)
    extras = plan.activation_checkpointing + plan.offload + (plan.zero_stage > 0)
    return sum(size > 1 for size in sizes) + extras, plan.accumulation_steps


def _distance(one: ExecutionPlan, other: ExecutionPlan) -> float:
    """Dimensions in which two plans differ; accumulation counts by its doublings, at most once."""
    differences = (
        _layout(one) != _layout(other),
        one.schedule != other.schedule,
        one.zero_stage != other.zero_stage,
        one.offload != other.offload,
        one.activation_checkpointing != other.activation_checkpointing,
    )
    doublings = abs(math.log2(one.accumulation_steps / other.accumulation_steps))
    return sum(differences) + min(1.0, doublings / _FAR_ACCUMULATION)


def _layout(plan: ExecutionPlan) -> tuple[int, int, int]:
    return plan.data_parallel, plan.tensor_parallel, plan.pipeline_parallel
