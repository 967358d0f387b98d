"""A script that its author runs alone: what it is told, in its author's words."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from headrace import train

DATA = TensorDataset(torch.arange(30.0).view(10, 3) / 30)


def step(model: nn.Module, batch: Any) -> Tensor:
    (x,) = batch
    found: Tensor = model(x).square().mean(dim=1)
    return found


def trained(folder: Path | str, *, width: int = 3, steps: int = 3, **others: Any) -> train.Trained:
    settings = train.Settings(global_batch_size=4, steps=steps, checkpoints=str(folder), **others)
    return train.run(lambda: nn.Linear(3, width), DATA, step, settings=settings)


@pytest.mark.parametrize("steps", [3, 5])
def test_a_checkpoint_of_another_model_is_told_however_many_steps_it_has(
    tmp_path: Path, steps: int
) -> None:
    assert trained(tmp_path / "run", steps=3).is_done
    with pytest.raises(train.WorkloadError, match=r"is of another model.*keep the model's sizes"):
        trained(tmp_path / "run", steps=steps, width=5)
