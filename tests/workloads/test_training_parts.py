"""The parts of the trainer: data, order, models, optimiser, and other sizes of them."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from headrace.workloads.refusal import WorkloadError
from headrace.workloads.storage import LocalStorage, Storage, UrlStorage
from headrace.workloads.training import tensors
from headrace.workloads.training.models import PRESETS, build, sizes_of
from headrace.workloads.training.optimiser import BETA1, BETA2, FlatModel, Schedule
from headrace.workloads.training.order import SampleOrder, parts
from headrace.workloads.training.run import plan_for
from headrace.workloads.training.samples import Digits, open_samples
from headrace.workloads.training.spec import TrainingSpec
from tests.workloads.attempts import Agent, a_manifest


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def a_spec(model: str = "gpt", **training: Any) -> TrainingSpec:
    return TrainingSpec.from_manifest(a_manifest("store", model, **training))


def a_model(spec: TrainingSpec, *, empty: bool = False) -> FlatModel:
    return FlatModel(build(spec, image_side=8, classes=10, empty=empty), extra=3)


def test_the_digits_learn_and_are_read(agent: Agent, store: Path) -> None:
    manifest = a_manifest(store, "vit", globalBatchSize=64, steps=150, warmupSteps=20)
    run = agent.start(manifest, 2)
    found = run.exits()
    assert {end["outcome"] for end in found} == {"Succeeded"}
    losses = run.losses()
    assert losses[1] == pytest.approx(2.3, abs=0.3)  # guessing among ten
    assert sum(losses[step] for step in range(141, 151)) / 10 < 1.0
    accuracy = float(found[0]["message"].partition("%")[0])
    assert accuracy > 60


def test_bf16_trains_like_fp32_but_coarser(agent: Agent, store: Path) -> None:
    exact = agent.start(a_manifest(store, steps=20), uid="exact")
    coarse = agent.start(a_manifest(store, steps=20, precision="bf16"), 2, uid="coarse")
    assert exact.outcomes() == coarse.outcomes() == {("Succeeded", 20)}
    differences = [abs(coarse.losses()[n] - exact.losses()[n]) for n in range(1, 21)]
    assert 0 < max(differences) < 0.1


def test_the_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    theirs = load_digits()
    ours = Digits()
    images, labels = ours.held_out
    assert ours.count + len(labels) == len(theirs.target)
    assert labels.tolist() == theirs.target[::5].tolist()
    assert torch.equal(images * 16, torch.tensor(theirs.images[::5], dtype=torch.float32))


def test_the_standard_library_is_real_text_with_a_fingerprint() -> None:
    text = open_samples("python-stdlib", 64)
    inputs, targets = text.batch(torch.tensor([0, 5]))
    assert inputs.shape == targets.shape == (2, 64)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert text.count > 50_000
    assert text.fingerprint == open_samples("python-stdlib", 32).fingerprint
    assert b"import" in bytes(text.batch(torch.arange(500))[0].flatten().tolist())


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match=r"there is no .*nothing on this one"):
        open_samples(str(tmp_path / "nothing"), 64)


def test_every_epoch_takes_every_sample_once_and_steps_are_pure() -> None:
    order = SampleOrder(samples=10, global_batch_size=4, seed=3)
    steps = [order.of_step(step).tolist() for step in range(1, 11)]
    flat = [index for step in steps for index in step]
    for epoch in range(4):
        assert sorted(flat[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert flat[:10] != flat[10:20]
    again = SampleOrder(samples=10, global_batch_size=4, seed=3)
    for step in (7, 2, 9):
        assert again.of_step(step).tolist() == steps[step - 1]
    other = SampleOrder(samples=10, global_batch_size=4, seed=4)
    assert [other.of_step(step).tolist() for step in range(1, 11)] != steps


@pytest.mark.parametrize(("size", "count"), [(16, 4), (16, 3), (5, 8), (7, 1)])
def test_parts_cover_all_in_order(size: int, count: int) -> None:
    found = parts(torch.arange(size), count)
    assert torch.cat(found).tolist() == list(range(size))
    lengths = [len(part) for part in found]
    assert len(lengths) == count
    assert max(lengths) - min(lengths) <= 1


def test_the_schedule_rises_then_falls_to_a_tenth() -> None:
    schedule = Schedule(highest=1.0, warmup_steps=10, steps=110)
    rates = [schedule.rate(step) for step in range(1, 111)]
    assert rates[:10] == pytest.approx([n / 10 for n in range(1, 11)])
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[59] == pytest.approx(0.55)
    assert rates[-1] == pytest.approx(0.1)
    assert Schedule(1.0, 0, 1).rate(1) == pytest.approx(0.1)


@pytest.mark.parametrize("name", ["gpt", "vit"])
@pytest.mark.parametrize("preset", ["tiny", "small", "medium", "large"])
def test_every_preset_of_the_schema_has_sizes(name: str, preset: str) -> None:
    manifest = a_manifest("store", name)
    manifest["spec"]["model"] = {"name": name, "preset": preset}
    spec = TrainingSpec.from_manifest(manifest)
    sizes = PRESETS[name][preset]
    assert sizes.width % sizes.heads == 0
    assert sizes_of(spec).layers == sizes.layers
    assert build(spec, image_side=8, classes=10, empty=True)


def test_initial_weights_depend_on_the_seed_and_not_on_other_layers() -> None:
    once, again = a_model(a_spec()), a_model(a_spec())
    assert torch.equal(once.state, again.state)
    assert not torch.equal(once.state, a_model(a_spec(seed=8)).state)
    deeper = a_manifest("store")
    deeper["spec"]["model"]["config"]["layers"] = 3
    more = a_model(TrainingSpec.from_manifest(deeper)).state_dict()
    name = "model.blocks.1.attention.qkv.weight"
    assert torch.equal(more[name], once.state_dict()[name])
    assert not a_model(a_spec(), empty=True).state.any()


def test_the_update_is_that_of_torch() -> None:
    spec = a_spec()
    flat = a_model(spec)
    theirs = build(spec, image_side=8, classes=10, empty=False)
    groups = [
        {"params": [p for p in theirs.parameters() if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in theirs.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=0.01, betas=(BETA1, BETA2))
    generator = torch.Generator().manual_seed(1)
    wanted = dict(theirs.named_parameters())
    for _ in range(5):
        flat.gradients.normal_(generator=generator)
        for name, ours in flat.model.named_parameters():
            assert ours.grad is not None
            wanted[name].grad = ours.grad.clone()
        flat.update(0.01, 0.1)
        adamw.step()
    for name, ours in flat.model.named_parameters():
        assert torch.allclose(ours, wanted[name], atol=1e-6), name


@pytest.mark.parametrize("kind", ["path", "memory-url"])
def test_tensors_come_back_as_they_were(tmp_path: Path, kind: str) -> None:
    storage: Storage = LocalStorage(tmp_path)
    if kind == "memory-url":
        storage = UrlStorage(f"memory://{tmp_path.name}")
    spec = a_spec()
    flat = a_model(spec)
    flat.gradients.normal_(generator=torch.Generator().manual_seed(1))
    flat.update(0.01, 0.1)
    tensors.save(storage, "saved", flat.state_dict())
    loaded = a_model(spec, empty=True)
    tensors.load(storage, storage.location("saved"), loaded)
    assert torch.equal(loaded.state, flat.state)
    assert loaded.step == 1
    other = a_manifest("store")
    other["spec"]["model"]["config"]["width"] = 64
    with pytest.raises(WorkloadError, match="of another model"):
        tensors.load(storage, storage.location("saved"), a_model(TrainingSpec.from_manifest(other)))


def test_torch_itself_reads_the_state_by_its_own_names(tmp_path: Path) -> None:
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

    spec = a_spec()
    flat = a_model(spec)
    flat.gradients.fill_(0.5)
    flat.update(0.01, 0.1)
    tensors.save(LocalStorage(tmp_path), "saved", flat.state_dict())
    model = build(spec, image_side=8, classes=10, empty=False)
    adamw = torch.optim.AdamW(model.parameters())
    options = StateDictOptions(flatten_optimizer_state_dict=True)
    weights, states = get_state_dict(model, adamw, options=options)
    moments = {name: value for name, value in states.items() if name.startswith("state.")}
    assert moments
    wanted: dict[str, Any] = {"model": weights, "optimizer": moments}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no process group is as wanted
        dcp.load(wanted, checkpoint_id=tmp_path / "saved", no_dist=True)
    ours = flat.state_dict()
    for name, value in wanted["optimizer"].items():
        assert torch.equal(value, ours[f"optimizer.{name}"]), name
    for name, value in wanted["model"].items():
        assert torch.equal(value, ours[f"model.{name}"]), name


@pytest.mark.parametrize(
    ("ranks", "most", "plan"),
    [(1, None, "dp1"), (1, 4, "dp1-ga4"), (2, 4, "dp2-ga2"), (4, 4, "dp4"), (3, 4, "dp3-ga2")],
)
def test_a_plan_for_torchrun_respects_the_micro_batch(
    ranks: int, most: int | None, plan: str
) -> None:
    assert str(plan_for(a_spec(microBatchSizeMax=most), ranks)) == plan
