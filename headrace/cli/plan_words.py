"""Execution plans told to people who do not know the short form yet."""

from collections.abc import Iterator

from headrace.api.plan import ExecutionPlan


def in_words(plan: ExecutionPlan) -> str:
    """E.g. ``a pipeline of 2 ranks (1f1b), 4 micro-batches`` for ``pp2.1f1b-ga4``."""
    return ", ".join(_parts(plan))


def _parts(plan: ExecutionPlan) -> Iterator[str]:
    if plan.data_parallel > 1:
        yield f"data parallel over {plan.data_parallel}"
    if plan.tensor_parallel > 1:
        yield f"tensor parallel over {plan.tensor_parallel}"
    if plan.pipeline_parallel > 1:
        yield f"a pipeline of {plan.pipeline_parallel} ranks ({plan.schedule})"
    if plan.ranks == 1:
        yield "a single rank"
    if plan.zero_stage:
        yield f"ZeRO-{plan.zero_stage}"
    if plan.accumulation_steps > 1:
        yield f"{plan.accumulation_steps} micro-batches"
    if plan.activation_checkpointing:
        yield "activations computed twice"
    if plan.offload:
        yield "offloaded to host memory"


def kind(plan: ExecutionPlan) -> frozenset[str]:
    """How the work is divided, whatever the numbers: plans of one kind differ in size only."""
    dimensions = {
        "data": plan.data_parallel > 1,
        "tensor": plan.tensor_parallel > 1,
        "pipeline": plan.pipeline_parallel > 1,
        "zero": plan.zero_stage > 0,
        "offload": plan.offload,
    }
    return frozenset(name for name, used in dimensions.items() if used)


def explained(short: str) -> str:
    """A plan's short form with its words behind it; as it is if this release does not know it."""
    try:
        return f"{short} ({in_words(ExecutionPlan.parse(short))})"
    except ValueError:
        return short
