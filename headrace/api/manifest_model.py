"""The parts of a manifest that say what a built-in model is and what it learns from."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from headrace.api.manifest_fields import Path
from headrace.api.manifest_part import Part, broken
from headrace.api.model_choice import SIZES, chosen_shape, presets_of
from headrace.api.models import PRESETS, ModelShape

STDLIB, DIGITS, RANDOM = "python-stdlib", "digits", "random"
BUILT_IN_DATA = (STDLIB, DIGITS, RANDOM)
"""Sources that need no path."""

_DIGIT_SIDE, _DIGIT_CHANNELS, _DIGIT_CLASSES = 8, 1, 10
_FIELDS = {**{size: field for field, size in SIZES.items()}, "tied": "tieWordEmbeddings"}


class ModelConfig(Part):
    """Sizes of a built-in model, by Hugging Face's common names."""

    hidden_size: Annotated[int, Field(ge=8, le=2**16)] | None = None
    """Width of the residual stream."""
    num_hidden_layers: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Blocks; those of the encoder of t5."""
    num_decoder_layers: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Blocks of the decoder (t5 only)."""
    num_attention_heads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Attention heads; must divide the hidden size."""
    num_key_value_heads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Heads of keys and values, which several attention heads share (llama only)."""
    intermediate_size: Annotated[int, Field(ge=8, le=2**20)] | None = None
    """Width inside the perceptron; keeps its proportion to the hidden size if left out."""
    vocab_size: Annotated[int, Field(ge=2, le=2**22)] | None = None
    """Tokens that are told apart; classes of vit."""
    patch_size: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Side of an image patch in pixels (vit only)."""
    image_size: Annotated[int, Field(ge=1, le=16384)] | None = None
    """Side of an image in pixels (vit only)."""
    num_channels: Annotated[int, Field(ge=1, le=64)] | None = None
    """Colours of an image (vit only)."""
    tie_word_embeddings: bool | None = None
    """Whether the output head's matrix is the token embedding's (gpt2, llama and t5)."""

    def given(self) -> dict[str, int]:
        """What is not left out, by its name in the manifest."""
        return self.model_dump(by_alias=True, exclude_none=True)


class Model(Part):
    """A built-in model, which Headrace can lay out anew while it trains."""

    name: Literal["gpt2", "llama", "bert", "roberta", "t5", "vit"]
    """Family, as Hugging Face calls it: gpt2 and llama predict the next token, bert and roberta
    masked ones, t5 masked spans, vit an image's class."""
    preset: Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[a-z0-9][-a-z0-9.]*$")] | (
        None
    ) = None
    """Named sizes to begin with, of the family; tiny if left out, unless there are weights."""
    config: ModelConfig = ModelConfig()
    """Sizes that replace the preset's."""
    weights: Path | None = None
    """Folder on every node with config.json and safetensors in Hugging Face's layout to begin with;
    then the sizes are its own, and neither preset nor config is given."""

    @model_validator(mode="before")
    @classmethod
    def _preset_filled_in(cls, document: Any) -> Any:
        if isinstance(document, Mapping):
            told = document.get("preset"), document.get("weights")
            return {**document, "preset": "tiny"} if told == (None, None) else document
        return document

    @model_validator(mode="after")
    def _known(self) -> "Model":
        if self.weights is not None:
            for field, there in (("preset", self.preset), ("config", self.config.given())):
                if there:
                    raise broken(field, "wanted none beside weights, whose config.json has sizes")
            return self
        presets = presets_of(self.name)
        if self.preset not in presets:
            raise broken(
                "preset", f"wanted one of {', '.join(presets)} for {self.name}, got {self.preset!r}"
            )
        try:
            self.shape()
        except ValueError as error:
            size, _, sentence = str(error).partition(": ")
            field = _FIELDS.get(size.partition(",")[0], "")
            raise broken(f"config.{field}" if field else "config", sentence or size) from error
        return self

    def shape(self, sequence_length: int = 0) -> ModelShape | None:
        """Its sizes; None where only the nodes can read them, from the weights' folder.

        Args:
            sequence_length: Tokens of a sample; 0 leaves it to the preset.
        """
        if self.preset is None:
            return None
        return chosen_shape(self.name, self.preset, self.config.given(), sequence_length)


class Data(Part):
    """What a built-in model learns from."""

    source: Path
    """python-stdlib (text), digits (images), random (tokens or images of the model's size, for
    measurements), or a path of text files on every node."""
    sequence_length: Annotated[int, Field(ge=8, le=131072)] | None = None
    """Tokens of one sample (not of vit)."""


def breaches_of_data(model: Model, data: Data) -> Iterator[PydanticCustomError]:
    """Why the model cannot learn from this data, if so."""
    shape, source = model.shape(), data.source
    if model.name == "vit":
        if source not in (DIGITS, RANDOM):
            yield broken("data.source", f"vit learns from {DIGITS} or {RANDOM}, got {source!r}")
        elif shape is not None and source == DIGITS and not _reads_digits(shape):
            yield broken(
                "data.source",
                f"digits are {_DIGIT_SIDE}x{_DIGIT_SIDE} pixels of one colour in {_DIGIT_CLASSES} "
                f"classes, the model reads {shape.image_size}x{shape.image_size} pixels of "
                f"{shape.channels} in {shape.vocabulary}; take the preset tiny or small, set "
                f"imageSize, numChannels and vocabSize, or learn from {RANDOM}",
            )
        if data.sequence_length is not None:
            yield broken("data.sequenceLength", "vit reads images, which have no sequence length")
        return
    if source == DIGITS:
        yield broken(
            "data.source",
            f"{model.name} learns from {STDLIB}, {RANDOM} or a path of text, got {source!r}",
        )
    # The tiny presets are made for text, which is read as bytes and a family's special tokens.
    least = PRESETS[f"{model.name}-tiny"].vocabulary
    if shape is not None and source != RANDOM and shape.vocabulary < least:
        yield broken(
            "model.config.vocabSize",
            f"text is read as bytes, for which {model.name} needs {least} tokens, got "
            f"{shape.vocabulary}",
        )


def _reads_digits(shape: ModelShape) -> bool:
    size = (shape.image_size, shape.channels)
    return size == (_DIGIT_SIDE, _DIGIT_CHANNELS) and shape.vocabulary >= _DIGIT_CLASSES
