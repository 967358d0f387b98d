"""A model of the user's own: replicas, ZeRO, offload, and divided where its author says so."""

import copy
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ParallelStyle, parallelize_module

from headrace.api.feasible_plans import infeasible_own_code
from headrace.api.plan import ExecutionPlan
from headrace.workloads.refusal import CANNOT_BE_TRAINED, RANK_FAILED, WorkloadError
from headrace.workloads.training.batches import Batch, described
from headrace.workloads.training.families.part import Part
from headrace.workloads.training.own import position, tensor_parallel
from headrace.workloads.training.own.blame import is_theirs, raised
from headrace.workloads.training.own.sharing import shared
from headrace.workloads.training.position import Position
from headrace.workloads.training.sharding import is_fully_sharded

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

Step: TypeAlias = Callable[[nn.Module, Batch], Tensor]
"""Model and batch -> the loss of each sample."""

_PREFIX = "model."
_CONTAINERS = (nn.ModuleList, nn.Sequential, nn.ModuleDict)


class OwnPart(Part):
    """The user's model together with what a step is.

    The step is the part's ``forward``, so that torch's wrappers see all of it.
    """

    always_autocast: ClassVar[bool] = True

    def __init__(
        self,
        model: nn.Module,
        step: Step,
        *,
        blocks: Sequence[str] = (),
        styles: Mapping[str, ParallelStyle] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.model = model
        self._step = step
        self._blocks = tuple(blocks)
        self._styles = dict(styles or {})
        self._seed = seed
        for block in self.units():
            block.forward = self.computed_again(block)

    def units(self) -> Iterator[nn.Module]:
        for name in self._blocks:
            yield self.model.get_submodule(name)

    def divide(self, mesh: "DeviceMesh") -> None:
        parallelize_module(self.model, mesh, self._styles)

    def begin_step(self, given: Position) -> None:
        """Be there, with chance that depends on the step and the replica alone: those that share
        the matrices must drop the same activations, however long each has been here.
        """
        position.take(given)
        # The generator looks at 32 bits of its seed, so these are hashed and not put together.
        seed = zlib.crc32(f"{self._seed}/{given.step}/{given.replica}".encode())
        torch.default_generator.manual_seed(seed)
        if given.data is not None and given.data.device_type == "cuda":
            torch.cuda.manual_seed(seed)

    def forward(self, given: Batch) -> Tensor:
        """The loss of each sample."""
        try:
            losses = self._step(self.model, given)
        except Exception as error:
            if not is_theirs(error):
                raise
            raise WorkloadError(
                RANK_FAILED,
                f"step: wanted the loss of each sample of a batch ({described(given)}), got "
                f"{raised(error)}",
            ) from error
        return losses.full_tensor() if isinstance(losses, DTensor) else losses

    def loss_sum(self, outputs: Tensor, targets: Batch) -> Tensor:
        return outputs.float().sum()


class OwnBlueprint:
    """The user's model, built again when its initial weights are needed: a job that resumes needs
    no second copy of them.

    Attributes:
        layers: One, because nobody can cut it into stages.
        tied: False; what is shared within the model is nobody else's business.
        styles: How tensor-parallel ranks divide it, by name of submodule; may be empty.
        fingerprint: Of the initial weights, which must be the same on every rank.
    """

    def __init__(
        self,
        whole: nn.Module,
        build: Callable[[], nn.Module],
        step: Step,
        blocks: Sequence[str] | None = None,
        styles: Mapping[str, ParallelStyle] | None = None,
        *,
        seed: int,
    ) -> None:
        """Take the shapes of a model.

        Args:
            whole: The model, of which nothing is kept.
            build: Gives another one, equal to it.
            step: What a step is.
            blocks: See `block_names`.
            styles: See `tensor_parallel.styles_of`.
            seed: The job's.
        """
        self.layers, self.tied = 1, False
        self.fingerprint = _fingerprint(whole)
        self._build, self._step = build, step
        self._blocks = block_names(whole, blocks)
        self.styles = tensor_parallel.styles_of(whole, styles)
        self._seed = seed
        self._shapes = _shapes_only(whole)
        self._values: dict[str, Tensor] = {}

    def part(self, first: int, last: int) -> OwnPart:
        return OwnPart(
            copy.deepcopy(self._shapes),
            self._step,
            blocks=self._blocks,
            styles=self.styles,
            seed=self._seed,
        )

    def initial(
        self, name: str, shape: tuple[int, ...], *, seed: int, device: torch.device
    ) -> Tensor:
        if not self._values:
            self._values = dict(self._build().named_parameters())
        # Each is asked for once, so that nothing stays in host memory.
        return self._values.pop(name.removeprefix(_PREFIX)).detach().to(device)

    def problem_with(self, plan: ExecutionPlan, global_batch_size: int) -> str:
        found = infeasible_own_code(plan, global_batch_size=global_batch_size)
        if found is not None:
            return found.message
        if is_fully_sharded(plan) and (name := _unshardable(self._shapes)):
            return (
                f"wanted parameters of one dimension or more, in one piece of memory, which FSDP2 "
                f"can shard, got {name}; make it so (torch.ones(1), .contiguous()), or take "
                f"dp{plan.ranks}"
            )
        ranks = plan.tensor_parallel
        if ranks == 1:
            return ""
        return tensor_parallel.cannot_divide(self._shapes, self.styles, ranks)


def built(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """The user's model with initial weights, which depend on the seed alone.

    Raises:
        WorkloadError: It cannot be built, or not be trained here.
    """
    if isinstance(build, nn.Module):
        name = type(build).__name__
        raise _refused(
            f"wanted a function that makes the model, got the model itself; write lambda: "
            f"{name}(...), for it is made anew under the job's seed"
        )
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        try:
            model = build()
        except Exception as error:
            raise _refused(f"it cannot be built: {raised(error)}") from error
    _check(model)
    return model


def ours(name: str) -> str:
    """The name in checkpoints of a parameter of the user's module."""
    return f"{_PREFIX}{name}"


def block_names(model: nn.Module, chosen: Sequence[str] | None) -> tuple[str, ...]:
    """The submodules that are sharded, and computed again, as one each.

    Args:
        model: The user's model.
        chosen: Names of submodules; a list of modules stands for its entries. If None, the entries
            of the list with most parameters are taken, unless they share some.

    Raises:
        WorkloadError: There is no such submodule, or two of them share a parameter.
    """
    known = dict(model.named_modules())
    unknown = [name for name in chosen or () if not name or name not in known]
    if unknown:
        outer = ", ".join(name for name, _ in model.named_children())
        raise WorkloadError(
            CANNOT_BE_TRAINED,
            f"blocks: wanted names of submodules ({outer} or what is in them), got {unknown[0]!r}",
        )
    lists = [name for name, module in known.items() if name and isinstance(module, _CONTAINERS)]
    largest = sorted(lists, key=lambda name: -_size(known[name]))[:1]
    names = tuple(
        name
        for outer in (largest if chosen is None else chosen)
        for name in _entries(outer, known[outer])
        if _size(known[name])
    )
    both = shared(model, names)
    if both and chosen is not None:
        raise WorkloadError(
            CANNOT_BE_TRAINED,
            f"blocks: wanted parameters that belong to one block each, got {both}; name blocks "
            "that share nothing with the rest",
        )
    return () if both else names


def _entries(name: str, module: nn.Module) -> list[str]:
    if not isinstance(module, _CONTAINERS):
        return [name]
    return [f"{name}.{entry}" for entry, _ in module.named_children()]


def _unshardable(model: nn.Module) -> str:
    """A parameter that FSDP2 does not take; empty for none."""
    found = (n for n, p in model.named_parameters() if not p.ndim or not p.is_contiguous())
    return next(found, "")


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _check(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise _refused(f"wanted a function that makes a torch.nn.Module, got {type(model)}")
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm):
            raise _refused(
                f"wanted samples that do not depend on each other, got {type(module).__name__} "
                f"({name}), whose averages depend on the plan; take GroupNorm or LayerNorm"
            )
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not trained:
        raise _refused("wanted parameters that require gradients, got none")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.device.type != "cpu":
            raise _refused(
                f"wanted it on the CPU, got {name} on {tensor.device}; Headrace places it"
            )
    for name, parameter in trained:
        if parameter.dtype != torch.float32:
            raise _refused(
                f"wanted weights in float32, got {name} in {parameter.dtype}; for bf16 set the "
                "training's precision, which computes in bf16 and keeps the weights"
            )


def _shapes_only(model: nn.Module) -> nn.Module:
    """A copy whose parameters have no memory; buffers are constants and stay."""
    shapes: dict[int, object] = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad)
        for p in model.parameters()
    }
    return copy.deepcopy(model, shapes)


def _fingerprint(model: nn.Module) -> str:
    """Of the first numbers of each parameter: which is where chance that nobody seeded shows."""
    found = 0
    for name, parameter in model.named_parameters():
        head = parameter.detach().reshape(-1)[:64].contiguous().view(torch.uint8)
        found = zlib.crc32(head.numpy().tobytes(), zlib.crc32(name.encode(), found))
    return f"{found:08x}"


def _refused(message: str) -> WorkloadError:
    return WorkloadError(CANNOT_BE_TRAINED, f"model: {message}")
