"""The model families: they learn, their parameters have one name each, and need nothing else."""

import gc
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from headrace.api.models import PRESETS, ModelShape, resized
from headrace.workloads.training.families.build import FamilyBlueprint, part_of
from headrace.workloads.training.families.part import Part
from headrace.workloads.training.samples import DIGITS, RANDOM, open_samples

TINY = sorted(name for name in PRESETS if name.endswith("-tiny"))
NAMES = Path(__file__).parents[1] / "fixtures" / "parameter_names.txt"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def a_part(shape: ModelShape, *, by_way_of_meta: bool = True) -> Part:
    with torch.device("meta" if by_way_of_meta else "cpu"):
        part = part_of(shape, 0, shape.layers)
    if by_way_of_meta:
        part.to_empty(device="cpu")
    with torch.no_grad():
        for name, parameter in part.named_parameters():
            size, device = tuple(parameter.shape), torch.device("cpu")
            parameter.copy_(FamilyBlueprint(shape).initial(name, size, seed=1, device=device))
    return part


def a_batch(shape: ModelShape, size: int = 4) -> tuple[Tensor, Tensor]:
    return open_samples(RANDOM, shape, 1).batch(torch.arange(size))


@pytest.mark.parametrize("name", TINY)
def test_a_tiny_model_learns(name: str) -> None:
    shape = PRESETS[name]
    samples = open_samples(DIGITS if shape.image_size else __file__, shape, 1)
    part = a_part(shape)
    optimiser = torch.optim.AdamW(part.parameters(), lr=3e-3)
    losses = []
    for step in range(30):
        inputs, targets = samples.batch((torch.arange(8) + 8 * step) % samples.count)
        loss = part.loss_sum(part(inputs), targets) / len(inputs)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) / 5 < 0.8 * sum(losses[:3]) / 3


def test_queries_of_t5_begin_as_small_as_the_library_draws_them() -> None:
    shape = PRESETS["t5-tiny"]
    spreads = {
        name: parameter.std().item()
        for name, parameter in a_part(shape).named_parameters()
        if name.endswith(("Attention.q.weight", "Attention.k.weight"))
    }
    assert len(spreads) == 2 * (shape.layers + 2 * shape.decoder_layers)
    for name, spread in spreads.items():
        smaller = shape.width_of_head**-0.5 if name.endswith("q.weight") else 1.0
        assert spread == pytest.approx(shape.hidden**-0.5 * smaller, rel=0.1), name


@pytest.mark.parametrize("name", TINY)
def test_memory_given_later_makes_the_same_model(name: str) -> None:
    shape = PRESETS[name]
    inputs, _ = a_batch(shape)
    later, at_once = a_part(shape), a_part(shape, by_way_of_meta=False)
    assert torch.equal(later(inputs), at_once(inputs))
    # Nothing but parameters has to be filled, and none of them twice.
    assert not list(later.buffers())
    names = [name for name, _ in later.named_parameters()]
    assert names == [name for name, _ in later.named_parameters(remove_duplicate=False)]


@pytest.mark.parametrize("name", TINY)
def test_blocks_computed_again_give_the_same_gradients(name: str) -> None:
    shape = PRESETS[name]
    inputs, targets = a_batch(shape)
    kept, again = a_part(shape), a_part(shape)
    again.recompute = True
    runs: Counter[Part] = Counter()
    for part in (kept, again):
        for block in part.units():
            inner = next(layer for layer in block.modules() if isinstance(layer, torch.nn.Linear))
            inner.register_forward_hook(lambda *_, part=part: runs.update([part]))
        part.loss_sum(part(inputs), targets).backward()  # type: ignore[no-untyped-call]
    blocks = shape.layers + shape.decoder_layers
    assert (runs[kept], runs[again]) == (blocks, 2 * blocks)
    for one, other in zip(kept.parameters(), again.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.equal(one.grad, other.grad)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_weights_are_as_many_as_the_shape_says(name: str) -> None:
    shape = PRESETS[name]
    with torch.device("meta"):
        part = part_of(shape, 0, shape.layers)
    assert sum(parameter.numel() for parameter in part.parameters()) == shape.parameters


def test_parameters_keep_their_names() -> None:
    """They are a contract with every stored checkpoint, in every release of transformers."""
    found = []
    for name in TINY:
        shape = resized(PRESETS[name], layers=1)
        with torch.device("meta"):
            part = part_of(shape, 0, 1)
        found += [f"{shape.family} {parameter}" for parameter, _ in part.named_parameters()]
    assert found == NAMES.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name", TINY)
def test_a_dropped_part_leaves_its_memory_at_once(name: str) -> None:
    shape = PRESETS[name]
    inputs, targets = a_batch(shape)
    part = a_part(shape)
    gc.collect()
    gc.disable()
    try:
        part.loss_sum(part(inputs), targets).backward()  # type: ignore[no-untyped-call]
        parameters = [weakref.ref(parameter) for parameter in part.parameters()]
        del part
        assert [left for left in parameters if left() is not None] == []
    finally:
        gc.enable()


@pytest.mark.parametrize("name", ["bert-tiny", "t5-tiny", "vit-tiny"])
def test_a_family_that_stays_whole_is_not_divided(name: str) -> None:
    with pytest.raises(ValueError, match="stays whole: wanted layers 0 to 2, got 0 to 1"):
        part_of(PRESETS[name], 0, 1)


@pytest.mark.parametrize(("first", "last"), [(0, 3), (1, 1), (-1, 2)])
def test_layers_that_are_not_there_are_refused(first: int, last: int) -> None:
    with pytest.raises(ValueError, match="wanted layers of 2"):
        part_of(PRESETS["gpt2-tiny"], first, last)


def test_only_counted_targets_count_and_each_sample_alike() -> None:
    shape = PRESETS["bert-tiny"]
    part = a_part(shape)
    inputs, targets = a_batch(shape, 2)
    targets[1, :20] = inputs[1, :20]  # the second sample has more targets than the first
    outputs = part(inputs)
    each = []
    for logits, wanted in zip(outputs, targets, strict=True):
        counted = wanted >= 0
        each.append(torch.nn.functional.cross_entropy(logits[counted], wanted[counted]))
    wanted_sum = torch.stack(each).sum().item()
    assert part.loss_sum(outputs, targets).item() == pytest.approx(wanted_sum, rel=1e-5)
