"""The model that a manifest names, and its shape if it is built in. No torch, and none of the
schema.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from headrace.api.models import PRESETS, Family, ModelShape, resized

SIZES: Mapping[str, str] = {
    "hiddenSize": "hidden",
    "numHiddenLayers": "layers",
    "numDecoderLayers": "decoder_layers",
    "numAttentionHeads": "heads",
    "numKeyValueHeads": "key_value_heads",
    "intermediateSize": "intermediate",
    "vocabSize": "vocabulary",
    "patchSize": "patch_size",
    "imageSize": "image_size",
    "numChannels": "channels",
}
"""A manifest's sizes, which are Hugging Face's common names, and those of `ModelShape`."""

_TIED = "tieWordEmbeddings"


def presets_of(name: str) -> tuple[str, ...]:
    """The presets of a family, by the part of their names behind the family's."""
    return tuple(full[len(name) + 1 :] for full, shape in PRESETS.items() if shape.family == name)


def model_name(spec: Mapping[str, Any]) -> str:
    """What the model of a manifest's spec is called, so that jobs that train the same are known to.

    That of a preset is the preset's, as `headrace profile` has it, with what is changed of its
    sizes behind it; stored weights, a script and a command are called like their files.
    """
    model = spec.get("model")
    if model:
        if model.get("weights"):
            return f"{model['name']}:{_last(model['weights'])}"
        sizes = sorted((model.get("config") or {}).items())
        changed = "".join(f"+{name}={value}" for name, value in sizes if value is not None)
        return f"{model['name']}-{model.get('preset') or 'tiny'}{changed}"
    for kind, entry in (("script", "file"), ("command", "program")):
        told = (spec.get(kind) or {}).get(entry)
        if told:
            return _last(told if isinstance(told, str) else told[0])
    return ""


def shape_named(name: str, sequence_length: int = 0) -> ModelShape:
    """The shape of a preset and sizes that `model_name` names.

    Args:
        name: Such as ``gpt2-small+numHiddenLayers=8``.
        sequence_length: Tokens of a sample; 0 leaves it to the preset.

    Raises:
        ValueError: It is no such name, as that of stored weights or of a script.
    """
    full, *changed = name.split("+")
    shape = PRESETS.get(full)
    if shape is None:
        raise ValueError(f"wanted one of the models {', '.join(PRESETS)}, got {full!r}")
    sizes = {size: _number(value) for size, _, value in (part.partition("=") for part in changed)}
    family = str(shape.family)
    return chosen_shape(family, full.removeprefix(f"{family}-"), sizes, sequence_length)


def _number(text: str) -> int:
    return int(text == "True") if text in ("True", "False") else int(text)


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def chosen_shape(
    name: str, preset: str, config: Mapping[str, int], sequence_length: int = 0
) -> ModelShape:
    """The preset's shape with the manifest's own sizes in their place.

    Args:
        name: Family.
        preset: Which of its presets.
        config: Sizes by the manifest's names.
        sequence_length: Tokens of a sample; 0 leaves it to the preset.

    Raises:
        ValueError: There is no such family, preset or size, or the sizes do not fit together.
    """
    shape = PRESETS.get(f"{name}-{preset}")
    if shape is None:
        known = "; ".join(f"{family}: {', '.join(presets_of(family))}" for family in Family)
        raise ValueError(f"wanted a model and one of its presets ({known}), got {name}, {preset}")
    if _TIED in config:
        shape = replace(shape, tied=bool(config[_TIED]))
    sizes = {SIZES.get(key, key): value for key, value in config.items() if key != _TIED}
    unknown = sorted(set(config) - set(SIZES) - {_TIED})
    if unknown:
        raise ValueError(f"wanted sizes among {', '.join(SIZES)}, got {', '.join(unknown)}")
    if sequence_length and shape.family is not Family.VIT:
        sizes["sequence_length"] = sequence_length
    return resized(shape, **sizes) if sizes else shape
