"""What Hugging Face's files call our tensors, family by family, and how they lie there."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from headrace.api.models import Family


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a tensor of ours lies.

    Attributes:
        stored: Name of the stored tensor.
        is_transposed: Whether it has its inputs first, as the ``Conv1D`` of GPT-2.
        part: Which part of its outputs is ours.
        parts: Into how many equal parts its outputs are divided.
    """

    stored: str
    is_transposed: bool = False
    part: int = 0
    parts: int = 1


_GPT2_OUTSIDE = {
    "tokens.weight": "wte.weight",
    "positions.weight": "wpe.weight",
    "norm.weight": "ln_f.weight",
    "norm.bias": "ln_f.bias",
}
_GPT2_BLOCK = {
    "norm1": "ln_1",
    "norm2": "ln_2",
    "attention.query": "attn.c_attn",
    "attention.key": "attn.c_attn",
    "attention.value": "attn.c_attn",
    "attention.out": "attn.c_proj",
    "widen": "mlp.c_fc",
    "narrow": "mlp.c_proj",
}
_GPT2_FUSED = ("attention.query", "attention.key", "attention.value")
_LLAMA_OUTSIDE = {"tokens.weight": "embed_tokens.weight", "norm.weight": "norm.weight"}
_LLAMA_BLOCK = {
    "norm1": "input_layernorm",
    "norm2": "post_attention_layernorm",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.out": "self_attn.o_proj",
    "perceptron.gate": "mlp.gate_proj",
    "perceptron.widen": "mlp.up_proj",
    "perceptron.narrow": "mlp.down_proj",
}
_VIT_BLOCK = {
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
_BLOCK = re.compile(r"(?:blocks|vit\.layers)\.(\d+)\.(.+)\.(weight|bias)")


def origins(family: Family, name: str) -> Iterator[Origin]:
    """Where a tensor of ours may lie, the likeliest place first."""
    yield from _ORIGINS[family](name)


def is_left_out(family: Family, stored: str) -> bool:
    """Whether a stored tensor is rightly none of ours: a buffer, a tied copy, or another head."""
    return _LEFT_OUT[family].fullmatch(stored) is not None


def _gpt2(name: str) -> Iterator[Origin]:
    found = _BLOCK.fullmatch(name)
    if found is None:
        yield from _prefixed("transformer.", name, _GPT2_OUTSIDE)
        return
    layer, within, kind = found.groups()
    is_fused = within in _GPT2_FUSED
    for prefix in ("transformer.", ""):
        yield Origin(
            f"{prefix}h.{layer}.{_GPT2_BLOCK[within]}.{kind}",
            is_transposed=kind == "weight" and not within.startswith("norm"),
            part=_GPT2_FUSED.index(within) if is_fused else 0,
            parts=len(_GPT2_FUSED) if is_fused else 1,
        )


def _llama(name: str) -> Iterator[Origin]:
    found = _BLOCK.fullmatch(name)
    if found is None:
        yield from _prefixed("model.", name, _LLAMA_OUTSIDE)
        return
    layer, within, kind = found.groups()
    for prefix in ("model.", ""):
        yield Origin(f"{prefix}layers.{layer}.{_LLAMA_BLOCK[within]}.{kind}")


def _prefixed(prefix: str, name: str, outside: Mapping[str, str]) -> Iterator[Origin]:
    """A file of the bare model leaves the prefix out. The head stands beside what it covers."""
    if name == "head.weight":
        yield Origin("lm_head.weight")
        return
    yield Origin(prefix + outside[name])
    yield Origin(outside[name])


def _bert(name: str) -> Iterator[Origin]:
    yield Origin(name)
    # As TensorFlow called them; bert-base-uncased is still stored so.
    if "LayerNorm." in name:
        renamed = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        yield Origin(renamed.replace("LayerNorm.bias", "LayerNorm.beta"))


def _t5(name: str) -> Iterator[Origin]:
    yield Origin(name)
    if name == "lm_head.weight":
        # The transformers library of today ties this head and stores it once.
        yield Origin("shared.weight")


def _vit(name: str) -> Iterator[Origin]:
    found = _BLOCK.fullmatch(name)
    if found is not None:
        # The library reads and writes the names of its first release, whatever it uses inside.
        layer, within, kind = found.groups()
        yield Origin(f"vit.encoder.layer.{layer}.{_VIT_BLOCK.get(within, within)}.{kind}")
    yield Origin(name)


_ORIGINS: Mapping[Family, Callable[[str], Iterator[Origin]]] = {
    Family.GPT2: _gpt2,
    Family.LLAMA: _llama,
    Family.BERT: _bert,
    Family.ROBERTA: _bert,
    Family.T5: _t5,
    Family.VIT: _vit,
}
_LEFT_OUT: Mapping[Family, re.Pattern[str]] = {
    Family.GPT2: re.compile(r"lm_head\.weight|(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)"),
    Family.LLAMA: re.compile(
        r"lm_head\.weight|(model\.)?layers\.\d+\.self_attn\.rotary_emb\.inv_freq"
    ),
    Family.BERT: re.compile(
        r"cls\.predictions\.decoder\.(weight|bias)|cls\.seq_relationship\..*"
        r"|bert\.pooler\..*|bert\.embeddings\.position_ids"
    ),
    Family.ROBERTA: re.compile(
        r"lm_head\.decoder\.(weight|bias)|roberta\.pooler\..*|roberta\.embeddings\.position_ids"
    ),
    Family.T5: re.compile(
        r"lm_head\.weight|(en|de)coder\.embed_tokens\.weight"
        r"|decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight"
    ),
    Family.VIT: re.compile(r"vit\.pooler\..*"),
}
