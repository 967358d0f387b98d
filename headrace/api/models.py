"""Model families and their sizes: what a plan must divide and a memory model must count.

No torch in here: the control plane and the command line ask the same questions as a trainer.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any


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

TOKEN_TYPES: Mapping[Family, int] = {Family.BERT: 2, Family.ROBERTA: 1}
"""Kinds of segments that a token may be of; each has a vector."""

ROBERTA_FIRST_POSITION = 2
"""RoBERTa counts positions from behind its padding token, so its table has two rows more."""

T5_DISTANCES = 32
"""Kinds of distances between two positions of T5, each with a number per head."""


@dataclass(frozen=True, slots=True)
class ParameterCounts:
    """Trained weights, by where they are and whether tensor parallelism divides them.

    Attributes:
        block_split: Of one block, what tensor-parallel ranks divide among them.
        block_whole: Of one block, what each of them keeps.
        decoder_block: Of one block of the second stack.
        embedding: In front of the blocks.
        head: Behind the blocks, without what is tied.
        table: Of the embedding, the vectors of tokens, which tensor-parallel ranks divide.
        output: The head's matrix, which they divide too: part of the head, or the table if tied.
        tied: Whether the output matrix is the table.
    """

    block_split: int
    block_whole: int
    embedding: int
    head: int
    decoder_block: int = 0
    table: int = 0
    output: int = 0
    tied: bool = False

    @property
    def block(self) -> int:
        """Of one block."""
        return self.block_split + self.block_whole


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
        sequence_length: Positions of a sample: tokens, or patches and the class token; those of
            each stack where there are two.
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

    Raises:
        ValueError: The sizes are not those of a model of this family.
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

    def __post_init__(self) -> None:
        for problem in _size_problems(self):
            raise ValueError(problem)
        for problem in (*_attention_problems(self), *_family_problems(self)):
            raise ValueError(problem)

    @property
    def counts(self) -> ParameterCounts:
        """Trained weights by where they are."""
        return _COUNTED[self.family](self)

    @property
    def parameters(self) -> int:
        """Trained weights."""
        counts = self.counts
        blocks = self.layers * counts.block + self.decoder_layers * counts.decoder_block
        return blocks + counts.embedding + counts.head

    @property
    def width_of_head(self) -> int:
        """Width of an attention head."""
        return self.head_width or self.hidden // self.heads

    @property
    def shared_heads(self) -> int:
        """Heads of keys and values."""
        return self.key_value_heads or self.heads

    @classmethod
    def from_hugging_face(cls, config: Mapping[str, Any]) -> "ModelShape":
        """Read a model's ``config.json`` as Hugging Face writes it.

        Raises:
            ValueError: It is not a model that Headrace's modules compute, or a size is missing or
                makes no sense; the sentence says what was wanted and what came.
        """
        from headrace.api.hugging_face import shape_of

        return shape_of(config)


def resized(shape: ModelShape, **sizes: int) -> ModelShape:
    """A shape with some sizes replaced, e.g. ``resized(shape, layers=8, hidden=512)``.

    What follows from the replaced ones follows: the positions of an image from its size and its
    patches', and the perceptron keeps its proportion to the hidden width unless it is given too.

    Raises:
        ValueError: There is no such size, or the sizes do not fit together.
    """
    known = [field.name for field in fields(shape) if type(getattr(shape, field.name)) is int]
    unknown = sorted(set(sizes) - set(known))
    if unknown:
        raise ValueError(f"wanted sizes among {', '.join(known)}, got {', '.join(unknown)}")
    for name, value in sizes.items():
        if type(value) is not int:
            raise ValueError(f"{name}: wanted a whole number, got {value!r}")
    changes = dict(sizes)
    if "hidden" in sizes and "intermediate" not in sizes:
        changes["intermediate"] = shape.intermediate * sizes["hidden"] // shape.hidden
    image, patch = sizes.get("image_size", shape.image_size), sizes.get("patch_size", 0)
    patch = patch or shape.patch_size
    if shape.family is Family.VIT and "sequence_length" not in sizes:
        changes["sequence_length"] = _positions_of_image(image, patch)
    return replace(shape, **changes)  # type: ignore[arg-type]


def _positions_of_image(image_size: int, patch_size: int) -> int:
    return (image_size // max(1, patch_size)) ** 2 + 1


def _size_problems(shape: ModelShape) -> Iterator[str]:
    named = ("layers", "hidden", "heads", "intermediate", "vocabulary", "sequence_length")
    for name in named:
        if getattr(shape, name) < 1:
            yield f"{name}: wanted 1 or more, got {getattr(shape, name)}"
    for name in ("key_value_heads", "decoder_layers", "head_width", "patch_size"):
        if getattr(shape, name) < 0:
            yield f"{name}: wanted 0 or more, got {getattr(shape, name)}"


def _attention_problems(shape: ModelShape) -> Iterator[str]:
    if not shape.head_width and shape.hidden % shape.heads:
        yield (
            f"heads: wanted a divisor of the hidden width {shape.hidden}, got {shape.heads}; "
            "take another number of heads or a width that they divide"
        )
    if shape.heads % shape.shared_heads:
        yield (
            f"key_value_heads: wanted a divisor of the {shape.heads} heads, got "
            f"{shape.key_value_heads}"
        )


def _family_problems(shape: ModelShape) -> Iterator[str]:
    family = shape.family
    if (shape.decoder_layers > 0) != (family is Family.T5):
        wanted = "1 or more for t5" if family is Family.T5 else f"0 for {family}"
        yield f"decoder_layers: wanted {wanted}, got {shape.decoder_layers}"
    if shape.key_value_heads not in (0, shape.heads) and family is not Family.LLAMA:
        yield (
            f"key_value_heads: wanted as many as heads ({shape.heads}) for {family}, got "
            f"{shape.key_value_heads}; only llama shares them"
        )
    if shape.head_width not in (0, shape.hidden // shape.heads) and family not in (
        Family.LLAMA,
        Family.T5,
    ):
        yield (
            f"head_width: wanted hidden / heads = {shape.hidden // shape.heads} for {family}, got "
            f"{shape.head_width}"
        )
    if family is Family.LLAMA and shape.width_of_head % 2:
        yield (
            "head_width: wanted an even width for llama, whose rotary positions turn pairs, got "
            f"{shape.width_of_head}"
        )
    if family is Family.LLAMA and not shape.gated:
        yield "gated: wanted true for llama, got false"
    if shape.gated and family not in (Family.LLAMA, Family.T5):
        yield f"gated: wanted false for {family}, got true"
    if family in (Family.BERT, Family.ROBERTA) and not shape.tied:
        yield f"tied: wanted true for {family}, got false"
    if family is Family.VIT:
        yield from _image_problems(shape)
    elif shape.patch_size or shape.image_size or shape.channels:
        yield f"patch_size, image_size, channels: wanted none for {family}, which reads tokens"


def _image_problems(shape: ModelShape) -> Iterator[str]:
    for name in ("patch_size", "image_size", "channels"):
        if getattr(shape, name) < 1:
            yield f"{name}: wanted 1 or more for vit, got {getattr(shape, name)}"
            return
    if shape.image_size % shape.patch_size:
        yield (
            f"patch_size: wanted a divisor of the image's side {shape.image_size}, got "
            f"{shape.patch_size}"
        )
    positions = _positions_of_image(shape.image_size, shape.patch_size)
    if shape.sequence_length != positions:
        yield (
            f"sequence_length: wanted {positions} for {shape.image_size}-pixel images in patches "
            f"of {shape.patch_size} and a class token, got {shape.sequence_length}"
        )
    if shape.tied:
        yield "tied: wanted false for vit, got true"


def _gpt2(shape: ModelShape) -> ParameterCounts:
    hidden, wide = shape.hidden, shape.intermediate
    table = shape.vocabulary * hidden
    return ParameterCounts(
        block_split=4 * hidden * hidden + 3 * hidden + 2 * hidden * wide + wide,
        # Biases of what is added up over ranks, and two normalisations.
        block_whole=2 * hidden + 4 * hidden,
        embedding=table + shape.sequence_length * hidden,
        head=2 * hidden + (0 if shape.tied else table),
        table=table,
        output=table,
        tied=shape.tied,
    )


def _llama(shape: ModelShape) -> ParameterCounts:
    hidden, width = shape.hidden, shape.width_of_head
    table = shape.vocabulary * hidden
    return ParameterCounts(
        block_split=2 * hidden * width * (shape.heads + shape.shared_heads)
        + 3 * hidden * shape.intermediate,
        block_whole=2 * hidden,
        embedding=table,
        head=hidden + (0 if shape.tied else table),
        table=table,
        output=table,
        tied=shape.tied,
    )


def _encoder_block(shape: ModelShape) -> int:
    """A block of BERT, RoBERTa and ViT: as GPT-2's."""
    hidden, wide = shape.hidden, shape.intermediate
    return 4 * (hidden * hidden + hidden) + 2 * hidden * wide + wide + hidden + 4 * hidden


