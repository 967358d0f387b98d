"""config.json of Hugging Face: what is read, under which names, and what is refused."""

from typing import Any

import pytest

from headrace.api.models import PRESETS, Family, ModelShape

# As the files of the published weights have them, without what says nothing of the shape.
PUBLISHED: dict[str, dict[str, Any]] = {
    "gpt2-1.5b": {
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "attn_pdrop": 0.1,
        "layer_norm_epsilon": 1e-05,
        "n_ctx": 1024,
        "n_embd": 1600,
        "n_head": 25,
        "n_layer": 48,
        "n_positions": 1024,
        "vocab_size": 50257,
    },
    "llama-2-7b": {
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "max_position_embeddings": 4096,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 32,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "vocab_size": 32000,
    },
    "bert-336m": {
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "position_embedding_type": "absolute",
        "type_vocab_size": 2,
        "vocab_size": 30522,
    },
    "roberta-355m": {
        "model_type": "roberta",
        "hidden_act": "gelu",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": 514,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "pad_token_id": 1,
        "type_vocab_size": 1,
        "vocab_size": 50265,
    },
    "t5-1.2b": {
        "model_type": "mt5",
        "d_ff": 2816,
        "d_kv": 64,
        "d_model": 1024,
        "dropout_rate": 0.1,
        "feed_forward_proj": "gated-gelu",
        "is_encoder_decoder": True,
        "layer_norm_epsilon": 1e-06,
        "num_decoder_layers": 24,
        "num_heads": 16,
        "num_layers": 24,
        "relative_attention_num_buckets": 32,
        "tie_word_embeddings": False,
        "vocab_size": 250112,
    },
    "vit-86m": {
        "model_type": "vit",
        "hidden_act": "gelu",
        "hidden_size": 768,
        "id2label": {str(label): "" for label in range(1000)},
        "image_size": 224,
        "intermediate_size": 3072,
        "layer_norm_eps": 1e-12,
        "num_attention_heads": 12,
        "num_channels": 3,
        "num_hidden_layers": 12,
        "patch_size": 16,
        "qkv_bias": True,
    },
}
BY_FAMILY = {PRESETS[name].family: config for name, config in PUBLISHED.items()}


def read(family: Family, **changes: Any) -> ModelShape:
    config = {**BY_FAMILY[family], **changes}
    return ModelShape.from_hugging_face({k: v for k, v in config.items() if v != "absent"})


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_are_the_presets(name: str) -> None:
    assert ModelShape.from_hugging_face(PUBLISHED[name]) == PRESETS[name]


def test_a_size_is_read_under_each_of_its_names() -> None:
    shape = read(
        Family.GPT2,
        n_embd="absent",
        hidden_size=1600,
        n_layer="absent",
        num_hidden_layers=48,
        n_head="absent",
        num_attention_heads=25,
        n_positions="absent",
        n_ctx="absent",
        max_position_embeddings=1024,
    )
    assert shape == PRESETS["gpt2-1.5b"]


def test_what_is_left_out_has_its_default() -> None:
    assert read(Family.GPT2, n_inner=None).intermediate == 6400
    assert read(Family.LLAMA, num_key_value_heads="absent").shared_heads == 32
    assert read(Family.T5, num_decoder_layers="absent").decoder_layers == 24
    assert read(Family.VIT, num_labels=10, id2label="absent").vocabulary == 10


def test_the_first_t5_has_no_gate_and_a_tied_head() -> None:
    left_out = {"feed_forward_proj": "absent", "tie_word_embeddings": "absent"}
    first = read(Family.T5, model_type="t5", **left_out)
    assert (first.gated, first.tied) == (False, True)
    later = read(Family.T5, model_type="mt5", **left_out)
    assert (later.gated, later.tied) == (True, False)


def test_newer_files_say_by_another_key_that_a_head_of_t5_is_not_tied() -> None:
    for scaled in (False, True):
        newer = read(Family.T5, tie_word_embeddings=True, scale_decoder_outputs=scaled)
        assert newer.tied is scaled
    with pytest.raises(ValueError, match="scale_decoder_outputs: wanted true or false, got 1"):
        read(Family.T5, scale_decoder_outputs=1)


def test_llama_shares_keys_and_widens_heads() -> None:
    shape = read(Family.LLAMA, num_key_value_heads=8, head_dim=64)
    assert (shape.key_value_heads, shape.head_width) == (8, 64)


