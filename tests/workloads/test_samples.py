"""The data: what each family is given to learn from, and what is refused."""

from pathlib import Path

import pytest
import torch

from headrace.api.models import PRESETS, ModelShape, resized
from headrace.workloads.refusal import WorkloadError
from headrace.workloads.training.samples import DIGITS, RANDOM, SPECIAL, open_samples

TEXT = bytes(range(256)) * 40


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "text"
    path.write_bytes(TEXT)
    return str(path)


def short(name: str) -> ModelShape:
    return resized(PRESETS[name], sequence_length=20)


@pytest.mark.parametrize("name", ["gpt2-tiny", "llama-tiny"])
def test_a_language_model_predicts_the_next_byte(text: str, name: str) -> None:
    samples = open_samples(text, short(name), 1)
    inputs, targets = samples.batch(torch.tensor([0, 3]))
    assert samples.count == (len(TEXT) - 1) // 20
    assert bytes(inputs[1].tolist()) == TEXT[60:80]
    assert bytes(targets[1].tolist()) == TEXT[61:81]


@pytest.mark.parametrize("name", ["bert-tiny", "roberta-tiny"])
def test_the_same_15_percent_are_masked_whenever_a_sample_comes(text: str, name: str) -> None:
    samples = open_samples(text, short(name), 1)
    inputs, targets = samples.batch(torch.tensor([0, 3, 500]))
    masked = inputs == SPECIAL
    assert masked.sum(dim=1).tolist() == [3, 3, 3]
    assert torch.equal(masked, targets >= 0)
    restored = torch.where(masked, targets, inputs)
    assert bytes(restored[1].tolist()) == TEXT[60:80]
    assert (targets[~masked] == -100).all()
    again = samples.batch(torch.tensor([500, 3]))
    assert torch.equal(again[0], inputs[[2, 1]])
    assert torch.equal(again[1], targets[[2, 1]])
    assert not torch.equal(masked[0], masked[1])
    other = open_samples(text, short(name), 2).batch(torch.tensor([0, 3, 500]))
    assert not torch.equal(other[0], inputs)


def test_a_decoder_predicts_the_second_half_from_the_first(text: str) -> None:
    samples = open_samples(text, short("t5-tiny"), 1)
    assert samples.count == len(TEXT) // 40
    inputs, targets = samples.batch(torch.tensor([2]))
    assert inputs.shape == (1, 2, 20)
    assert bytes(inputs[0, 0].tolist()) == TEXT[80:100]
    assert bytes(targets[0].tolist()) == TEXT[100:120]
    assert inputs[0, 1].tolist() == [SPECIAL, *TEXT[100:119]]


def test_digits_have_a_channel() -> None:
    samples = open_samples(DIGITS, PRESETS["vit-tiny"], 1)
    inputs, targets = samples.batch(torch.tensor([0, 1]))
    assert inputs.shape == (2, 1, 8, 8)
    assert targets.tolist() == [1, 2]


@pytest.mark.parametrize("name", ["gpt2-124m", "bert-336m", "t5-1.2b", "vit-86m"])
def test_random_samples_are_of_the_models_full_size(name: str) -> None:
    shape = PRESETS[name]
    samples = open_samples(RANDOM, shape, 1)
    indices = torch.tensor([7, 65535])
    inputs, targets = samples.batch(indices)
    again = open_samples(RANDOM, shape, 1)
    assert samples.count == 65536
    assert again.fingerprint == samples.fingerprint
    assert torch.equal(again.batch(indices)[0], inputs)
    assert torch.equal(again.batch(indices)[1], targets)
    assert not torch.equal(inputs[0], inputs[1])
    assert targets.max() < shape.vocabulary
    if name.startswith("vit"):
        assert inputs.shape == (2, 3, 224, 224)
    else:
        assert inputs.shape[-1] == targets.shape[-1] == shape.sequence_length
        assert shape.vocabulary * 0.9 < inputs.max() < shape.vocabulary
    other = open_samples(RANDOM, shape, 2)
    assert other.fingerprint != samples.fingerprint
    assert not torch.equal(other.batch(indices)[0], inputs)


@pytest.mark.parametrize(
    ("name", "source", "sizes", "refusal"),
    [
        ("vit-tiny", "python-stdlib", {}, "wanted digits or random for vit, got python-stdlib"),
        ("vit-tiny", DIGITS, {"image_size": 16}, "of 16-pixel images of 1$"),
        ("vit-tiny", DIGITS, {"vocabulary": 9}, "got one for 9 classes"),
        ("gpt2-tiny", DIGITS, {}, "got digits, which are images"),
        ("gpt2-tiny", __file__, {"vocabulary": 255}, "vocabulary of 256 or more, got 255"),
        ("bert-tiny", RANDOM, {"vocabulary": 256}, "vocabulary of 257 or more, got 256"),
        ("t5-tiny", __file__, {"sequence_length": 10**6}, "wanted 2000000 bytes of text or more"),
        ("bert-tiny", "no-such-place", {}, "there is no no-such-place on this one"),
    ],
)
def test_what_a_model_cannot_learn_from_is_refused(
    name: str, source: str, sizes: dict[str, int], refusal: str
) -> None:
    with pytest.raises(WorkloadError, match=refusal):
        open_samples(source, resized(PRESETS[name], **sizes), 1)


def test_a_small_vocabulary_does_for_chance() -> None:
    shape = resized(PRESETS["gpt2-tiny"], vocabulary=16)
    inputs, _ = open_samples(RANDOM, shape, 1).batch(torch.arange(4))
    assert set(inputs.flatten().tolist()) == set(range(16))
