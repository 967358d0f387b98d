"""A script that trains slowly until another job has come and gone, and then fast.

However long that takes on a busy machine, there are steps left when it is over; and a rank that
waits leaves its core to others.
"""

import threading

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own habit
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from headrace import train

STEPS_BEFORE = 70
"""Steps that are done soon, for the guest to come."""

_never_set = threading.Event()
_shrank: bool | None = None
"""Whether ranks have left; unknown before the first step."""


def net() -> nn.Module:
    """Learns something."""
    return nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))


def waves() -> TensorDataset:
    """Something to learn, and more noise than that: the loss jumps at no step but by chance."""
    chance = torch.Generator().manual_seed(5)
    at = torch.rand((512, 8), generator=chance) * 4 - 2
    noise = torch.randn((512, 1), generator=chance)
    return TensorDataset(at, at.sin().mean(dim=1, keepdim=True) + noise)


def step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The loss of each sample, after a while."""
    _never_set.wait(seconds(train.position()))
    return F.mse_loss(model(batch[0]), batch[1], reduction="none").mean(dim=1)


def seconds(now: train.Position) -> float:
    """How long to wait: hardly, once all ranks are there again."""
    global _shrank
    if now.data is None:  # it is only tried
        return 0.0
    if _shrank is None:
        _shrank = now.step > STEPS_BEFORE  # this rank has come for those that had left
    _shrank = _shrank or now.plan.ranks == 2
    if _shrank and now.plan.ranks > 2:
        return 0.0
    return 0.05 if now.step <= STEPS_BEFORE else 0.5


if __name__ == "__main__":
    train.run(net, waves(), step)
