"""What authors get wrong is told in a sentence, before ranks are connected."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel
from torch.utils.data import TensorDataset

from headrace import train
from headrace.api.plan import ExecutionPlan
from headrace.workloads.refusal import WorkloadError
from headrace.workloads.training.own.data_set import OwnSamples
from headrace.workloads.training.own.model import block_names
from headrace.workloads.training.own.task import OwnTask
from headrace.workloads.training.spec import TrainingSpec

BATCH = 4
COLUMNS, ROWS = ColwiseParallel(), RowwiseParallel()


class Net(nn.Module):
    def __init__(self, normal: nn.Module | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(2))
        self.normal = normal or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = self.normal(layer(x))
        return x


def step(model: nn.Module, batch: Any) -> Tensor:
    (x,) = batch
    found: Tensor = model(x).square().mean(dim=1)
    return found


DATA = TensorDataset(torch.arange(30.0).view(10, 3))


def opened(
    model: Callable[[], Any] = Net,
    data: Any = DATA,
    step: Any = step,
    blocks: tuple[str, ...] | None = None,
    tensor_parallel: Any = None,
) -> OwnTask:
    """The task, looked at as a rank does before it starts."""
    spec = TrainingSpec.from_manifest(
        {
            "spec": {
                "training": {"globalBatchSize": BATCH, "steps": 3},
                "checkpoint": {"store": "store"},
            }
        }
    )
    task = OwnTask(model, data, step, blocks=blocks, tensor_parallel=tensor_parallel, spec=spec)
    task.blueprint()
    return task


class Unread:
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Tensor:
        raise FileNotFoundError("digits.bin")


class Dice:
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Tensor:
        return torch.tensor([random.random()] * 3)


class Counting(nn.Module):
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return x


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain


def _broken() -> nn.Module:
    raise KeyError("width")


def _forgetful() -> nn.Module:
    model = Net()
    model.spare = nn.Linear(3, 3)
    return model


def _tied() -> nn.Module:
    model = Net(nn.Linear(3, 3))
    model.layers[1].weight = model.normal.weight
    return model


def _raising(model: nn.Module, batch: Any) -> Tensor:
    raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {"data": TensorDataset(torch.ones(3, 3))},
            "data: wanted 4 samples or more, which is one global batch, got 3; use more data",
        ),
        (
            {"data": Unread()},
            r"data: wanted sample 0 of 10, got FileNotFoundError: digits.bin \(test",
        ),
        ({"data": Dice()}, "data: wanted the same sample whenever its index comes"),
        ({"data": ["a", "b", "c", "d"]}, "data: wanted samples made of tensors or numbers, got"),
        ({"data": iter([1, 2, 3])}, "data: wanted a data set with a length"),
        ({"model": _broken}, r"model: it cannot be built: KeyError: 'width' \(test_own.*line"),
        (
            {"model": Net()},
            r"model: wanted a function that makes the model, got the model .* lambda: Net\(",
        ),
        ({"model": lambda: 3}, "model: wanted a function that makes a torch.nn.Module"),
        ({"model": lambda: Net(nn.BatchNorm1d(3))}, r"got BatchNorm1d \(normal\).*take GroupNorm"),
        ({"model": lambda: Net().half()}, "model: wanted weights in float32"),
        ({"model": lambda: Net(Counting())}, "a step that changes normal.seen"),
        ({"model": _forgetful}, "got none from spare.weight, spare.bias; use it"),
        ({"step": _raising}, r"step: wanted the loss of each sample.*float32\[2, 3\].*shapes can"),
        ({"step": lambda m, b: step(m, b).mean()}, r"of shape \[2\].*got float32\[\]"),
        ({"step": lambda m, b: step(m, b).detach()}, "losses that depend on the model's"),
        ({"step": lambda m, b: step(m, b) / 0}, "step: wanted finite losses"),
        ({"step": lambda m, b: step(m, b) / len(b[0])}, "does not depend on the others"),
        ({"blocks": ("layer",)}, r"blocks: wanted names of submodules \(layers, normal"),
        (
            {"tensor_parallel": {"layer.*": COLUMNS}},
            r"submodules \(layers, normal\), got 'layer\.\*', which matches none",
        ),
        (
            {"tensor_parallel": {"layers.*.up": COLUMNS}},
            r"submodules \(layers\.0 has none\), got 'layers",
        ),
        (
            {"tensor_parallel": {"layers.*": COLUMNS, "layers.1": COLUMNS}},
            r"one style for each module, got 'layers\.\*' and 'layers\.1' for layers\.1",
        ),
        ({"tensor_parallel": {"layers.0": "column"}}, "wanted styles of torch.*got 'column' for"),
        (
            {"tensor_parallel": {"normal": COLUMNS}},
            "Linear or an Embedding for ColwiseParallel, got normal, which is a Identity",
        ),
        (
            {"model": _tied, "tensor_parallel": {"normal": COLUMNS}},
            "tensor_parallel: wanted parameters that belong to one module each, got layers.1.weigh",
        ),
    ],
)
def test_a_mistake_is_told(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(WorkloadError, match=sentence) as refused:
        opened(**given)
    assert "\n" not in refused.value.message


class Ragged:
    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> Tensor:
        if index == 26:
            raise FileNotFoundError("digits.bin")
        return torch.ones(index)


@pytest.mark.parametrize(
    ("indices", "sentence"),
    [
        ([21, 4, 26, 3], "wanted sample 26 of 30, got FileNotFoundError"),
        ([21, 4, 3], "wanted samples 21, 4, 3 of 30, made of tensors or numbers of one size"),
        ([9, 8, 7, 6, 5, 4, 3, 2, 1, 11], "samples 9, 8, 7, 6, 5, 4, 3, 2 and 2 more of 30"),
    ],
)
def test_samples_that_cannot_be_had_are_named(indices: list[int], sentence: str) -> None:
    samples = OwnSamples(Ragged(), at_least=1)
    with pytest.raises(WorkloadError, match=sentence):
        samples.of(indices)


@pytest.mark.parametrize(
    ("given", "plan", "sentence"),
    [
        ({}, "tp2", "wanted the layers that 2 tensor-parallel ranks divide, got none; say train.r"),
        ({"layers.0": COLUMNS}, "tp2", "wanted outputs of layers.0 that 2 tensor-parallel ranks d"),
        ({"layers.*": ROWS}, "dp2-tp2", "inputs of layers.0 that 2 tensor-parallel ranks divide, "),
        ({"layers.0": COLUMNS}, "tp3", ""),
        ({"layers.0": ColwiseParallel(output_layouts=Replicate())}, "tp2", ""),
        (
            {"layers.0": ColwiseParallel(output_layouts=Replicate())},
            "tp4",
            "wanted outputs of layers.0 that 4 tensor-parallel ranks divide, got 3; 1, 2, 3 would",
        ),
        ({"layers.0": COLUMNS}, "pp2.1f1b-ga2", "its step runs the whole model, so no rank can ho"),
        ({"layers.0": COLUMNS}, "tp3-z3", "wanted two replicas or more"),
    ],
)
def test_a_plan_that_the_model_cannot_have_is_told(
    given: dict[str, Any], plan: str, sentence: str
) -> None:
    blueprint = opened(tensor_parallel=given).blueprint()
    told = blueprint.problem_with(ExecutionPlan.parse(plan), BATCH)
    assert sentence in told
    assert bool(sentence) is bool(told)


def test_a_parameter_that_cannot_be_sharded_is_told_where_it_would_be() -> None:
    def model() -> nn.Module:
        net = Net()
        net.normal = Scaled()
        return net

    blueprint = opened(model).blueprint()
    assert blueprint.problem_with(ExecutionPlan.parse("dp2-z1"), BATCH) == ""
    told = blueprint.problem_with(ExecutionPlan.parse("dp2-z3"), BATCH)
    assert "which FSDP2 can shard, got normal.gain; make it so" in told
    assert told.endswith("or take dp2")


def test_a_step_may_ask_where_it_is_computed_and_nobody_else() -> None:
    found: list[train.Position] = []

    def asking(model: nn.Module, batch: Any) -> Tensor:
        found.append(train.position())
        return step(model, batch)

    opened(step=asking)
    assert {(str(at.plan), at.rank, at.data) for at in found} == {("dp1", 0, None)}
    with pytest.raises(WorkloadError, match="to be called from within a step, got a call outside"):
        train.position()


def test_what_is_right_is_taken() -> None:
    task = opened()
    assert task.samples().count == 10
    assert task.fingerprint() == opened().fingerprint()


def test_the_blocks_are_the_entries_of_the_largest_list() -> None:
    model = Net(nn.Sequential(nn.Linear(3, 1), nn.Linear(1, 3)))
    assert block_names(model, None) == ("layers.0", "layers.1")
    assert block_names(model, ()) == ()
    assert block_names(model, ("normal", "layers.1")) == ("normal.0", "normal.1", "layers.1")
    assert block_names(nn.Linear(2, 2), None) == ()


def test_blocks_that_share_a_parameter_are_no_blocks() -> None:
    model = _tied()
    assert block_names(model, None) == ()
    with pytest.raises(WorkloadError, match=r"got layers.1.weight that is normal.weight too"):
        block_names(model, ("layers",))


def test_settings_are_judged_as_a_manifest_is() -> None:
    with pytest.raises(WorkloadError, match=r"spec\.training\.precision: wanted 'fp32'"):
        train.Settings(global_batch_size=4, steps=1, checkpoints="out/x", precision="fp8").checked()
    spec, name = train.Settings(global_batch_size=4, steps=1, checkpoints="out/x").checked()
    assert (spec.store, name) == ("out", "x")


def test_without_headrace_settings_are_needed() -> None:
    with pytest.raises(WorkloadError, match="outside of a job of Headrace"):
        train.run(Net, DATA, step)
