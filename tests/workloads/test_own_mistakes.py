"""What authors get wrong is told in a sentence, before ranks are connected."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from headrace import train
from headrace.workloads.refusal import WorkloadError
from headrace.workloads.training.own.model import block_names
from headrace.workloads.training.own.task import OwnTask
from headrace.workloads.training.spec import TrainingSpec

BATCH = 4


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
    task = OwnTask(model, data, step, blocks=blocks, spec=spec)
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


def _broken() -> nn.Module:
    raise KeyError("width")


def _forgetful() -> nn.Module:
    model = Net()
    model.spare = nn.Linear(3, 3)
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
        ({"data": Unread()}, r"data: wanted samples 0 of 10.*FileNotFoundError: digits.bin \(test"),
        ({"data": Dice()}, "data: wanted the same sample whenever its index comes"),
        ({"data": ["a", "b", "c", "d"]}, "data: wanted samples made of tensors or numbers, got"),
        ({"data": iter([1, 2, 3])}, "data: wanted a data set with a length"),
        ({"model": _broken}, r"model: it cannot be built: KeyError: 'width' \(test_own.*line"),
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
    ],
)
def test_a_mistake_is_told(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(WorkloadError, match=sentence) as refused:
        opened(**given)
    assert "\n" not in refused.value.message


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
    model = Net(nn.Linear(3, 3))
    model.layers[1].weight = model.normal.weight
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
