"""The pre-norm transformer block that both model families are made of.

Parameter names are a contract with every stored checkpoint and with plans to come: blocks sit in a
ModuleDict keyed by layer number, so that a plan which leaves layers out keeps the others' names.
"""

import torch.nn.functional as F  # noqa: N812 - torch's own habit
from torch import Tensor, nn

from headrace.workloads.training.layers import LayerNorm, Linear


class Attention(nn.Module):
    """Multi-head self-attention, without biases.

    A key's bias would have no effect on the result, so that its gradient is nothing but rounding,
    which AdamW would scale up to full steps: runs of different sizes would drift apart.
    """

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.qkv = Linear(width, 3 * width, bias=False)
        self.out = Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        query, key, value = (
            part.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for part in self.qkv(x).split(width, dim=2)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        joined: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return joined


class Block(nn.Module):
    """Attention, then a perceptron of four times the width."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width)
        self.attention = Attention(width, heads, causal=causal)
        self.norm2 = LayerNorm(width)
        self.widen = Linear(width, 4 * width)
        self.narrow = Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        narrowed: Tensor = self.narrow(F.gelu(self.widen(self.norm2(x))))
        return x + narrowed


def blocks(layers: int, width: int, heads: int, *, causal: bool) -> nn.ModuleDict:
    """Blocks keyed by layer number."""
    return nn.ModuleDict(
        {str(layer): Block(width, heads, causal=causal) for layer in range(layers)}
    )
