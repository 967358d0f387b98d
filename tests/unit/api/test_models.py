"""Shapes of models: how many weights they have, and which sizes fit together."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headrace.api.models import PRESETS, Family, ModelShape, resized

PUBLISHED = {
    "vit-86m": 86_567_656,
    "roberta-355m": 355_412_057,
    "bert-336m": 335_174_458,
    "t5-1.2b": 1_229_581_312,
    "gpt2-124m": 124_439_808,
    "gpt2-1.26b": 1_257_419_520,
    "gpt2-1.5b": 1_557_611_200,
    "llama-2-7b": 6_738_415_616,
    "llama-30b": 32_528_943_616,
}
"""Of the published weights with the heads that they are trained with."""


@pytest.mark.parametrize(("name", "count"), PUBLISHED.items())
def test_presets_have_their_published_sizes(name: str, count: int) -> None:
    assert PRESETS[name].parameters == count


def test_the_documented_presets_are_the_presets() -> None:
    text = (Path(__file__).parents[3] / "docs" / "plans.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in text.splitlines() if row]
    told = {row[0].strip("`"): row[1:] for row in rows if len(row) == 8 and row[0][:1] == "`"}
    assert told == {name: _documented(shape) for name, shape in PRESETS.items()}


def _documented(shape: ModelShape) -> list[str]:
    layers, heads = str(shape.layers), str(shape.heads)
    return [
        f"{layers} + {shape.decoder_layers}" if shape.decoder_layers else layers,
        str(shape.hidden),
        f"{heads}, {shape.key_value_heads} of keys" if shape.key_value_heads else heads,
        str(shape.intermediate),
        f"{shape.vocabulary:,}",
        f"{shape.sequence_length:,}",
        f"{shape.parameters:,}",
    ]


def test_every_family_has_a_preset_that_trains_in_seconds() -> None:
    for family in Family:
        shape = PRESETS[f"{family}-tiny"]
        assert shape.family is family
        assert shape.parameters < 300_000


def test_tiny_presets_of_text_know_every_byte_and_what_their_family_adds() -> None:
    for name, shape in PRESETS.items():
        if name.endswith(("-tiny", "-small")) and shape.family is not Family.VIT:
            more = 0 if shape.family in (Family.GPT2, Family.LLAMA) else 3
            assert shape.vocabulary >= 256 + more


def test_what_tensor_parallelism_divides_is_part_of_the_block() -> None:
    for shape in PRESETS.values():
        counts = shape.counts
        assert counts.block == counts.block_split + counts.block_whole
        assert counts.table <= counts.embedding
        assert counts.tied is shape.tied
        assert counts.output <= (counts.table if shape.tied else counts.head)


@pytest.mark.parametrize(
    ("name", "sizes", "told"),
    [
        ("gpt2-tiny", {"layers": 0}, "layers: wanted 1 or more, got 0"),
        ("gpt2-tiny", {"heads": 5}, "heads: wanted a divisor of the hidden width 64, got 5"),
        ("llama-tiny", {"key_value_heads": 3}, "wanted a divisor of the 4 heads, got 3"),
        ("gpt2-tiny", {"key_value_heads": 2}, "wanted as many as heads (4) for gpt2, got 2"),
        ("bert-tiny", {"head_width": 8}, "wanted hidden / heads = 16 for bert, got 8"),
        ("llama-tiny", {"head_width": 7}, "wanted an even width"),
        ("llama-tiny", {"head_width": -2}, "head_width: wanted 0 or more, got -2"),
        ("gpt2-tiny", {"decoder_layers": 2}, "decoder_layers: wanted 0 for gpt2, got 2"),
        ("t5-tiny", {"decoder_layers": 0}, "decoder_layers: wanted 1 or more for t5, got 0"),
        ("vit-tiny", {"patch_size": 3}, "wanted a divisor of the image's side 8, got 3"),
        ("vit-tiny", {"channels": 0}, "channels: wanted 1 or more for vit, got 0"),
        ("vit-tiny", {"sequence_length": 16}, "sequence_length: wanted 17 for 8-pixel images"),
        ("gpt2-tiny", {"image_size": 8}, "wanted none for gpt2, which reads tokens"),
        ("gpt2-tiny", {"width": 8}, "wanted sizes among layers, hidden, heads"),
        ("gpt2-tiny", {"tied": 1}, "got tied"),
        ("gpt2-tiny", {"layers": True}, "layers: wanted a whole number, got True"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(name: str, sizes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the sentence is looked at below
        resized(PRESETS[name], **sizes)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("gpt2-tiny", {"gated": True}, "gated: wanted false for gpt2, got true"),
        ("llama-tiny", {"gated": False}, "gated: wanted true for llama, got false"),
        ("bert-tiny", {"tied": False}, "tied: wanted true for bert, got false"),
        ("vit-tiny", {"tied": True}, "tied: wanted false for vit, got true"),
    ],
)
def test_a_form_that_a_family_does_not_have_is_refused(
    name: str, change: dict[str, bool], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        replace(PRESETS[name], **change)  # type: ignore[arg-type]


def test_sizes_replace_those_of_a_preset() -> None:
    wider = resized(PRESETS["gpt2-tiny"], hidden=128, layers=3)
    assert (wider.layers, wider.hidden, wider.intermediate) == (3, 128, 512)
    assert wider.vocabulary == 256
    narrow = resized(PRESETS["gpt2-tiny"], hidden=128, intermediate=100)
    assert narrow.intermediate == 100


def test_positions_of_an_image_follow_its_patches() -> None:
    assert resized(PRESETS["vit-tiny"], patch_size=4).sequence_length == 5
    assert resized(PRESETS["vit-tiny"], image_size=16).sequence_length == 65


def _without_tying(shape: ModelShape) -> int:
    """What transformers 5 leaves out of T5: it ties the head although the weights do not."""
    untied = shape.family is Family.T5 and not shape.tied
    return shape.vocabulary * shape.hidden if untied else 0


def _transformers_model(shape: ModelShape) -> Any:
    """The same model as transformers builds it, without memory for its weights."""
    transformers = pytest.importorskip("transformers")
    sizes = {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
    }
    wide = {**sizes, "intermediate_size": shape.intermediate}
    positions = shape.sequence_length
    match shape.family:
        case Family.GPT2:
            config = transformers.GPT2Config(
                **sizes,
                n_positions=positions,
                n_inner=shape.intermediate,
                tie_word_embeddings=shape.tied,
            )
            return transformers.GPT2LMHeadModel(config)
        case Family.LLAMA:
            config = transformers.LlamaConfig(
                **wide,
                num_key_value_heads=shape.shared_heads,
                head_dim=shape.width_of_head,
                tie_word_embeddings=shape.tied,
            )
            return transformers.LlamaForCausalLM(config)
        case Family.BERT:
            config = transformers.BertConfig(**wide, max_position_embeddings=positions)
            return transformers.BertForMaskedLM(config)
        case Family.ROBERTA:
            config = transformers.RobertaConfig(
                **wide, max_position_embeddings=positions + 2, type_vocab_size=1
            )
            return transformers.RobertaForMaskedLM(config)
        case Family.T5:
            config = transformers.MT5Config(
                vocab_size=shape.vocabulary,
                d_model=shape.hidden,
                d_kv=shape.width_of_head,
                d_ff=shape.intermediate,
                num_layers=shape.layers,
                num_decoder_layers=shape.decoder_layers,
                num_heads=shape.heads,
            )
            return transformers.MT5ForConditionalGeneration(config)
        case Family.VIT:
            config = transformers.ViTConfig(
                **{key: value for key, value in wide.items() if key != "vocab_size"},
                image_size=shape.image_size,
                patch_size=shape.patch_size,
                num_channels=shape.channels,
                num_labels=shape.vocabulary,
            )
            return transformers.ViTForImageClassification(config)


# Two layers of the large ones: their blocks are all alike, and building them takes time.
@pytest.mark.parametrize("name", PRESETS)
def test_weights_are_those_that_transformers_counts(name: str) -> None:
    torch = pytest.importorskip("torch")
    stacks = {"layers": 2, **({"decoder_layers": 3} if PRESETS[name].decoder_layers else {})}
    shape = resized(PRESETS[name], **stacks)
    with torch.device("meta"):
        model = _transformers_model(shape)
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert shape.parameters == counted + _without_tying(shape)


def test_shared_keys_and_wide_heads_are_counted_as_transformers_does() -> None:
    torch = pytest.importorskip("torch")
    shape = resized(PRESETS["llama-tiny"], key_value_heads=1, head_width=32)
    with torch.device("meta"):
        model = _transformers_model(shape)
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
