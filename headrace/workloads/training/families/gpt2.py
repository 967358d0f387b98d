"""GPT-2, with query, key and value as matrices of their own, so that ranks can share them."""

from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own habit
from torch import Tensor, nn

from headrace.api.models import ModelShape
from headrace.workloads.training.families.language import LanguagePart
from headrace.workloads.training.families.layers import Embedding, LayerNorm, Linear
from headrace.workloads.training.families.part import SHARED_INPUT, SPLIT_COLUMNS, SPLIT_ROWS


class Attention(nn.Module):
    """Causal multi-head self-attention."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.head_width = shape.hidden // shape.heads
        self.query = Linear(shape.hidden, shape.hidden)
        self.key = Linear(shape.hidden, shape.hidden)
        self.value = Linear(shape.hidden, shape.hidden)
        self.out = Linear(shape.hidden, shape.hidden)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        query, key, value = (
            # -1 heads: a tensor-parallel rank has fewer.
            layer(x).view(batch, length, -1, self.head_width).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        joined: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, -1))
        return joined


class Block(nn.Module):
    """Attention, then a perceptron, each behind a normalisation."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.norm1 = LayerNorm(shape.hidden, eps=shape.norm_epsilon)
        self.attention = Attention(shape)
        self.norm2 = LayerNorm(shape.hidden, eps=shape.norm_epsilon)
        self.widen = Linear(shape.hidden, shape.intermediate)
        self.narrow = Linear(shape.intermediate, shape.hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        narrowed: Tensor = self.narrow(F.gelu(self.widen(self.norm2(x)), approximate="tanh"))
        return x + narrowed


class Gpt2(LanguagePart):
    """Predicts the next token."""

    splits: ClassVar[dict[str, str]] = {
        "attention": SHARED_INPUT,
        "attention.query": SPLIT_ROWS,
        "attention.key": SPLIT_ROWS,
        "attention.value": SPLIT_ROWS,
        "attention.out": SPLIT_COLUMNS,
        "widen": SPLIT_ROWS,
        "narrow": SPLIT_COLUMNS,
    }

    def __init__(self, shape: ModelShape, first: int, last: int) -> None:
        super().__init__(shape, first, last)
        self.positions = Embedding(shape.sequence_length, shape.hidden) if first == 0 else None
        self.blocks = nn.ModuleDict({str(layer): Block(shape) for layer in range(first, last)})
        self.norm = (
            LayerNorm(shape.hidden, eps=shape.norm_epsilon) if last == shape.layers else None
        )

    def embedded(self, tokens: Tensor) -> Tensor:
        assert self.positions is not None
        places = torch.arange(tokens.shape[1], device=tokens.device)
        vectors: Tensor = super().embedded(tokens) + self.positions(places)
        return vectors
