"""A part laid over the ranks of a plan by torch's own means: DTensor and FSDP2."""

import contextlib
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own habit
from torch import Tensor, nn
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    RowwiseParallel,
    loss_parallel,
    parallelize_module,
)

from headrace.api.plan import ExecutionPlan
from headrace.workloads.training.families.part import SPLIT_COLUMNS, SPLIT_ROWS, Part
from headrace.workloads.training.world import along

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from headrace.workloads.training.families.language import LanguagePart


def local(tensor: Tensor) -> Tensor:
    """This rank's piece of a tensor, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def local_gradient(parameter: nn.Parameter) -> Tensor | None:
    """This rank's piece of a parameter's gradient; None if nothing depended on it."""
    gradient = parameter.grad
    if (
        isinstance(gradient, DTensor)
        and isinstance(parameter, DTensor)
        and gradient.placements != parameter.placements
    ):
        # That of a table which is only looked up comes divided in another way. By way of the
        # whole, because gloo does not know how to exchange parts.
        whole = gradient.redistribute(placements=[Replicate()] * gradient.device_mesh.ndim)
        gradient = whole.redistribute(placements=parameter.placements)
        parameter.grad = gradient
    return None if gradient is None else local(gradient)


def is_fully_sharded(plan: ExecutionPlan) -> bool:
    """Whether FSDP2 runs the plan: everything but one rank, plain replicas and ZeRO-1."""
    combined = plan.data_parallel > 1 and plan.ranks > plan.data_parallel
    return plan.zero_stage >= 2 or plan.offload or combined


def shards_of(plan: ExecutionPlan) -> int:
    """Ranks over which each parameter is divided, tensor parallelism aside."""
    return plan.data_parallel if plan.zero_stage >= 2 else 1


def cut_of(parameter: Tensor) -> int | None:
    """The dimension in which a parameter is divided that FSDP2 has not seen yet; None for none."""
    if not isinstance(parameter, DTensor):
        return None
    (placement,) = parameter.placements
    return placement.dim if isinstance(placement, Shard) else None


def split_tensors(part: "LanguagePart", mesh: "DeviceMesh") -> None:
    """Divide the matrices of a part, still without memory, over the tensor-parallel ranks.

    Logits stay divided by vocabulary until the loss, which `loss_in_parts` must surround.
    """
    ways = {layer: _way(way) for layer, way in part.splits.items()}
    for block in part.units():
        parallelize_module(block, mesh, ways)
    if part.tokens is not None:
        if part.begins:
            parallelize_module(part, mesh, {"tokens": RowwiseParallel(input_layouts=Replicate())})
        elif not isinstance(part.tokens.weight, DTensor):
            _divide_table(part.tokens, mesh)
        part.unembed = _Unembedding(mesh)
    if part.head is not None:
        parallelize_module(part, mesh, {"head": ColwiseParallel(output_layouts=Shard(-1))})
    part.cross_entropy = _CrossEntropy(mesh, part.vocabulary)


def _way(way: str) -> ParallelStyle:
    if way == SPLIT_ROWS:
        return ColwiseParallel()
    if way == SPLIT_COLUMNS:
        return RowwiseParallel()
    whole = Replicate()
    return PrepareModuleInput(input_layouts=whole, desired_input_layouts=whole)


def loss_in_parts(plan: ExecutionPlan) -> contextlib.AbstractContextManager[None]:
    """What forward and backward must happen in where logits are divided by vocabulary."""
    divided: contextlib.AbstractContextManager[None] = loss_parallel()
    return divided if plan.tensor_parallel > 1 else contextlib.nullcontext()


def _divide_table(table: nn.Embedding, mesh: "DeviceMesh") -> None:
    """The copy of a tied table that a last stage has is no input layer: only its weight is cut."""
    weight = table.weight
    low = -(-weight.shape[0] // mesh.size())
    start = min(low * mesh.get_local_rank(), weight.shape[0])
    end = min(start + low, weight.shape[0])
    piece = weight.detach()[start:end]
    divided = DTensor.from_local(
        piece, mesh, [Shard(0)], run_check=False, shape=weight.shape, stride=weight.stride()
    )
    table.weight = nn.Parameter(divided)


class _Unembedding:
    """Multiplies by a tied table whose rows are divided over ranks; so are the logits."""

    def __init__(self, mesh: "DeviceMesh") -> None:
        self._mesh = mesh

    def __call__(self, x: Tensor, table: Tensor) -> Tensor:
        everywhere = DTensor.from_local(x, self._mesh, [Replicate()], run_check=False)
        return local(F.linear(everywhere, table))


class _CrossEntropy:
    """The loss of logits of which each rank has those of its part of the vocabulary."""

    def __init__(self, mesh: "DeviceMesh", vocabulary: int) -> None:
        self._mesh = mesh
        self._vocabulary = vocabulary

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        divided = DTensor.from_local(
            logits,
            self._mesh,
            [Shard(1)],
            run_check=False,
            shape=torch.Size((logits.shape[0], self._vocabulary)),
            stride=(self._vocabulary, 1),
        )
        return local(F.cross_entropy(divided, targets, reduction="sum"))


def shard_fully(
    part: Part, mesh: "DeviceMesh", plan: ExecutionPlan, *, precision: str, on_gpu: bool
) -> None:
    """Have FSDP2 shard and gather a part, still without memory, block by block."""
    axes = ("data",) if plan.zero_stage >= 2 or plan.offload else ("data", "one")
    sharding = along(mesh, *axes)
    mixed = (
        MixedPrecisionPolicy(
            param_dtype=torch.bfloat16,
            reduce_dtype=torch.float32,
            cast_forward_inputs=not part.always_autocast,
        )
        if precision == "bf16"
        else MixedPrecisionPolicy()
    )
    # Pinned memory is what makes copies to a GPU fast; without one there is nothing to pin for.
    offload = CPUOffloadPolicy(pin_memory=on_gpu) if plan.offload else OffloadPolicy()
    for module in (*part.units(), part):
        # What is outside of the blocks is needed again at once when the backward pass begins.
        gathers_twice = plan.zero_stage == 3 and module is not part
        fully_shard(
            module,
            mesh=sharding,
            mp_policy=mixed,
            offload_policy=offload,
            reshard_after_forward=gathers_twice,
        )


def settle(part: Part) -> None:
    """Have FSDP2 take the parameters as they lie now, which may pad or pin them anew."""
    for module in part.modules():
        if isinstance(module, FSDPModule):
            module.unshard()
            module.reshard()


def materialise(part: Part, device: torch.device, computing: torch.device) -> None:
    """Give memory to every parameter; what is shared stays shared.

    Args:
        part: What is only shapes yet.
        device: Where parameters live.
        computing: Where they are used, and where constants (buffers) go.
    """
    owners: dict[int, list[tuple[nn.Module, str]]] = {}
    found: dict[int, nn.Parameter] = {}
    for module in part.modules():
        for name, constant in module.named_buffers(recurse=False):
            setattr(module, name, constant.to(computing))
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            owners.setdefault(id(parameter), []).append((module, name))
            found[id(parameter)] = parameter
    for key, parameter in found.items():
        placed = nn.Parameter(
            torch.empty_like(parameter.detach(), device=device), parameter.requires_grad
        )
        for module, name in owners[key]:
            setattr(module, name, placed)


def named(parts: Iterator[Part] | list[Part]) -> dict[str, nn.Parameter]:
    """The parameters of a rank by their names in the whole model."""
    return dict(chain.from_iterable(part.named_parameters() for part in parts))