def _bert(shape: ModelShape) -> ParameterCounts:
    """With the head of masked language modelling: a layer, a normalisation, a bias per token."""
    hidden, family = shape.hidden, shape.family
    positions = shape.sequence_length
    if family is Family.ROBERTA:
        positions += ROBERTA_FIRST_POSITION
    rows = shape.vocabulary + positions + TOKEN_TYPES[family]
    return ParameterCounts(
        block_split=0,
        block_whole=_encoder_block(shape),
        embedding=rows * hidden + 2 * hidden,
        head=hidden * hidden + 3 * hidden + shape.vocabulary,
        table=shape.vocabulary * hidden,
        output=shape.vocabulary * hidden,
        tied=True,
    )


def _t5(shape: ModelShape) -> ParameterCounts:
    hidden, inner = shape.hidden, shape.heads * shape.width_of_head
    table = shape.vocabulary * hidden
    attention = 4 * hidden * inner + hidden
    perceptron = (3 if shape.gated else 2) * hidden * shape.intermediate + hidden
    return ParameterCounts(
        block_split=0,
        block_whole=attention + perceptron,
        decoder_block=2 * attention + perceptron,
        embedding=table + 2 * T5_DISTANCES * shape.heads,
        head=2 * hidden + (0 if shape.tied else table),
        table=table,
        output=table,
        tied=shape.tied,
    )