@pytest.mark.parametrize(
    "where",
    [
        {"rope_theta": 500_000.0},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0}},
        {"rope_theta": 500_000.0, "rope_parameters": {"rope_type": "default"}},
    ],
)
def test_the_rotary_base_is_found_where_old_and_new_files_have_it(where: dict[str, Any]) -> None:
    assert read(Family.LLAMA, **where).rope_base == 500_000.0


@pytest.mark.parametrize(
    ("family", "changes", "told"),
    [
        (Family.GPT2, {"model_type": "opt"}, "wanted one of gpt2, llama, bert, roberta, t5, vit"),
        (Family.GPT2, {"model_type": "absent"}, "or mt5, got None"),
        (Family.GPT2, {"activation_function": "relu"}, "wanted gelu_new or gelu_pytorch_tanh"),
        (Family.GPT2, {"scale_attn_by_inverse_layer_idx": True}, "got True; Headrace's gpt2 does"),
        (Family.GPT2, {"scale_attn_weights": False}, "scale_attn_weights: wanted True for gpt2"),
        (Family.GPT2, {"quantization_config": {"bits": 4}}, "quantization_config: wanted None"),
        (Family.GPT2, {"n_embd": "absent"}, "wanted hidden_size or n_embd or d_model, got a conf"),
        (Family.GPT2, {"n_embd": 0}, "n_embd: wanted a whole number of 1 or more, got 0"),
        (Family.GPT2, {"n_embd": "big"}, "n_embd: wanted a whole number of 1 or more, got 'big'"),
        (Family.GPT2, {"n_layer": True}, "n_layer: wanted a whole number of 1 or more, got True"),
        (Family.GPT2, {"hidden_size": 8}, "one size under all its names, got hidden_size=8, n_em"),
        (Family.GPT2, {"n_head": 7}, "heads: wanted a divisor of the hidden width 1600, got 7"),
        (Family.GPT2, {"layer_norm_epsilon": "x"}, "layer_norm_epsilon: wanted a number above 0"),
        (Family.GPT2, {"tie_word_embeddings": "no"}, "tie_word_embeddings: wanted true or false"),
        (Family.LLAMA, {"hidden_act": "gelu"}, "hidden_act: wanted silu or swish for llama"),
        (Family.LLAMA, {"attention_bias": True}, "attention_bias: wanted False for llama"),
        (Family.LLAMA, {"rope_scaling": {"type": "linear", "factor": 2}}, "does not scale rotary"),
        (Family.LLAMA, {"rope_parameters": {"rope_type": "llama3"}}, "rope_parameters: wanted nu"),
        (Family.LLAMA, {"rope_scaling": 2.0}, "rope_scaling: wanted an object or null, got 2.0"),
        (Family.BERT, {"position_embedding_type": "relative_key"}, "wanted absolute for bert"),
        (Family.BERT, {"is_decoder": True}, "is_decoder: wanted False for bert, got True"),
        (Family.BERT, {"type_vocab_size": 1}, "type_vocab_size: wanted 2 for bert, got 1"),
        (Family.ROBERTA, {"type_vocab_size": 2}, "type_vocab_size: wanted 1 for roberta, got 2"),
        (Family.ROBERTA, {"pad_token_id": 0}, "pad_token_id: wanted 1 for roberta, got 0"),
        (Family.T5, {"feed_forward_proj": "gated-silu"}, "wanted gated-gelu or relu for mt5"),
        (Family.T5, {"is_encoder_decoder": False}, "is_encoder_decoder: wanted True for mt5"),
        (Family.VIT, {"image_size": [224, 112]}, "image_size: wanted a square, got [224, 112]"),
        (Family.VIT, {"qkv_bias": False}, "qkv_bias: wanted True for vit, got False"),
        (Family.VIT, {"id2label": "absent"}, "wanted num_labels, got a configuration without"),
    ],
)
def test_what_our_modules_do_not_compute_is_refused(
    family: Family, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the sentence is looked at below
        read(family, **changes)
    assert told in str(caught.value)


@pytest.mark.parametrize("family", Family)
def test_what_transformers_writes_is_read(family: Family) -> None:
    transformers = pytest.importorskip("transformers")
    config = dict(BY_FAMILY[family])
    written = transformers.AutoConfig.for_model(config.pop("model_type"), **config).to_dict()
    if family is Family.T5:
        # transformers 5 ties the head of every T5, which the published weights do not.
        written["tie_word_embeddings"] = False
    shape = ModelShape.from_hugging_face(written)
    expected = ModelShape.from_hugging_face(BY_FAMILY[family])
    assert shape == expected
