"""A model's ``config.json`` as Hugging Face writes it, read as a ``ModelShape``.

What sets a size is read under each of its names. What would change the computation is refused
unless it is what our modules do. The rest is passed over: token ids, caches, labels' names, and
dropout, which is a matter of the training and not of the shape.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from headrace.api.models import (
    ROBERTA_FIRST_POSITION,
    T5_DISTANCES,
    TOKEN_TYPES,
    Family,
    ModelShape,
)

_MODEL_TYPES = {**{str(family): family for family in Family}, "mt5": Family.T5}

_LAYERS = ("num_hidden_layers", "n_layer", "num_layers")
_HIDDEN = ("hidden_size", "n_embd", "d_model")
_HEADS = ("num_attention_heads", "n_head", "num_heads")
_INTERMEDIATE = ("intermediate_size", "n_inner", "d_ff")
_POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx")
_HEAD_WIDTH = ("head_dim", "d_kv")
_T5_POSITIONS = 512
"""T5 has no table of positions; its authors trained with 512."""

_GELU = ("gelu", "gelu_python")
_GELU_TANH = ("gelu_new", "gelu_pytorch_tanh")


@dataclass(frozen=True, slots=True)
class _Setting:
    """A setting that our modules know in one way only.

    Attributes:
        name: Its key.
        computed: The values that our modules compute.
        absent: What Hugging Face takes where the key is missing.
    """

    name: str
    computed: tuple[object, ...]
    absent: object


_EVERYWHERE = (_Setting("quantization_config", (None,), None),)
_BIDIRECTIONAL = (
    _Setting("hidden_act", _GELU, "gelu"),
    _Setting("position_embedding_type", ("absolute",), "absolute"),
    _Setting("is_decoder", (False,), False),
    _Setting("add_cross_attention", (False,), False),
    _Setting("tie_word_embeddings", (True,), True),
)
_SETTINGS: Mapping[Family, tuple[_Setting, ...]] = {
    Family.GPT2: (
        _Setting("activation_function", _GELU_TANH, "gelu_new"),
        _Setting("scale_attn_weights", (True,), True),
        _Setting("scale_attn_by_inverse_layer_idx", (False,), False),
        _Setting("reorder_and_upcast_attn", (False,), False),
        _Setting("add_cross_attention", (False,), False),
    ),
    Family.LLAMA: (
        _Setting("hidden_act", ("silu", "swish"), "silu"),
        _Setting("attention_bias", (False,), False),
        _Setting("mlp_bias", (False,), False),
        _Setting("partial_rotary_factor", (1.0,), 1.0),
    ),
    Family.BERT: (
        *_BIDIRECTIONAL,
        _Setting("type_vocab_size", (TOKEN_TYPES[Family.BERT],), 2),
    ),
    Family.ROBERTA: (
        *_BIDIRECTIONAL,
        _Setting("type_vocab_size", (TOKEN_TYPES[Family.ROBERTA],), 2),
        _Setting("pad_token_id", (ROBERTA_FIRST_POSITION - 1,), 1),
    ),
    Family.T5: (
        _Setting("feed_forward_proj", ("gated-gelu", "relu"), "relu"),
        _Setting("is_encoder_decoder", (True,), True),
        _Setting("relative_attention_num_buckets", (T5_DISTANCES,), 32),
        _Setting("relative_attention_max_distance", (128,), 128),
    ),
    Family.VIT: (
        _Setting("hidden_act", _GELU, "gelu"),
        _Setting("qkv_bias", (True,), True),
    ),
}


def shape_of(config: Mapping[str, Any]) -> ModelShape:
    """The shape that a ``config.json`` describes.

    Raises:
        ValueError: It is not a model that Headrace's modules compute, or a size is missing or
            makes no sense.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in _MODEL_TYPES:
        raise ValueError(f"model_type: wanted one of {_listed(_MODEL_TYPES)}, got {model_type!r}")
    family = _MODEL_TYPES[model_type]
    for refusal in _refusals(config, family):
        raise ValueError(refusal)
    read = {
        Family.GPT2: _gpt2,
        Family.LLAMA: _llama,
        Family.BERT: _bert,
        Family.ROBERTA: _bert,
        Family.T5: _t5,
        Family.VIT: _vit,
    }[family]
    return read(config, family)


