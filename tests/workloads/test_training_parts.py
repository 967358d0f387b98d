"""The parts of the trainer: data, order, initial weights, schedule, tensors in a store."""

import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint import FileSystemWriter

from headrace.api.models import PRESETS, resized
from headrace.api.plan import ExecutionPlan
from headrace.workloads.refusal import WorkloadError
from headrace.workloads.storage import LocalStorage, Storage, UrlStorage
from headrace.workloads.training import tensors
from headrace.workloads.training.families.build import FamilyBlueprint, part_of
from headrace.workloads.training.optimiser import Schedule
from headrace.workloads.training.order import SampleOrder
from headrace.workloads.training.planned import PlannedModel
from headrace.workloads.training.samples import Digits, open_samples
from headrace.workloads.training.spec import TrainingSpec
from headrace.workloads.training.switching import fill_initial, switched
from headrace.workloads.training.world import World
from tests.workloads.attempts import Agent, a_manifest


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


SHAPE = resized(PRESETS["gpt2-tiny"], hidden=32, sequence_length=32)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A world of this process alone."""
    found = World(dist.HashStore(), rank=0, size=1, device=torch.device("cpu"))
    yield found
    found.part()


def a_model(
    world: World, plan: str = "dp1", *, empty: bool = False, seed: int = 7, **sizes: int
) -> PlannedModel:
    model = PlannedModel(
        FamilyBlueprint(resized(SHAPE, **sizes)),
        ExecutionPlan.parse(plan),
        world,
        precision="fp32",
        global_batch_size=4,
        weight_decay=0.1,
    )
    if not empty:
        fill_initial(model, seed)
    return model


def trained(model: PlannedModel) -> PlannedModel:
    """The model after one more step."""
    inputs, targets = open_samples("python-stdlib", SHAPE, 7).batch(torch.arange(4))
    model.gradients(inputs, targets)
    model.update(0.01)
    return model


def _equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    assert ours.keys() == theirs.keys()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def a_spec(**training: Any) -> TrainingSpec:
    return TrainingSpec.from_manifest(a_manifest("store", **training))


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
    assert torch.equal(
        images.squeeze(1) * 16, torch.tensor(theirs.images[::5], dtype=torch.float32)
    )


def test_the_standard_library_is_real_text_with_a_fingerprint() -> None:
    text = open_samples("python-stdlib", resized(SHAPE, sequence_length=64), 7)
    inputs, targets = text.batch(torch.tensor([0, 5]))
    assert inputs.shape == targets.shape == (2, 64)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert text.count > 50_000
    assert text.fingerprint == open_samples("python-stdlib", SHAPE, 7).fingerprint
    assert b"import" in bytes(text.batch(torch.arange(500))[0].flatten().tolist())


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match=r"there is no .*nothing on this one"):
        open_samples(str(tmp_path / "nothing"), SHAPE, 7)


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


def test_the_schedule_rises_then_falls_to_a_tenth() -> None:
    schedule = Schedule(highest=1.0, warmup_steps=10, steps=110)
    rates = [schedule.rate(step) for step in range(1, 111)]
    assert rates[:10] == pytest.approx([n / 10 for n in range(1, 11)])
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[59] == pytest.approx(0.55)
    assert rates[-1] == pytest.approx(0.1)
    assert Schedule(1.0, 0, 1).rate(1) == pytest.approx(0.1)


def test_initial_weights_depend_on_the_seed_and_not_on_other_layers(world: World) -> None:
    once, again = a_model(world), a_model(world)
    assert _equal(once.pieces(), again.pieces())
    assert not _equal(once.pieces(), a_model(world, seed=8).pieces())
    more = a_model(world, layers=3).pieces()
    name = "blocks.1.attention.query.weight"
    assert torch.equal(more[name], once.pieces()[name])


@pytest.mark.parametrize("kind", ["path", "memory-url"])
def test_tensors_come_back_as_they_were(world: World, tmp_path: Path, kind: str) -> None:
    storage: Storage = LocalStorage(tmp_path)
    if kind == "memory-url":
        storage = UrlStorage(f"memory://{tmp_path.name}")
    model = trained(a_model(world))
    before = {name: piece.clone() for name, piece in model.pieces().items()}
    saving = tensors.save_begun(storage, "saved", model)
    trained(model)  # what is written is the state of the moment at which it was begun
    saving.wait()
    loaded = a_model(world, empty=True)
    tensors.load(storage, storage.location("saved"), loaded, model.step - 1)
    assert _equal(loaded.pieces(), before)
    assert loaded.step == 1
    assert not _equal(model.pieces(), before)


class Replica:
    """A world of which this process is one rank, as far as laying out a model asks it."""

    device = torch.device("cpu")

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def mesh(self, plan: ExecutionPlan) -> None:
        """None is needed where DDP runs the plan."""


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """What torch was given to write, by save."""
    found: list[dict[str, Tensor]] = []

    class Writer(FileSystemWriter):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            assert self.per_thread_copy_ahead == 0  # or it would wait for all that a GPU has to do

        def write_data(self, plan: Any, planner: Any) -> Any:
            items = plan.items
            found.append({item.index.fqn: planner.resolve_data(item) for item in items})
            return super().write_data(plan, planner)

    monkeypatch.setattr("torch.distributed.checkpoint.FileSystemWriter", Writer)
    return found


def _memory_of(tensors: dict[str, Tensor]) -> dict[str, int]:
    return {
        name: tensor.untyped_storage().data_ptr()
        for name, tensor in tensors.items()
        if not name.endswith(".step")
    }


def test_later_saves_use_the_memory_of_the_first_until_the_plan_is_left(
    world: World, tmp_path: Path, handed: list[dict[str, Tensor]]
) -> None:
    storage, model = LocalStorage(tmp_path), a_model(world)
    for name in ("first", "second"):
        tensors.save_begun(storage, name, trained(model)).wait()
    first, second = map(_memory_of, handed)
    assert first == second
    assert not {piece.data_ptr() for piece in model.pieces().values()} & set(first.values())
    gone = [weakref.ref(tensor) for tensor in model.staging.stage(dict(handed[0])).values()]
    handed.clear()
    switched(model, ExecutionPlan.parse("dp1-gc"))
    assert not any(each() is not None for each in gone)


def test_with_offload_the_state_itself_is_written_before_training_goes_on(
    world: World, tmp_path: Path, handed: list[dict[str, Tensor]]
) -> None:
    storage, model = LocalStorage(tmp_path), trained(a_model(world, "dp1-z2-offload"))
    saving = tensors.save_begun(storage, "saved", model)
    assert saving.is_over
    there = {piece.untyped_storage().data_ptr() for piece in model.pieces().values()}
    assert set(_memory_of(handed[0]).values()) == there
    before = {name: piece.clone() for name, piece in model.pieces().items()}
    trained(model)
    saving.wait()
    loaded = a_model(world, empty=True)
    tensors.load(storage, storage.location("saved"), loaded, 1)
    assert _equal(loaded.pieces(), before)


def test_replicas_copy_and_write_half_each() -> None:
    replicas = [a_model(cast("World", Replica(rank)), "dp2", empty=True) for rank in (0, 1)]
    one, other = (model.saved() for model in replicas)
    sizes = {name: box.elements for name, box in replicas[0].boxes().items()}
    assert one | other == set(sizes)
    assert not one & other
    half = sum(sizes.values()) / 2
    assert sum(sizes[name] for name in one) == pytest.approx(half, rel=0.01)


def test_a_checkpoint_of_another_model_is_refused(world: World, tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    tensors.save_begun(storage, "saved", a_model(world)).wait()
    tensors.check(storage, storage.location("saved"), a_model(world, empty=True).shapes)
    wider = a_model(world, empty=True, hidden=64)
    with pytest.raises(WorkloadError, match=r"of another model: for model\.\S+ wanted size"):
        tensors.check(storage, storage.location("saved"), wider.shapes)


def test_torch_itself_reads_the_state_by_its_own_names(world: World, tmp_path: Path) -> None:
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

    ours = trained(a_model(world))
    tensors.save_begun(LocalStorage(tmp_path), "saved", ours).wait()
    theirs = part_of(SHAPE, 0, SHAPE.layers)
    adamw = torch.optim.AdamW(theirs.parameters())
    options = StateDictOptions(flatten_optimizer_state_dict=True)
    weights, states = get_state_dict(theirs, adamw, options=options)
    moments = {name: value for name, value in states.items() if name.startswith("state.")}
    assert moments
    wanted: dict[str, Any] = {"model": weights, "optimizer": moments}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no process group is as wanted
        dcp.load(wanted, checkpoint_id=tmp_path / "saved", no_dist=True)
    pieces = ours.pieces()
    for name, value in wanted["model"].items():
        assert torch.equal(value, pieces[name]), name
    for name, value in wanted["optimizer"].items():
        _, _, rest = name.partition(".")
        parameter, _, kind = rest.rpartition(".")
        found = torch.tensor(1.0) if kind == "step" else pieces[f"{parameter}|{kind}"]
        assert torch.equal(value, found), name
