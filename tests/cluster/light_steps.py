"""A script whose steps take time but hardly a core, as those of an accelerator do.

So ranks that train leave the cores to what is tried beside them: parts that come back, ranks that
start, nodes that are lost.
"""

import threading

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own habit
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from headrace import train

STEP_SECONDS = 0.04
_NEVER_SET = threading.Event()


def net() -> nn.Module:
    """Wide enough that it learns for as long as a test watches."""
    return nn.Sequential(
        nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1)
    )


def waves() -> TensorDataset:
    """Something to learn; each sample differs, so that a wrong order of the data shows."""
    at = torch.rand((512, 8), generator=torch.Generator().manual_seed(5)) * 4 - 2
    return TensorDataset(at, at.sin().sum(dim=1, keepdim=True))


def step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The loss of each sample, when the accelerator has it."""
    _NEVER_SET.wait(STEP_SECONDS)
    return F.mse_loss(model(batch[0]), batch[1], reduction="none").mean(dim=1)


if __name__ == "__main__":
    train.run(net, waves(), step)
