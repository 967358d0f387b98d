"""Whether the plans that a manifest names can run what it trains."""

from collections.abc import Iterator
from typing import Protocol

from pydantic_core import PydanticCustomError

from headrace.api.counted import counted
from headrace.api.feasible_plans import Infeasible, infeasible
from headrace.api.manifest_model import Model
from headrace.api.manifest_part import broken
from headrace.api.models import PRESETS, ModelShape, resized
from headrace.api.plan import ExecutionPlan

_HEAD_WIDTH = 64


class Unfit(Protocol):
    """Tells why a plan cannot run what is trained; None if it can."""

    def __call__(self, plan: ExecutionPlan, *, global_batch_size: int) -> Infeasible | None: ...


def breaches_of_plans(
    plans: tuple[str, ...],
    unfit: Unfit,
    *,
    fewest: int,
    most: int,
    global_batch_size: int,
    micro_batch_size_max: int,
) -> Iterator[PydanticCustomError]:
    """The first thing that is wrong with each plan.

    Args:
        plans: In short form.
        unfit: Why one cannot run what is trained.
        fewest: Accelerators that the job takes at least.
        most: Accelerators that it takes at most.
        global_batch_size: Samples of a step.
        micro_batch_size_max: Most samples that a rank may hold at once; 0 for no limit.
    """
    for index, text in enumerate(plans):
        plan = ExecutionPlan.parse(text)
        first = plans.index(text)
        sentence = ""
        if first < index:
            sentence = f"wanted every plan once, got {text} as plans[{first}] too"
        elif not fewest <= plan.ranks <= most:
            size = str(fewest) if fewest == most else f"{fewest} to {most}"
            sentence = f"{text} takes {counted(plan.ranks, 'accelerator')}, the job {size}"
        else:
            sentence = _told(plan, unfit(plan, global_batch_size=global_batch_size)) or _too_large(
                plan, global_batch_size, micro_batch_size_max
            )
        if sentence:
            yield broken(f"plans.{index}", sentence)


def fitting(model: Model, sequence_length: int) -> Unfit:
    """Why a plan cannot run a built-in model.

    Args:
        model: The model.
        sequence_length: Tokens of a sample; 0 leaves it to the model.
    """
    shape = model.shape(sequence_length)

    def unfit(plan: ExecutionPlan, *, global_batch_size: int) -> Infeasible | None:
        return infeasible(
            shape or _divided_by(plan, model.name), plan, global_batch_size=global_batch_size
        )

    return unfit


def _told(plan: ExecutionPlan, problem: Infeasible | None) -> str:
    if problem is None:
        return ""
    text = str(plan)
    return problem.message if text in problem.message else f"{text}: {problem.message}"


def _divided_by(plan: ExecutionPlan, name: str) -> ModelShape:
    """A model of the family that the plan divides: what is wrong with the plan then is wrong
    whatever the sizes, which are in the weights' folder.
    """
    heads = plan.tensor_parallel
    return resized(
        PRESETS[f"{name}-tiny"],
        layers=plan.stages,
        heads=heads,
        key_value_heads=heads,
        hidden=_HEAD_WIDTH * heads,
        intermediate=_HEAD_WIDTH * heads,
    )


def _too_large(plan: ExecutionPlan, batch: int, most: int) -> str:
    size = batch // (plan.data_parallel * plan.accumulation_steps)
    if not most or size <= most:
        return ""
    return f"{plan} means micro-batches of {counted(size, 'sample')}, microBatchSizeMax is {most}"
