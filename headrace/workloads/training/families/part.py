"""What a trainer asks of a model, whatever its family."""

import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from headrace.workloads.training.position import Position

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

SPLIT_ROWS = "rows"
"""A linear layer whose outputs are divided among tensor-parallel ranks."""

SPLIT_COLUMNS = "columns"
"""A linear layer whose inputs are divided among tensor-parallel ranks."""

SHARED_INPUT = "shared"
"""A module in which several layers divided by rows read one input: ranks add up its gradient once.
"""


class Part(nn.Module):
    """A model, or the stage of one that a pipeline rank holds.

    Parameter names are a contract with every stored checkpoint: a part leaves out what is not its
    own, and calls the rest by the same names as the whole model does.

    Attributes:
        recompute: Whether blocks are computed again for the backward pass instead of kept.
    """

    splits: ClassVar[dict[str, str]] = {}
    """How tensor parallelism divides the layers of a block, by name below the block."""

    always_autocast: ClassVar[bool] = False
    """Whether each operation chooses its precision in bf16, even where FSDP2 has cast the weights.

    Ours are made for that and need no choice; what a user's model does is unknown.
    """

    recompute: bool = False

    def units(self) -> Iterator[nn.Module]:
        """The blocks: each is sharded, and computed again, as one."""
        raise NotImplementedError

    def divide(self, mesh: "DeviceMesh") -> None:
        """Divide the matrices, still without memory, over the tensor-parallel ranks."""
        raise NotImplementedError

    def begin_step(self, position: Position) -> None:
        """Hear of a step that is about to be computed. Ours compute the same wherever they are."""

    def loss_sum(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Sum over samples of a sample's mean loss.

        Args:
            outputs: What ``forward`` gave; logits.
            targets: Batch first, as the data gave them.
        """
        raise NotImplementedError

    def through(self, block: nn.Module, *given: Tensor) -> Tensor:
        """A block's output, its activations kept or not."""
        if self.recompute and self.training:
            kept: Tensor = checkpoint(block, *given, use_reentrant=False)
            return kept
        out: Tensor = block(*given)
        return out

    def computed_again(self, block: nn.Module) -> Callable[..., Any]:
        """A ``forward`` for a block that others call, with activations kept or not. Its hooks run
        once either way.
        """
        # In a cycle of references, a part that is dropped would keep its memory for a while.
        own_part, own_block, forward = weakref.ref(self), weakref.ref(block), type(block).forward

        def run(*given: Any, **named: Any) -> Any:
            part, block = own_part(), own_block()
            assert part is not None
            if part.recompute and part.training and torch.is_grad_enabled():
                return checkpoint(forward, block, *given, use_reentrant=False, **named)
            return forward(block, *given, **named)

        return run
