"""Weights from a folder as the transformers library writes it, and folders that are refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from headrace.api.models import PRESETS, ModelShape
from headrace.workloads.refusal import WorkloadError
from headrace.workloads.training.families.build import part_of
from headrace.workloads.training.families.part import Part
from headrace.workloads.training.families.weights import StoredWeights, shape_in

VOCABULARY, POSITIONS = 50, 16
WIDE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
T5_SIZES = {"d_model": 32, "num_layers": 2, "num_heads": 4, "d_ff": 48, "d_kv": 8}
KINDS = ("gpt2", "llama", "bert", "roberta", "t5", "mt5", "vit")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def theirs(kind: str) -> Any:
    """A small model of the library with weights by chance, biases and gains too."""
    import transformers

    common = {**WIDE, "intermediate_size": 48, "vocab_size": VOCABULARY}
    match kind:
        case "gpt2":
            sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": POSITIONS}
            tokens = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0}
            model: Any = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **tokens))
        case "llama":
            rotary = {"max_position_embeddings": POSITIONS, "rope_theta": 500.0}
            config = transformers.LlamaConfig(**common, **rotary, num_key_value_heads=2)
            model = transformers.LlamaForCausalLM(config)
        case "bert":
            config = transformers.BertConfig(**common, max_position_embeddings=POSITIONS)
            model = transformers.BertForMaskedLM(config)
        case "roberta":
            rows = {"max_position_embeddings": POSITIONS + 2, "type_vocab_size": 1}
            model = transformers.RobertaForMaskedLM(transformers.RobertaConfig(**common, **rows))
        case "t5" | "mt5":
            config = transformers.T5Config(
                **T5_SIZES,
                vocab_size=VOCABULARY,
                feed_forward_proj="gated-gelu",
                tie_word_embeddings=False,
            )
            model = transformers.T5ForConditionalGeneration(config)
            if kind == "mt5":  # the head of its own that published weights have
                model.lm_head = nn.Linear(32, VOCABULARY, bias=False)
        case _:
            image = {"image_size": 8, "patch_size": 2, "num_channels": 1, "num_labels": 10}
            config = transformers.ViTConfig(**WIDE, intermediate_size=48, **image)
            model = transformers.ViTForImageClassification(config)
    chance = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.empty_like(parameter).normal_(0.0, 0.1, generator=chance))
    return model.eval()


def saved(model: Any, folder: Path) -> Path:
    """The folder with its ``config.json`` as published ones have it."""
    if "T5" in type(model).__name__:
        # The library would store one table for both, and say so.
        tensors = dict(model.named_parameters())
        save_file(
            {name: tensor.detach() for name, tensor in tensors.items()},
            folder / "model.safetensors",
        )
        config = {**model.config.to_dict(), "tie_word_embeddings": False}
        (folder / "config.json").write_text(json.dumps(config))
    else:
        model.save_pretrained(folder)
    return folder


def loaded(weights: StoredWeights, shape: ModelShape) -> Part:
    with torch.device("meta"):
        part = part_of(shape, 0, shape.layers)
    part.to_empty(device="cpu")
    ours = dict(part.named_parameters())
    with torch.no_grad():
        for name, tensor in weights.tensors():
            ours.pop(name).copy_(tensor)
    assert not ours
    return part


@torch.no_grad()
def both_logits(kind: str, model: Any, part: Part) -> tuple[Tensor, Tensor]:
    chance = torch.Generator().manual_seed(4)
    if kind == "vit":
        images = torch.rand((3, 1, 8, 8), generator=chance)
        return model(images).logits, part(images)
    # From 2 on: the library takes 0 or 1 for padding.
    tokens = torch.randint(2, VOCABULARY, (3, POSITIONS), generator=chance)
    if kind.endswith("t5"):
        halves = tokens.view(3, 2, POSITIONS // 2)
        given = {"input_ids": halves[:, 0], "decoder_input_ids": halves[:, 1]}
        return model(**given).logits, part(halves)
    return model(tokens).logits, part(tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_weights_give_the_same_logits(kind: str, tmp_path: Path) -> None:
    model = theirs(kind)
    folder = saved(model, tmp_path)
    shape = shape_in(folder)
    wanted, found = both_logits(kind, model, loaded(StoredWeights(folder, shape), shape))
    assert wanted.std() > 0.1
    assert torch.allclose(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_box_is_that_part_of_the_tensor(kind: str, tmp_path: Path) -> None:
    folder = saved(theirs(kind), tmp_path)
    weights = StoredWeights(folder, shape_in(folder))
    for name, whole in weights.tensors():
        assert tuple(whole.shape) == weights.shapes[name]
        box = (slice(3, 9), slice(2, 7))[: whole.ndim]
        assert torch.equal(weights.read(name, box), whole[box]), name


def test_a_head_that_is_stored_once_is_read_twice(tmp_path: Path) -> None:
    """As the transformers library of today stores T5 1.1, which it ties."""
    model = theirs("t5")
    model.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    shape = shape_in(tmp_path)
    wanted, found = both_logits("t5", model, loaded(StoredWeights(tmp_path, shape), shape))
    assert torch.allclose(found, wanted, atol=1e-5, rtol=1e-5)


def test_names_of_the_bare_model_and_of_tensorflow_are_known(tmp_path: Path) -> None:
    for kind, before, after in (
        ("gpt2", "transformer.", ""),
        ("bert", "LayerNorm.weight", "LayerNorm.gamma"),
    ):
        folder = tmp_path / kind
        folder.mkdir()
        model = theirs(kind)
        file = saved(model, folder) / "model.safetensors"
        renamed = {name.replace(before, after): tensor for name, tensor in load_file(file).items()}
        save_file(renamed, file)
        shape = shape_in(folder)
        wanted, found = both_logits(kind, model, loaded(StoredWeights(folder, shape), shape))
        assert torch.allclose(found, wanted, atol=1e-5, rtol=1e-5)


def test_sharded_files_are_read_and_a_missing_one_is_named(tmp_path: Path) -> None:
    model = theirs("gpt2")
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1
    shape = shape_in(tmp_path)
    wanted, found = both_logits("gpt2", model, loaded(StoredWeights(tmp_path, shape), shape))
    assert torch.allclose(found, wanted, atol=1e-5, rtol=1e-5)
    shards[1].unlink()
    with pytest.raises(WorkloadError, match=f"names {shards[1].name}, which .* does not have"):
        StoredWeights(tmp_path, shape)


@pytest.fixture
def gpt2_folder(tmp_path: Path) -> Path:
    return saved(theirs("gpt2"), tmp_path)


def test_tensors_that_are_missing_or_unknown_are_named(gpt2_folder: Path) -> None:
    shape = shape_in(gpt2_folder)
    file = gpt2_folder / "model.safetensors"
    tensors = load_file(file)
    del tensors["transformer.h.1.attn.c_attn.bias"]
    tensors["transformer.h.2.ln_1.bias"] = torch.zeros(32)
    save_file(tensors, file)
    with pytest.raises(
        WorkloadError,
        match=r"gpt2 of 2 layers .* without transformer\.h\.1\.attn\.c_attn\.bias, .*"
        r"1\.attn\.c_attn\.bias, .* and with transformer\.h\.2\.ln_1\.bias that it does not have",
    ):
        StoredWeights(gpt2_folder, shape)


def test_tensors_of_another_shape_are_named(gpt2_folder: Path) -> None:
    file = gpt2_folder / "model.safetensors"
    tensors = load_file(file)
    tensors["transformer.h.0.mlp.c_fc.weight"] = torch.zeros(32, 47)
    save_file(tensors, file)
    with pytest.raises(WorkloadError, match=r"c_fc\.weight \[32, 128\] but \[32, 47\]"):
        StoredWeights(gpt2_folder, shape_in(gpt2_folder))


def test_another_model_is_refused_though_its_tensors_fit(gpt2_folder: Path) -> None:
    config = gpt2_folder / "config.json"
    shape = shape_in(gpt2_folder)
    config.write_text(json.dumps({**json.loads(config.read_text()), "n_head": 8}))
    with pytest.raises(WorkloadError, match="heads 4 but 8; it is another model"):
        StoredWeights(gpt2_folder, shape)


def test_a_folder_without_weights_says_what_is_wanted(gpt2_folder: Path) -> None:
    shape = PRESETS["gpt2-tiny"]
    with pytest.raises(WorkloadError, match=r"there is no .*/nothing"):
        StoredWeights(gpt2_folder / "nothing", shape)
    shape = shape_in(gpt2_folder)
    file = gpt2_folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(WorkloadError, match=r"model\.safetensors cannot be read"):
        StoredWeights(gpt2_folder, shape)
    file.unlink()
    with pytest.raises(WorkloadError, match=r"wanted \*\.safetensors in .*, got none"):
        StoredWeights(gpt2_folder, shape)
    config = gpt2_folder / "config.json"
    config.write_text(json.dumps({"model_type": "mamba"}))
    with pytest.raises(WorkloadError, match=r"model_type: wanted one of gpt2, .*, got 'mamba'"):
        StoredWeights(gpt2_folder, shape)
    config.unlink()
    with pytest.raises(WorkloadError, match=r"got no config\.json"):
        StoredWeights(gpt2_folder, shape)