def _refusals(config: Mapping[str, Any], family: Family) -> Iterator[str]:
    for setting in (*_EVERYWHERE, *_SETTINGS[family]):
        given = config.get(setting.name, setting.absent)
        if not any(given == value for value in setting.computed):
            yield (
                f"{setting.name}: wanted {_listed(setting.computed)} for "
                f"{config['model_type']}, got {given!r}; Headrace's {family} does not compute it"
            )


def _gpt2(config: Mapping[str, Any], family: Family) -> ModelShape:
    hidden = _size(config, _HIDDEN)
    return ModelShape(
        family,
        layers=_size(config, _LAYERS),
        hidden=hidden,
        heads=_size(config, _HEADS),
        intermediate=_size(config, _INTERMEDIATE, 4 * hidden),
        vocabulary=_size(config, ("vocab_size",)),
        sequence_length=_size(config, _POSITIONS),
        tied=_flag(config, "tie_word_embeddings", absent=True),
        norm_epsilon=_number(config, ("layer_norm_epsilon", "layer_norm_eps"), 1e-5),
    )


def _llama(config: Mapping[str, Any], family: Family) -> ModelShape:
    heads = _size(config, _HEADS)
    hidden = _size(config, _HIDDEN)
    shared = _size(config, ("num_key_value_heads",), heads)
    width = _size(config, _HEAD_WIDTH, hidden // heads)
    return ModelShape(
        family,
        layers=_size(config, _LAYERS),
        hidden=hidden,
        heads=heads,
        intermediate=_size(config, _INTERMEDIATE),
        vocabulary=_size(config, ("vocab_size",)),
        sequence_length=_size(config, _POSITIONS),
        key_value_heads=0 if shared == heads else shared,
        head_width=0 if width * heads == hidden else width,
        tied=_flag(config, "tie_word_embeddings", absent=False),
        gated=True,
        rope_base=_rope_base(config),
        norm_epsilon=_number(config, ("rms_norm_eps",), 1e-6),
    )


def _rope_base(config: Mapping[str, Any]) -> float:
    """Base of the rotary angles, which newer files keep in ``rope_parameters``."""
    bases = [_number(config, ("rope_theta",), 10_000.0)]
    for name in ("rope_scaling", "rope_parameters"):
        given = config.get(name)
        if given is None:
            continue
        if not isinstance(given, Mapping):
            raise ValueError(f"{name}: wanted an object or null, got {given!r}")
        kind = given.get("rope_type", given.get("type", "default"))
        if kind != "default" or given.get("partial_rotary_factor", 1.0) != 1.0:
            raise ValueError(
                f"{name}: wanted null or the type 'default', got {dict(given)}; Headrace's llama "
                "does not scale rotary positions"
            )
        bases.append(_number(given, ("rope_theta",), bases[0]))
    return bases[-1]


def _bert(config: Mapping[str, Any], family: Family) -> ModelShape:
    unused = ROBERTA_FIRST_POSITION if family is Family.ROBERTA else 0
    return ModelShape(
        family,
        layers=_size(config, _LAYERS),
        hidden=_size(config, _HIDDEN),
        heads=_size(config, _HEADS),
        intermediate=_size(config, _INTERMEDIATE),
        vocabulary=_size(config, ("vocab_size",)),
        sequence_length=_size(config, _POSITIONS) - unused,
        tied=True,
        norm_epsilon=_number(config, ("layer_norm_eps",), 1e-12),
    )


def _t5(config: Mapping[str, Any], family: Family) -> ModelShape:
    is_mt5 = config["model_type"] == "mt5"
    layers, heads = _size(config, _LAYERS), _size(config, _HEADS)
    hidden, width = _size(config, _HIDDEN), _size(config, _HEAD_WIDTH)
    return ModelShape(
        family,
        layers=layers,
        hidden=hidden,
        heads=heads,
        intermediate=_size(config, _INTERMEDIATE),
        vocabulary=_size(config, ("vocab_size",)),
        sequence_length=_size(config, _POSITIONS, _T5_POSITIONS),
        decoder_layers=_size(config, ("num_decoder_layers",), layers),
        head_width=0 if width * heads == hidden else width,
        gated=config.get("feed_forward_proj", "gated-gelu" if is_mt5 else "relu") != "relu",
        tied=_t5_is_tied(config, absent=not is_mt5),
        norm_epsilon=_number(config, ("layer_norm_epsilon",), 1e-6),
    )


def _t5_is_tied(config: Mapping[str, Any], *, absent: bool) -> bool:
    """Whether the head is the table, whose outputs are scaled. Newer releases of the transformers
    library say that in a key of its own, and write ``tie_word_embeddings: true`` for every T5.
    """
    said = _flag(config, "tie_word_embeddings", absent=absent)
    return _flag(config, "scale_decoder_outputs", absent=said)


def _vit(config: Mapping[str, Any], family: Family) -> ModelShape:
    image, patch = (_side(config, name) for name in ("image_size", "patch_size"))
    return ModelShape(
        family,
        layers=_size(config, _LAYERS),
        hidden=_size(config, _HIDDEN),
        heads=_size(config, _HEADS),
        intermediate=_size(config, _INTERMEDIATE),
        vocabulary=_classes(config),
        sequence_length=(image // patch) ** 2 + 1,
        patch_size=patch,
        image_size=image,
        channels=_size(config, ("num_channels",), 3),
        norm_epsilon=_number(config, ("layer_norm_eps",), 1e-12),
    )


def _side(config: Mapping[str, Any], name: str) -> int:
    given = config.get(name)
    if isinstance(given, list | tuple):
        if len(set(given)) != 1:
            raise ValueError(f"{name}: wanted a square, got {given!r}")
        return _size({name: given[0]}, (name,))
    return _size(config, (name,))


def _classes(config: Mapping[str, Any]) -> int:
    labels = config.get("id2label")
    named = len(labels) if isinstance(labels, Mapping) and labels else None
    # Hugging Face takes 2 where nothing is said, which no one means.
    return _size(config, ("num_labels",), named)


def _size(config: Mapping[str, Any], names: tuple[str, ...], absent: int | None = None) -> int:
    """A whole number of 1 or more, under whichever of its names it stands."""
    given = {name: config[name] for name in names if config.get(name) is not None}
    for name, value in given.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"{name}: wanted a whole number of 1 or more, got {value!r}")
    if len(set(given.values())) > 1:
        told = ", ".join(f"{name}={value}" for name, value in given.items())
        raise ValueError(f"wanted one size under all its names, got {told}")
    if given:
        found: int = next(iter(given.values()))
        return found
    if absent is None:
        raise ValueError(f"wanted {' or '.join(names)}, got a configuration without")
    return absent


def _number(config: Mapping[str, Any], names: tuple[str, ...], absent: float) -> float:
    for name in names:
        value = config.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise ValueError(f"{name}: wanted a number above 0, got {value!r}")
        return float(value)
    return absent


def _flag(config: Mapping[str, Any], name: str, *, absent: bool) -> bool:
    value = config.get(name, absent)
    if not isinstance(value, bool):
        raise ValueError(f"{name}: wanted true or false, got {value!r}")
    return value


def _listed(values: Mapping[str, Any] | tuple[object, ...]) -> str:
    told = [value if isinstance(value, str) else repr(value) for value in values]
    return told[0] if len(told) == 1 else f"{', '.join(told[:-1])} or {told[-1]}"
