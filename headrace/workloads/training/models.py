"""The model families by name: presets, sizes, and initial weights that depend on the seed alone."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from headrace.workloads.refusal import START_REFUSED, WorkloadError
from headrace.workloads.training.gpt import Gpt
from headrace.workloads.training.spec import TrainingSpec
from headrace.workloads.training.vit import Vit


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of a model.

    Attributes:
        layers: Transformer blocks.
        width: Width of the residual stream.
        heads: Attention heads.
        sequence_length: Bytes of a sample (gpt).
        patch_size: Side of a patch in pixels (vit).
    """

    layers: int
    width: int
    heads: int
    sequence_length: int = 0
    patch_size: int = 0


PRESETS: Mapping[str, Mapping[str, Sizes]] = {
    "gpt": {
        "tiny": Sizes(2, 64, 4, sequence_length=64),
        "small": Sizes(4, 128, 4, sequence_length=128),
        "medium": Sizes(12, 768, 12, sequence_length=1024),
        "large": Sizes(24, 1920, 15, sequence_length=1024),
    },
    "vit": {
        "tiny": Sizes(2, 32, 4, patch_size=2),
        "small": Sizes(4, 64, 4, patch_size=2),
        "medium": Sizes(8, 192, 6, patch_size=2),
        "large": Sizes(12, 768, 12, patch_size=1),
    },
}
"""``tiny`` and ``small`` train on a CPU in seconds; ``medium`` and ``large`` want a GPU."""

_FIELDS = {
    "layers": "layers",
    "width": "width",
    "heads": "heads",
    "patchSize": "patch_size",
}
_EMBEDDING_SPREAD = 0.1


def sizes_of(spec: TrainingSpec) -> Sizes:
    """The preset's sizes with the manifest's own in their place.

    Raises:
        WorkloadError: There is no such model, preset or size.
    """
    presets = PRESETS.get(spec.model_name)
    if presets is None or spec.model_preset not in presets:
        known = ", ".join(f"{name}/{preset}" for name in PRESETS for preset in PRESETS[name])
        raise WorkloadError(
            START_REFUSED,
            f"wanted a built-in model and preset ({known}), got "
            f"{spec.model_name}/{spec.model_preset}",
        )
    unknown = sorted(set(spec.model_config) - set(_FIELDS))
    if unknown:
        raise WorkloadError(
            START_REFUSED, f"wanted sizes among {', '.join(_FIELDS)}, got {', '.join(unknown)}"
        )
    changes = {_FIELDS[key]: value for key, value in spec.model_config.items()}
    sizes = replace(presets[spec.model_preset], **changes)
    if spec.sequence_length:
        sizes = replace(sizes, sequence_length=spec.sequence_length)
    if sizes.width % sizes.heads:
        raise WorkloadError(
            START_REFUSED,
            f"wanted heads that divide the width {sizes.width}, got {sizes.heads} heads",
        )
    return sizes


def build(spec: TrainingSpec, *, image_side: int, classes: int, empty: bool) -> nn.Module:
    """The model, with initial weights; ``empty`` gives only its shapes, for ranks that receive it.

    Args:
        spec: What is trained.
        image_side: Pixels of an image's side (vit).
        classes: Number of classes (vit).
        empty: Whether to leave memory and weights out.
    """
    sizes = sizes_of(spec)
    with torch.device("meta" if empty else "cpu"):
        model: nn.Module
        if spec.model_name == "gpt":
            model = Gpt(
                layers=sizes.layers,
                width=sizes.width,
                heads=sizes.heads,
                sequence_length=sizes.sequence_length,
            )
        else:
            if image_side % sizes.patch_size:
                raise WorkloadError(
                    START_REFUSED,
                    f"wanted a patchSize that divides the image side of {image_side} pixels, got "
                    f"{sizes.patch_size}",
                )
            model = Vit(
                layers=sizes.layers,
                width=sizes.width,
                heads=sizes.heads,
                side=image_side,
                patch_size=sizes.patch_size,
                classes=classes,
            )
    if not empty:
        _initialise(model, spec.seed, sizes.layers)
    return model


@torch.no_grad()
def _initialise(model: nn.Module, seed: int, layers: int) -> None:
    """Draw each weight from a stream of its own, named by seed and parameter."""
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            is_gain = "norm" in name and name.endswith("weight")
            parameter.fill_(1.0 if is_gain else 0.0)
            continue
        spread = _EMBEDDING_SPREAD
        if name.rpartition(".")[0] not in ("tokens", "positions"):
            spread = parameter.shape[1] ** -0.5
        if name == "head.weight":
            spread *= 0.1  # so that training begins with even guesses
        if name.endswith(("narrow.weight", "out.weight")):
            # What is added to the residual stream starts smaller, as in GPT-2.
            spread /= (2 * layers) ** 0.5
        # The generator looks at 32 bits of its seed, so the two are hashed and not put together.
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
        parameter.normal_(0.0, spread, generator=generator)
