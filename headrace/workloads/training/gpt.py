"""A byte-level language model."""

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own habit
from torch import Tensor, nn

from headrace.workloads.training.layers import Embedding, LayerNorm, Linear
from headrace.workloads.training.transformer import blocks

BYTES = 256


class Gpt(nn.Module):
    """Predicts the next byte."""

    def __init__(self, *, layers: int, width: int, heads: int, sequence_length: int) -> None:
        super().__init__()
        self.tokens = Embedding(BYTES, width)
        self.positions = Embedding(sequence_length, width)
        self.blocks = blocks(layers, width, heads, causal=True)
        self.norm = LayerNorm(width)
        self.head = Linear(width, BYTES, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        places = torch.arange(inputs.shape[1], device=inputs.device)
        x = self.tokens(inputs) + self.positions(places)
        for block in self.blocks.values():
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits

    def loss_sum(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Sum over samples of the mean loss of a sample's bytes."""
        logits = self(inputs)
        total = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="sum")
        return total / inputs.shape[1]
