"""Model families and their sizes: what a plan must divide and a memory model must count.

No torch in here: the control plane and the command line ask the same questions as a trainer.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Family(StrEnum):
    """An architecture, by the name that Hugging Face gives it (``model_type``)."""

    GPT2 = "gpt2"
    LLAMA = "llama"
    BERT = "bert"
    ROBERTA = "roberta"
    T5 = "t5"
    VIT = "vit"


SPLITTABLE = frozenset({Family.GPT2, Family.LLAMA})
"""Families that know tensor and pipeline parallelism; the others are data parallel only."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of a transformer.

    Attributes:
        family: Its architecture.
        layers: Blocks; of the encoder where there are two stacks.
        hidden: Width of the residual stream.
        heads: Attention heads.
        intermediate: Width inside a block's perceptron.
        vocabulary: Tokens that are told apart; classes of an image classifier.
        sequence_length: Positions of a sample: tokens, or patches and the class token.
        key_value_heads: Heads of keys and values, where several queries share one; 0 for as many
            as ``heads``.
        decoder_layers: Blocks of the second stack (t5).
        head_width: Width of an attention head; 0 for hidden / heads.
        tied: Whether the output head's matrix is the token embedding's.
        gated: Whether the perceptron has a gate, and so a third matrix.
        patch_size: Side of a patch in pixels (vit).
        image_size: Side of an image in pixels (vit).
        channels: Colours of an image (vit).
        rope_base: Base of the rotary angles (llama).
        norm_epsilon: Kept from dividing by zero in normalisations.
    """

    family: Family
    layers: int
    hidden: int
    heads: int
    intermediate: int
    vocabulary: int
    sequence_length: int
    key_value_heads: int = 0
    decoder_layers: int = 0
    head_width: int = 0
    tied: bool = False
    gated: bool = False
    patch_size: int = 0
    image_size: int = 0
    channels: int = 0
    rope_base: float = 10_000.0
    norm_epsilon: float = 1e-5

    @property
    def parameters(self) -> int:
        """Trained weights."""
        return _COUNTED[self.family](self)


def _gpt2(shape: ModelShape) -> int:
    hidden, wide = shape.hidden, shape.intermediate
    block = 4 * hidden * hidden + 4 * hidden + 2 * hidden * wide + wide + hidden + 4 * hidden
    tables = shape.vocabulary * (1 if shape.tied else 2) + shape.sequence_length
    return shape.layers * block + tables * hidden + 2 * hidden


def _llama(shape: ModelShape) -> int:
    hidden = shape.hidden
    width = shape.head_width or hidden // shape.heads
    shared = (shape.key_value_heads or shape.heads) * width
    block = 2 * hidden * (shape.heads * width + shared) + 3 * hidden * shape.intermediate
    tables = shape.vocabulary * (1 if shape.tied else 2)
    return shape.layers * (block + 2 * hidden) + tables * hidden + hidden


_COUNTED: Mapping[Family, Callable[[ModelShape], int]] = {
    Family.GPT2: _gpt2,
    Family.LLAMA: _llama,
}

PRESETS: Mapping[str, ModelShape] = {
    "gpt2-tiny": ModelShape(Family.GPT2, 2, 64, 4, 256, 256, 64, tied=True),
    "gpt2-small": ModelShape(Family.GPT2, 4, 128, 4, 512, 256, 128, tied=True),
    "gpt2-124m": ModelShape(Family.GPT2, 12, 768, 12, 3072, 50257, 1024, tied=True),
    "gpt2-1.26b": ModelShape(Family.GPT2, 24, 1920, 20, 7680, 50304, 1024),
    "gpt2-1.5b": ModelShape(Family.GPT2, 48, 1600, 25, 6400, 50257, 1024, tied=True),
    "llama-tiny": ModelShape(Family.LLAMA, 4, 64, 4, 176, 256, 64, key_value_heads=2, gated=True),
    "llama-2-7b": ModelShape(Family.LLAMA, 32, 4096, 32, 11008, 32000, 4096, gated=True),
    "llama-30b": ModelShape(Family.LLAMA, 60, 6656, 52, 17920, 32000, 2048, gated=True),
}
"""Named shapes. The tiny and small ones train on a CPU in seconds."""
