"""A script whose rank has little room: samples that are taken at once do not fit, a few do.

Headrace runs it in the rank's own process, so the limit is the rank's.
"""

import resource
from pathlib import Path

import torch
from torch import Tensor, nn

from headrace import train

ROOM_BYTES = 1 << 30
"""Address space that is left to the rank: for threads, and for four samples."""
SAMPLE_BYTES = 64 << 20


def step(model: nn.Module, batch: tuple[Tensor]) -> Tensor:
    """The loss of each sample; its room is taken and never written to, which costs no time."""
    room = torch.empty(len(batch[0]), SAMPLE_BYTES, dtype=torch.uint8)
    losses: Tensor = (model(batch[0]) - len(room[0]) / SAMPLE_BYTES).square().mean(dim=1)
    return losses


if __name__ == "__main__":
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ROOM_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    train.run(lambda: nn.Linear(2, 1), torch.utils.data.TensorDataset(torch.rand(256, 2)), step)
