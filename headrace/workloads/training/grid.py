"""Where a rank stands in a plan, and which layers are its own. Pure; no torch."""

from dataclasses import dataclass

from headrace.api.plan import ExecutionPlan, PipelineSchedule

AXES = ("pipeline", "data", "one", "tensor")
"""Axes of the mesh of ranks. ``one`` has a single place: a plan that shards nothing over its
replicas shards over that axis instead."""


@dataclass(frozen=True, slots=True)
class Place:
    """A rank's coordinates in its plan.

    Attributes:
        pipeline: Which pipeline rank.
        replica: Which part of the batch.
        slice: Which part of the matrices.
    """

    pipeline: int
    replica: int
    slice: int


@dataclass(frozen=True, slots=True)
class Stage:
    """Neighbouring layers; ``last`` is not included."""

    index: int
    first: int
    last: int


def place_of(plan: ExecutionPlan, rank: int) -> Place:
    """The coordinates of a rank; see `ExecutionPlan` for the order."""
    rest, part = divmod(rank, plan.tensor_parallel)
    pipeline, replica = divmod(rest, plan.data_parallel)
    return Place(pipeline, replica, part)


def stages_of(plan: ExecutionPlan, layers: int, pipeline: int) -> tuple[Stage, ...]:
    """The stages of a pipeline rank, whose layers differ in number by at most one.

    Args:
        plan: The plan.
        layers: Layers of the whole model; at least as many as the plan has stages.
        pipeline: Which pipeline rank.
    """
    count = plan.stages
    if plan.schedule is PipelineSchedule.ZERO_BUBBLE:
        # V-shaped: whoever has the first stage has the last one too.
        mine = [pipeline, count - 1 - pipeline]
    else:
        mine = list(range(pipeline, count, plan.pipeline_parallel))
    return tuple(
        Stage(index, layers * index // count, layers * (index + 1) // count) for index in mine
    )


def grid_of(plan: ExecutionPlan) -> list[list[list[list[int]]]]:
    """The ranks of a plan, nested as `AXES` are."""
    data, tensor = plan.data_parallel, plan.tensor_parallel
    return [
        [
            [[(stage * data + replica) * tensor + part for part in range(tensor)]]
            for replica in range(data)
        ]
        for stage in range(plan.pipeline_parallel)
    ]
