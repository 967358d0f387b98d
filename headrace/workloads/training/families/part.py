"""What a trainer asks of a model, whatever its family."""

from collections.abc import Iterator
from typing import ClassVar

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

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

    recompute: bool = False

    def units(self) -> Iterator[nn.Module]:
        """The blocks: each is sharded, and computed again, as one."""
        raise NotImplementedError

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