def _vit(shape: ModelShape) -> ParameterCounts:
    hidden = shape.hidden
    patch = shape.channels * shape.patch_size**2
    return ParameterCounts(
        block_split=0,
        block_whole=_encoder_block(shape),
        # Patches, the class token, positions.
        embedding=patch * hidden + hidden + hidden + shape.sequence_length * hidden,
        head=2 * hidden + shape.vocabulary * (hidden + 1),
        output=shape.vocabulary * hidden,
    )


_COUNTED: Mapping[Family, Callable[[ModelShape], ParameterCounts]] = {
    Family.GPT2: _gpt2,
    Family.LLAMA: _llama,
    Family.BERT: _bert,
    Family.ROBERTA: _bert,
    Family.T5: _t5,
    Family.VIT: _vit,
}


# layers, hidden, heads, intermediate, vocabulary, sequence_length
PRESETS: Mapping[str, ModelShape] = {
    "gpt2-tiny": ModelShape(Family.GPT2, 2, 64, 4, 256, 256, 64, tied=True),
    "gpt2-small": ModelShape(Family.GPT2, 4, 128, 4, 512, 256, 128, tied=True),
    "gpt2-124m": ModelShape(Family.GPT2, 12, 768, 12, 3072, 50257, 1024, tied=True),
    "gpt2-1.26b": ModelShape(Family.GPT2, 24, 1920, 20, 7680, 50304, 1024),
    "gpt2-1.5b": ModelShape(Family.GPT2, 48, 1600, 25, 6400, 50257, 1024, tied=True),
    "llama-tiny": ModelShape(Family.LLAMA, 4, 64, 4, 176, 256, 64, key_value_heads=2, gated=True),
    "llama-2-7b": ModelShape(Family.LLAMA, 32, 4096, 32, 11008, 32000, 4096, gated=True),
    "llama-30b": ModelShape(
        Family.LLAMA, 60, 6656, 52, 17920, 32000, 2048, gated=True, norm_epsilon=1e-6
    ),
    "bert-tiny": ModelShape(Family.BERT, 2, 64, 4, 256, 259, 64, tied=True, norm_epsilon=1e-12),
    "bert-336m": ModelShape(
        Family.BERT, 24, 1024, 16, 4096, 30522, 512, tied=True, norm_epsilon=1e-12
    ),
    "roberta-tiny": ModelShape(Family.ROBERTA, 2, 64, 4, 256, 259, 64, tied=True),
    "roberta-355m": ModelShape(Family.ROBERTA, 24, 1024, 16, 4096, 50265, 512, tied=True),
    "t5-tiny": ModelShape(
        Family.T5, 2, 64, 4, 128, 288, 64, decoder_layers=2, gated=True, norm_epsilon=1e-6
    ),
    "t5-1.2b": ModelShape(
        Family.T5, 24, 1024, 16, 2816, 250112, 512, decoder_layers=24, gated=True, norm_epsilon=1e-6
    ),
    "vit-tiny": ModelShape(
        Family.VIT,
        2,
        64,
        4,
        128,
        10,
        17,
        patch_size=2,
        image_size=8,
        channels=1,
        norm_epsilon=1e-12,
    ),
    "vit-small": ModelShape(
        Family.VIT,
        4,
        64,
        4,
        256,
        10,
        17,
        patch_size=2,
        image_size=8,
        channels=1,
        norm_epsilon=1e-12,
    ),
    "vit-86m": ModelShape(
        Family.VIT,
        12,
        768,
        12,
        3072,
        1000,
        197,
        patch_size=16,
        image_size=224,
        channels=3,
        norm_epsilon=1e-12,
    ),
}
"""Named shapes. The tiny and small ones train on a CPU in seconds."""
