"""Which plans can train a model, and why another one cannot.

What is combined is what this release's trainer runs; see ``docs/plans.md``.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from headrace.api.counted import counted
from headrace.api.memory import FP32, GIB, PeakMemory, estimated_peak_bytes
from headrace.api.models import SPLITTABLE, ModelShape
from headrace.api.plan import ExecutionPlan, PipelineSchedule

_FEWEST_OF_GPIPE = 2
"""A single micro-batch is no pipeline."""

_EXTRAS = ((False, True), range(4), (False, True))
"""Offload, ZeRO stage and activation checkpointing."""

_TOLD = 2
"""So many lighter plans are named."""


class InfeasibleReason(StrEnum):
    """Why a plan cannot train a model. Closed: tables and tests count by these."""

    DOES_NOT_DIVIDE = "DoesNotDivide"
    DOES_NOT_FIT = "DoesNotFit"
    TENSOR_PARALLEL_ACROSS_NODES = "TensorParallelAcrossNodes"
    NOT_SUPPORTED_BY_FAMILY = "NotSupportedByFamily"
    NOT_COMBINED = "NotCombined"


@dataclass(frozen=True, slots=True)
class Hardware:
    """Where a plan would run.

    Attributes:
        accelerator_bytes: Memory of one accelerator that the job may use.
        host_bytes: Memory of one node that the job may use; None for enough.
        placement: Accelerators of each node, in the order of ranks; empty for all on one node.
    """

    accelerator_bytes: int
    host_bytes: int | None = None
    placement: tuple[int, ...] = ()

    def nodes_of(self, ranks: int) -> list[int]:
        """The node of each rank.

        Raises:
            ValueError: The placement is one of another number of accelerators.
        """
        placement = self.placement or (ranks,)
        if sum(placement) != ranks or min(placement) < 1:
            counts = " + ".join(map(str, placement))
            raise ValueError(f"placement: wanted {ranks} accelerators in all, got {counts}")
        return [node for node, count in enumerate(placement) for _ in range(count)]


@dataclass(frozen=True, slots=True)
class Infeasible:
    """Why not.

    Attributes:
        reason: Of the closed set.
        message: What was wanted, what came, what would help.
        missing_bytes: By how much it does not fit, if that is why.
    """

    reason: InfeasibleReason
    message: str
    missing_bytes: int = 0


def infeasible(
    shape: ModelShape,
    plan: ExecutionPlan,
    *,
    global_batch_size: int,
    sequence_length: int = 0,
    precision: str = FP32,
    hardware: Hardware | None = None,
) -> Infeasible | None:
    """Why the plan cannot train the model; None if it can.

    Args:
        shape: The model.
        plan: The plan.
        global_batch_size: Samples of a step.
        sequence_length: Positions of a sample; 0 for the model's own.
        precision: ``fp32`` or ``bf16``.
        hardware: Where it would run; without it, memory and nodes are not asked about.
    """
    for found in _form_problems(shape, plan, global_batch_size):
        return found
    if hardware is None:
        return None
    across = _across_nodes(plan, hardware)
    if across is not None:
        return across

    def estimated(other: ExecutionPlan) -> PeakMemory:
        return estimated_peak_bytes(
            shape, other, global_batch_size, sequence_length=sequence_length, precision=precision
        )

    needed = estimated(plan)
    missing = needed.accelerator_bytes - hardware.accelerator_bytes
    if missing > 0:
        lighter = [
            other
            for other in _lighter(plan)
            if next(_form_problems(shape, other, global_batch_size), None) is None
        ]
        return _no_room(needed, missing, hardware, {other: estimated(other) for other in lighter})
    return _no_host_room(needed, plan, hardware)


def feasible_plans(
    shape: ModelShape,
    accelerators: int,
    global_batch_size: int,
    hardware: Hardware | None = None,
    *,
    sequence_length: int = 0,
    precision: str = FP32,
) -> tuple[ExecutionPlan, ...]:
    """All plans that can train the model on exactly so many accelerators, in a fixed order.

    For arguments see `infeasible`; for those that cannot, and why, `judged_plans`.
    """
    if hardware is None:
        forms = feasible_forms(shape, accelerators, global_batch_size)
        return tuple(ExecutionPlan(*form) for form in forms)
    judged = judged_plans(
        shape,
        accelerators,
        global_batch_size,
        hardware,
        sequence_length=sequence_length,
        precision=precision,
    )
    return tuple(plan for plan, problem in judged if problem is None)


class PlanForm(NamedTuple):
    """What an `ExecutionPlan` says, in the order of its fields, before one is made: of many forms
    few are wanted, and a plan costs ten times as much.
    """

    data_parallel: int
    accumulation_steps: int
    tensor_parallel: int
    pipeline_parallel: int
    schedule: PipelineSchedule | None
    zero_stage: int
    activation_checkpointing: bool
    offload: bool


def feasible_forms(
    shape: ModelShape, accelerators: int, global_batch_size: int
) -> Iterator[PlanForm]:
    """What the plans say that can train the model wherever there is room for them, in the order of
    `judged_plans` and by the same rules: each is asked once for all plans to which it is the same.

    Args:
        shape: The model.
        accelerators: Accelerators that each plan occupies.
        global_batch_size: Samples of a step.
    """
    _wants_some(accelerators, global_batch_size)
    for pipeline, tensor in _splits(accelerators):
        data = accelerators // (pipeline * tensor)
        if global_batch_size % data:
            continue
        steps = _accumulations(global_batch_size, data, pipeline)
        for schedule in tuple(PipelineSchedule) if pipeline > 1 else (None,):
            if not _can_split(shape, tensor, pipeline, schedule):
                continue
            able = [each for each in steps if _can_accumulate(each, pipeline, schedule)]
            ways = _combined(schedule, tensor > 1, data > 1, shape.tied) if able else ()
            for offload, zero, checkpointing in ways:
                for each in able:
                    yield PlanForm(
                        data, each, tensor, pipeline, schedule, zero, checkpointing, offload
                    )


@lru_cache(maxsize=4096)
def _can_split(
    shape: ModelShape, tensor: int, pipeline: int, schedule: PipelineSchedule | None
) -> bool:
    plan = ExecutionPlan(tensor_parallel=tensor, pipeline_parallel=pipeline, schedule=schedule)
    is_split = plan.ranks > plan.data_parallel
    if is_split and shape.family not in SPLITTABLE:
        return False
    return next(_split_problems(shape, plan), None) is None


@lru_cache(maxsize=4096)
def _can_accumulate(steps: int, pipeline: int, schedule: PipelineSchedule | None) -> bool:
    """By the schedule alone: as many samples as there are micro-batches divide."""
    plan = ExecutionPlan(accumulation_steps=steps, pipeline_parallel=pipeline, schedule=schedule)
    return next(_batch_problems(plan, steps), None) is None


@lru_cache(maxsize=64)
def _combined(
    schedule: PipelineSchedule | None, has_tensor: bool, has_replicas: bool, is_tied: bool
) -> tuple[tuple[bool, int, bool], ...]:
    """Offload, ZeRO stage and checkpointing that go together with such a layout."""
    layout = ExecutionPlan(
        data_parallel=1 + has_replicas,
        tensor_parallel=1 + has_tensor,
        pipeline_parallel=1 if schedule is None else 2,
        schedule=schedule,
    )
    found = []
    for offload, zero, checkpointing in itertools.product(*_EXTRAS):
        plan = replace(
            layout, offload=offload, zero_stage=zero, activation_checkpointing=checkpointing
        )
        if next(_not_combined(plan, is_tied=is_tied), None) is None:
            found.append((offload, zero, checkpointing))
    return tuple(found)


def judged_plans(
    shape: ModelShape,
    accelerators: int,
    global_batch_size: int,
    hardware: Hardware | None = None,
    *,
    sequence_length: int = 0,
    precision: str = FP32,
) -> Iterator[tuple[ExecutionPlan, Infeasible | None]]:
    """Every plan for exactly so many accelerators, with the reason if it cannot train the model.

    Data parallelism comes first, then what splits the model; within a layout the less that is
    shared, computed again or moved, the earlier. For arguments see `infeasible`.
    """
    for plan in _candidates(accelerators, global_batch_size):
        yield (
            plan,
            infeasible(
                shape,
                plan,
                global_batch_size=global_batch_size,
                sequence_length=sequence_length,
                precision=precision,
                hardware=hardware,
            ),
        )


def _candidates(accelerators: int, global_batch_size: int) -> Iterator[ExecutionPlan]:
    _wants_some(accelerators, global_batch_size)
    for pipeline, tensor in _splits(accelerators):
        data = accelerators // (pipeline * tensor)
        schedules = tuple(PipelineSchedule) if pipeline > 1 else (None,)
        dimensions = itertools.product(
            schedules,
            *_EXTRAS,
            _accumulations(global_batch_size, data, pipeline),
        )
        for schedule, offload, zero, checkpointing, steps in dimensions:
            yield ExecutionPlan(
                data_parallel=data,
                accumulation_steps=steps,
                tensor_parallel=tensor,
                pipeline_parallel=pipeline,
                schedule=schedule,
                zero_stage=zero,
                activation_checkpointing=checkpointing,
                offload=offload,
            )


def _wants_some(accelerators: int, global_batch_size: int) -> None:
    if accelerators < 1 or global_batch_size < 1:
        raise ValueError(
            "wanted at least one accelerator and a global batch of at least one sample, got "
            f"{accelerators} and {global_batch_size}"
        )


def _splits(accelerators: int) -> Iterator[tuple[int, int]]:
    """Pipeline and tensor sizes that divide so many accelerators."""
    sizes = [size for size in range(1, accelerators + 1) if accelerators % size == 0]
    for pipeline in sizes:
        for tensor in sizes:
            if accelerators % (pipeline * tensor) == 0:
                yield pipeline, tensor


def _accumulations(global_batch_size: int, data: int, pipeline: int) -> list[int]:
    """Numbers of micro-batches worth a look: doubling from one and from the pipeline's length.

    Between them, micro-batches change by less than half. One sample each is always among them:
    it needs the least memory. If replicas do not divide the batch, one stands for all numbers.
    """
    if global_batch_size % data:
        return [1]
    share = global_batch_size // data
    found = {share}
    for steps in (1, pipeline):
        while steps <= share:
            if share % steps == 0:
                found.add(steps)
            steps *= 2
    return sorted(found)


def infeasible_own_code(plan: ExecutionPlan, *, global_batch_size: int) -> Infeasible | None:
    """Why the plan cannot train a model that only its author knows; None if it can.

    Args:
        plan: The plan.
        global_batch_size: Samples of a step.
    """
    if plan.pipeline_parallel > 1:
        return Infeasible(
            InfeasibleReason.NOT_SUPPORTED_BY_FAMILY,
            f"wanted data or tensor parallelism, ZeRO or offload for training code of your own, "
            f"got {plan}: its step runs the whole model, so no rank can hold one stage only; take "
            f"dp{plan.ranks}-z3, which shares its memory too",
        )
    for message in _not_combined(plan, is_tied=False):
        return Infeasible(InfeasibleReason.NOT_COMBINED, message)
    for message in _batch_problems(plan, global_batch_size):
        return Infeasible(InfeasibleReason.DOES_NOT_DIVIDE, message)
    return None


def _form_problems(shape: ModelShape, plan: ExecutionPlan, batch: int) -> Iterator[Infeasible]:
    """What is wrong wherever it would run."""
    if plan.ranks > plan.data_parallel and shape.family not in SPLITTABLE:
        yield Infeasible(
            InfeasibleReason.NOT_SUPPORTED_BY_FAMILY,
            f"wanted data parallelism, ZeRO or offload for {shape.family}, got {plan}: only "
            f"{' and '.join(sorted(SPLITTABLE))} are split by tensors or stages",
        )
    for message in _not_combined(plan, is_tied=shape.tied):
        yield Infeasible(InfeasibleReason.NOT_COMBINED, message)
    for message in (*_batch_problems(plan, batch), *_split_problems(shape, plan)):
        yield Infeasible(InfeasibleReason.DOES_NOT_DIVIDE, message)


def _not_combined(plan: ExecutionPlan, *, is_tied: bool) -> Iterator[str]:
    zero, data = plan.zero_stage, plan.data_parallel
    is_split = plan.ranks > data
    if zero == 1 and (is_split or plan.offload):
        other = "offload" if plan.offload else "tensor or pipeline parallelism"
        yield f"wanted ZeRO-1 with replicas only, got {plan}; with {other} take z2 or z3"
    if plan.offload and zero < 2:
        yield f"wanted ZeRO-2 or 3 with offload, got {plan}; take z2 or z3, on one rank too"
    if plan.offload and is_split:
        yield (
            f"wanted offload with replicas only, got {plan}; leave out offload, or tensor and "
            "pipeline parallelism"
        )
    if zero and data == 1 and not plan.offload:
        alone = replace(plan, zero_stage=0)
        shares = replace(plan, zero_stage=max(zero, 2), offload=True)
        yield (
            f"wanted two replicas or more, among which ZeRO shares, got {plan}; take {alone}"
            + ("" if is_split else f", or {shares}, which needs no other replica")
        )
    if plan.schedule is PipelineSchedule.ZERO_BUBBLE:
        if zero == 3:
            yield f"wanted the zb schedule without ZeRO-3, got {plan}; take z2 or another schedule"
        if plan.activation_checkpointing:
            yield (
                f"wanted the zb schedule without activation checkpointing, got {plan}; leave out "
                "gc or take another schedule"
            )
        if is_tied and data > 1:
            # Both ends are on one rank, and FSDP2 does not shard one table for two of its roots.
            yield (
                f"wanted one replica for the zb schedule of a model whose head is its table of "
                f"tokens, got {plan}; take another schedule"
            )


def _batch_problems(plan: ExecutionPlan, batch: int) -> Iterator[str]:
    steps, pipeline = plan.accumulation_steps, plan.pipeline_parallel
    parts = plan.data_parallel * steps
    if batch < 1 or batch % parts:
        below = max(0, batch - batch % parts)
        sizes = f"{below} or {below + parts}" if below else str(parts)
        replicas = counted(plan.data_parallel, "replica")
        yield (
            f"wanted a global batch that {parts} divides ({replicas} times "
            f"{counted(steps, 'micro-batch', 'es')}), got {batch} samples; {sizes} would do"
        )
    match plan.schedule:
        case PipelineSchedule.GPIPE:
            wanted, enough = f"{_FEWEST_OF_GPIPE} micro-batches or more", steps >= _FEWEST_OF_GPIPE
        case PipelineSchedule.ONE_F_ONE_B:
            wanted, enough = f"{pipeline} micro-batches or more", steps >= pipeline
        case PipelineSchedule.INTERLEAVED | PipelineSchedule.ZERO_BUBBLE:
            wanted, enough = f"a multiple of {pipeline} micro-batches", steps % pipeline == 0
        case None:
            return
    if not enough:
        yield (
            f"wanted {wanted} for the {plan.schedule} schedule of {pipeline} ranks, got {steps}; "
            f"take for example ga{pipeline}"
        )


def _split_problems(shape: ModelShape, plan: ExecutionPlan) -> Iterator[str]:
    tensor = plan.tensor_parallel
    for name, size in (
        ("heads", shape.heads),
        ("heads of keys and values", shape.shared_heads),
        ("the perceptron's width", shape.intermediate),
    ):
        if size % tensor:
            fitting = [str(ranks) for ranks in range(1, tensor) if size % ranks == 0]
            yield (
                f"wanted {name} that {tensor} tensor-parallel ranks divide, got {size}; "
                f"{', '.join(fitting)} would"
            )
    if plan.stages > shape.layers:
        yield f"wanted a layer for each of the {plan.stages} stages, got {shape.layers} layers"


def _across_nodes(plan: ExecutionPlan, hardware: Hardware) -> Infeasible | None:
    """Whether tensor-parallel neighbours would be on two nodes."""
    nodes = hardware.nodes_of(plan.ranks)
    tensor = plan.tensor_parallel
    for first in range(0, plan.ranks, tensor):
        if len(set(nodes[first : first + tensor])) > 1:
            counts = " + ".join(map(str, hardware.placement))
            return Infeasible(
                InfeasibleReason.TENSOR_PARALLEL_ACROSS_NODES,
                f"wanted each {tensor} tensor-parallel ranks on one node, got {plan} on nodes "
                f"with {counts}; take a tensor parallelism that divides the accelerators of every "
                "node, or another placement",
            )
    return None


def _lighter(plan: ExecutionPlan) -> Iterator[ExecutionPlan]:
    """The same ranks with one thing changed that may save memory."""
    yield replace(plan, activation_checkpointing=True)
    yield replace(plan, accumulation_steps=2 * plan.accumulation_steps)
    if plan.schedule is not None:
        yield replace(plan, schedule=PipelineSchedule.ONE_F_ONE_B)
    if plan.data_parallel > 1:
        yield replace(plan, zero_stage=3)
    yield replace(plan, zero_stage=3, offload=True)


def _no_room(
    needed: PeakMemory,
    missing: int,
    hardware: Hardware,
    others: Mapping[ExecutionPlan, PeakMemory],
) -> Infeasible:
    """It does not fit; ``others`` are plans that may need less."""
    sizes = sorted((peak.accelerator_bytes, str(other)) for other, peak in others.items())
    less = [f"{other} {size / GIB:.1f}" for size, other in sizes if size < needed.accelerator_bytes]
    told = f"{' or '.join(less[:_TOLD])} GiB" if less else "more accelerators, or a smaller batch,"
    return Infeasible(
        InfeasibleReason.DOES_NOT_FIT,
        f"does not fit by {missing / GIB:.1f} GiB: wanted {needed.accelerator_bytes / GIB:.1f} GiB "
        f"of an accelerator ({needed}), got {hardware.accelerator_bytes / GIB:.1f} GiB; {told} "
        "would be less",
        missing,
    )


def _no_host_room(needed: PeakMemory, plan: ExecutionPlan, hardware: Hardware) -> Infeasible | None:
    if hardware.host_bytes is None:
        return None
    neighbours = max(hardware.placement, default=plan.ranks)
    missing = needed.host_bytes * neighbours - hardware.host_bytes
    if missing <= 0:
        return None
    less = "more nodes share it" if not plan.offload else "more replicas, or no offload, need less"
    return Infeasible(
        InfeasibleReason.DOES_NOT_FIT,
        f"does not fit by {missing / GIB:.1f} GiB of host memory: wanted "
        f"{needed.host_bytes / GIB:.1f} GiB for each of {neighbours} ranks on a node, got "
        f"{hardware.host_bytes / GIB:.1f} GiB; {less}",
        missing,
    )
