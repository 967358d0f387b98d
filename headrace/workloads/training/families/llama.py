"""LLaMA: rotary positions, grouped queries, a gated perceptron, no biases."""

from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own habit
from torch import Tensor, nn

from headrace.api.models import ModelShape
from headrace.workloads.training.families.language import LanguagePart
from headrace.workloads.training.families.layers import Linear, RMSNorm
from headrace.workloads.training.families.part import SHARED_INPUT, SPLIT_COLUMNS, SPLIT_ROWS


def rotated(x: Tensor, base: float) -> Tensor:
    """Rotary position embedding (RoFormer, in the halves of LLaMA) of (batch, heads, length, w)."""
    length, width = x.shape[-2:]
    half = width // 2
    exponents = torch.arange(half, device=x.device, dtype=torch.float32) / half
    places = torch.arange(length, device=x.device, dtype=torch.float32)
    angles = torch.outer(places, base**-exponents)
    cosine, sine = angles.cos(), angles.sin()
    low, high = x[..., :half].float(), x[..., half:].float()
    turned = torch.cat((low * cosine - high * sine, high * cosine + low * sine), dim=-1)
    return turned.to(x.dtype)


class Attention(nn.Module):
    """Causal attention in which several query heads share one key and value head."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.head_width = shape.head_width or shape.hidden // shape.heads
        self.rope_base = shape.rope_base
        shared = (shape.key_value_heads or shape.heads) * self.head_width
        self.query = Linear(shape.hidden, shape.heads * self.head_width, bias=False)
        self.key = Linear(shape.hidden, shared, bias=False)
        self.value = Linear(shape.hidden, shared, bias=False)
        self.out = Linear(shape.heads * self.head_width, shape.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        query, key, value = (
            # -1 heads: a tensor-parallel rank has fewer.
            layer(x).view(batch, length, -1, self.head_width).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(
            rotated(query, self.rope_base),
            rotated(key, self.rope_base),
            value,
            is_causal=True,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        joined: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, -1))
        return joined


class Perceptron(nn.Module):
    """Two layers with a gate between them (SwiGLU)."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.gate = Linear(shape.hidden, shape.intermediate, bias=False)
        self.widen = Linear(shape.hidden, shape.intermediate, bias=False)
        self.narrow = Linear(shape.intermediate, shape.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        narrowed: Tensor = self.narrow(F.silu(self.gate(x)) * self.widen(x))
        return narrowed


class Block(nn.Module):
    """Attention, then a gated perceptron, each behind a normalisation."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.norm1 = RMSNorm(shape.hidden, eps=shape.norm_epsilon)
        self.attention = Attention(shape)
        self.norm2 = RMSNorm(shape.hidden, eps=shape.norm_epsilon)
        self.perceptron = Perceptron(shape)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.perceptron(self.norm2(x))
        return out


class Llama(LanguagePart):
    """Predicts the next token."""

    splits: ClassVar[dict[str, str]] = {
        "attention": SHARED_INPUT,
        "attention.query": SPLIT_ROWS,
        "attention.key": SPLIT_ROWS,
        "attention.value": SPLIT_ROWS,
        "attention.out": SPLIT_COLUMNS,
        "perceptron": SHARED_INPUT,
        "perceptron.gate": SPLIT_ROWS,
        "perceptron.widen": SPLIT_ROWS,
        "perceptron.narrow": SPLIT_COLUMNS,
    }

    def __init__(self, shape: ModelShape, first: int, last: int) -> None:
        super().__init__(shape, first, last)
        self.blocks = nn.ModuleDict({str(layer): Block(shape) for layer in range(first, last)})
        self.norm = RMSNorm(shape.hidden, eps=shape.norm_epsilon) if self.ends else None
