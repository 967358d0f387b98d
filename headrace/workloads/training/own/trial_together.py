"""A step on two samples, on the CPU, by ranks that share the model as its author says.

What stands between two divided layers sees a part of a tensor and computes something: a mean over
half of the columns, heads of half the width. Every rank then agrees with its neighbours and trains
another model. So losses and gradients are compared with those of the whole, before training.
"""

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.distributed.tensor.parallel import ParallelStyle, loss_parallel

from headrace.api.plan import ExecutionPlan
from headrace.workloads.refusal import CANNOT_BE_TRAINED, WorkloadError
from headrace.workloads.training.batches import Batch
from headrace.workloads.training.grid import place_of
from headrace.workloads.training.own.data_set import OwnSamples
from headrace.workloads.training.own.model import OwnPart, Step
from headrace.workloads.training.own.position import ALONE, trying
from headrace.workloads.training.own.tensor_parallel import cannot_divide
from headrace.workloads.training.position import Position
from headrace.workloads.training.sharding import local, local_gradient
from headrace.workloads.training.world import World, along

_TOLERANCE = 1e-3
"""How far numbers may be from those of the whole, as a part of the largest."""

_SMALL = 1e-2
"""Gradients smaller than this part of the model's largest may be rounding and nothing else."""


def tried_together(
    build: Callable[[], nn.Module],
    step: Step,
    samples: OwnSamples,
    styles: Mapping[str, ParallelStyle],
    world: World,
) -> None:
    """See that the divided model is the whole model, on each number of ranks that can share it.

    All ranks of the world call it.

    Args:
        build: Makes the model with its initial weights, the same ones on every rank.
        step: What a step is.
        samples: The data.
        styles: See `tensor_parallel.styles_of`.
        world: The ranks.

    Raises:
        WorkloadError: It is another one.
    """
    if not styles or world.size == 1:
        return
    whole = build()
    batch = samples.of([0, 1][: samples.count])
    with torch.random.fork_rng(devices=[]):
        losses = _learned(OwnPart(whole, step), batch, ALONE)
        for ranks in range(2, world.size + 1):
            if world.size % ranks or cannot_divide(whole, styles, ranks):
                continue
            part = OwnPart(copy.deepcopy(whole), step, styles=styles)
            part.zero_grad()
            where = _laid_out(
                part, ExecutionPlan(world.size // ranks, tensor_parallel=ranks), world
            )
            found = world.gathered(_problem(part, batch, where, losses, whole))
            told = next(filter(None, found), "")
            if told:
                raise WorkloadError(
                    CANNOT_BE_TRAINED,
                    f"tensor_parallel: {told}; tried on the CPU by {ranks} ranks before training",
                )


def _learned(part: OwnPart, batch: Batch, where: Position) -> Tensor:
    """Losses without dropout, with the gradients of their sum."""
    part.eval()
    with trying(where):
        losses = part(batch)
        losses.sum().backward()
    found: Tensor = losses.detach()
    return found


def _laid_out(part: OwnPart, plan: ExecutionPlan, world: World) -> Position:
    """Keep this rank's pieces, and say which they are."""
    mesh = world.mesh(plan, "cpu")
    assert mesh is not None
    place = place_of(plan, world.rank)
    shared = along(mesh, "tensor")
    part.divide(shared)
    return Position(
        plan, along(mesh, "data"), shared, world.rank, place.replica, place.slice, step=1
    )


def _problem(part: OwnPart, batch: Batch, where: Position, wanted: Tensor, whole: nn.Module) -> str:
    """What is wrong with this rank's part; empty if nothing is."""
    try:
        with loss_parallel():
            got = _learned(part, batch, where)
    except WorkloadError as error:
        return error.message
    gradients = _gradients(part.model)  # of all ranks, before one finds that something is wrong
    if not torch.allclose(got, wanted, rtol=_TOLERANCE, atol=_TOLERANCE):
        return (
            f"wanted the losses of the whole model, {wanted.tolist()}, got {got.tolist()}; "
            "something between two divided layers takes a part of a tensor for the whole"
        )
    name = _other_gradient(gradients, whole)
    if name:
        return (
            f"wanted the gradients of the whole model, got another one for {name}; a parameter "
            "that is used between two divided layers needs a style of its own, such as "
            "SequenceParallel(use_local_output=True) for a normalisation"
        )
    return ""


def _gradients(model: nn.Module) -> dict[str, tuple[nn.Parameter, Tensor | None]]:
    """Each parameter with this rank's piece of its gradient."""
    return {name: (p, local_gradient(p)) for name, p in model.named_parameters()}


def _other_gradient(
    found: Mapping[str, tuple[nn.Parameter, Tensor | None]], whole: nn.Module
) -> str:
    """A parameter whose gradient is not that of the whole model; empty for none."""
    right = {name: p.grad for name, p in whole.named_parameters() if p.grad is not None}
    largest = max(float(gradient.abs().max()) for gradient in right.values())
    for name, gradient in right.items():
        parameter, got = found[name]
        wanted = gradient
        if isinstance(parameter, DTensor):
            mesh, placements = parameter.device_mesh, parameter.placements
            wanted = local(distribute_tensor(gradient, mesh, placements, src_data_rank=None))
        if not wanted.numel():
            continue
        allowed = _TOLERANCE * max(float(wanted.abs().max()), _SMALL * largest)
        if got is None or float((got - wanted).abs().max()) > allowed:
            return name
    return ""
