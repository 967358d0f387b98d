"""Why a plan cannot train a model."""

from dataclasses import dataclass

from headrace.api.models import ModelShape
from headrace.api.plan import ExecutionPlan


@dataclass(frozen=True, slots=True)
class Infeasible:
    """Why not.

    Attributes:
        message: What was wanted, what came, what would help.
    """

    message: str


def infeasible(
    shape: ModelShape, plan: ExecutionPlan, *, global_batch_size: int
) -> Infeasible | None:
    """Why the plan cannot train the model; None if it can."""
    parts = plan.data_parallel * plan.accumulation_steps
    if global_batch_size % parts:
        return Infeasible(
            f"wanted a globalBatchSize that {parts} micro-batches divide, got {global_batch_size}"
        )
    if plan.stages > shape.layers:
        return Infeasible(f"wanted a layer for each of {plan.stages} stages, got {shape.layers}")
    return None
