"""What GPT-2 and LLaMA share: tokens in, blocks, logits of the next token out."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch.nn.functional as F  # noqa: N812 - torch's own habit
from torch import Tensor, nn

from headrace.api.models import ModelShape
from headrace.workloads.training.families.layers import Embedding, Linear
from headrace.workloads.training.families.part import Part
from headrace.workloads.training.sharding import split_tensors

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def cross_entropy_sum(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum over tokens of the loss."""
    return F.cross_entropy(logits, targets, reduction="sum")


class LanguagePart(Part):
    """The layers ``first`` to ``last`` (not included) of a causal language model.

    The first part has the table of tokens, the last one the output head. A tied head is the table
    itself: in a pipeline the last part has a copy of it, by the same name.

    Attributes:
        begins: Whether it has the first layer.
        ends: Whether it has the last layer, and so the head.
        vocabulary: Tokens that are told apart.
        unembed: Multiplies by a tied table; another function where its rows are divided.
        cross_entropy: Sum over tokens; another function where the vocabulary is divided.
    """

    blocks: nn.ModuleDict
    norm: nn.Module | None

    def __init__(self, shape: ModelShape, first: int, last: int) -> None:
        super().__init__()
        self.begins, self.ends = first == 0, last == shape.layers
        self.vocabulary = shape.vocabulary
        has_table = self.begins or (self.ends and shape.tied)
        self.tokens = Embedding(shape.vocabulary, shape.hidden) if has_table else None
        self.unembed: Callable[[Tensor, Tensor], Tensor] = F.linear
        self.cross_entropy: Callable[[Tensor, Tensor], Tensor] = cross_entropy_sum
        has_head = self.ends and not shape.tied
        self.head = Linear(shape.hidden, shape.vocabulary, bias=False) if has_head else None

    def units(self) -> Iterator[nn.Module]:
        yield from self.blocks.values()

    def divide(self, mesh: "DeviceMesh") -> None:
        split_tensors(self, mesh)

    def embedded(self, tokens: Tensor) -> Tensor:
        """Vectors of tokens (batch, length)."""
        assert self.tokens is not None
        vectors: Tensor = self.tokens(tokens)
        return vectors

    def forward(self, given: Tensor) -> Tensor:
        """Logits (batch, length, vocabulary), or the residual stream for the next stage.

        Args:
            given: Tokens (batch, length), or the residual stream of the stage before.
        """
        x = self.embedded(given) if self.begins else given
        for block in self.blocks.values():
            x = self.through(block, x)
        if self.norm is None:
            return x
        return self.logits(self.norm(x))

    def logits(self, x: Tensor) -> Tensor:
        """What each token is worth as the next one."""
        if self.head is not None:
            found: Tensor = self.head(x)
            return found
        assert self.tokens is not None
        return self.unembed(x, self.tokens.weight)

    def loss_sum(self, outputs: Tensor, targets: Tensor) -> Tensor:
        flat = outputs.flatten(0, 1).float()
        total = self.cross_entropy(flat, targets.flatten())
        return total / targets.shape[1]
