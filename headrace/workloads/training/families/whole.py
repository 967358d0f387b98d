"""Families that stay whole: the transformers library computes, a part keeps the parameters.

They are data parallel only, so a part is the entire model. Its parameters have the names that the
library's model gives them.
"""

import weakref
from collections.abc import Iterator
from typing import Any, ClassVar

import torch.nn.functional as F  # noqa: N812 - torch's own habit
from torch import Tensor, nn

from headrace.workloads.training.families.part import Part

NOT_COUNTED = -100
"""A target of which the loss knows nothing, as everywhere in torch."""


class TiedHead(nn.Module):
    """An output head whose matrix is the table of tokens.

    It looks the table up whenever it is used. A second name for the same parameter would be a
    parameter of its own once memory is given (``to_empty``) or parameters are sharded.
    """

    def __init__(self, table: nn.Embedding, biased: nn.Module | None = None) -> None:
        super().__init__()
        # References are no children, or both would be registered below this module too.
        self._table = weakref.ref(table)
        self._biased = weakref.ref(biased) if biased is not None else None

    def forward(self, x: Tensor) -> Tensor:
        table = self._table()
        assert table is not None
        biased: Any = self._biased() if self._biased is not None else None
        return F.linear(x, table.weight, None if biased is None else biased.bias)


class WholeModel(Part):
    """A model of the transformers library.

    It has no buffers: what the library keeps in some is given with every call, so that nothing is
    left to be computed again when a part that was only shapes is given memory.
    """

    stacks: ClassVar[tuple[str, ...]]
    """Where the blocks are, in the order in which they compute."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        # In a tuple, or its name would stand before that of every parameter.
        self._model = (model,)
        for name, child in model.named_children():
            self.add_module(name, child)
        for block in self.units():
            # The library has its own switch for this, by another name in every other release.
            block.forward = self.computed_again(block)

    def units(self) -> Iterator[nn.Module]:
        for stack in self.stacks:
            yield from self.get_submodule(stack).children()

    def called(self, **given: Tensor) -> Tensor:
        """The library's logits."""
        logits: Tensor = self._model[0](**given).logits
        return logits

    def loss_sum(self, outputs: Tensor, targets: Tensor) -> Tensor:
        each = F.cross_entropy(
            outputs.flatten(0, -2).float(),
            targets.flatten(),
            ignore_index=NOT_COUNTED,
            reduction="none",
        ).view(len(targets), -1)
        counted = (targets != NOT_COUNTED).view(len(targets), -1).sum(dim=1)
        return (each.sum(dim=1) / counted.clamp(min=1)).sum()
