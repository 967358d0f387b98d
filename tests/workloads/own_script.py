"""A script as users write them: a small network with a constant, a frozen and a tied weight."""

import argparse
import os
import time
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own habit
from torch import Tensor, nn
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import ColwiseParallel
from torch.utils.data import default_collate

from headrace import train


class Squares:
    """A function to learn; a sample is a mapping, as data sets like to have it."""

    def __len__(self) -> int:
        return 96

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        at = torch.tensor([index / 96, 1 - index / 96])
        return {"at": at, "value": (4 * at[:1] - 2) ** 2}


class Net(nn.Module):
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(16))
        self.register_buffer("scale", torch.linspace(0.5, 1.5, 16))
        self.anchor = nn.Parameter(torch.ones(16), requires_grad=False)
        self.enter = nn.Linear(2, 16)
        self.turn, self.back = nn.Linear(16, 16), nn.Linear(16, 16)
        self.back.weight = self.turn.weight
        self.layers = nn.Sequential(*(nn.Linear(16, 16) for _ in range(3)))
        self.leave = nn.Linear(16, 1)

    def forward(self, at: Tensor) -> Tensor:
        x = torch.tanh(self.turn(self.enter(at)) * self.scale * self.anchor + self.shift)
        for layer in self.layers:
            x = x + torch.tanh(layer(x))
        found: Tensor = self.leave(self.back(x))
        return found


def step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return F.mse_loss(model(batch["at"]), batch["value"], reduction="none").mean(dim=1)


class Fragile:
    """A step that raises in one rank, after some steps."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        self.calls += 1
        if self.calls > 6 and "unit-1" in os.environ["HEADRACE_CONTROL_DIR"]:
            raise ValueError("the sky fell")
        return step(model, batch)


def wait_for_a_stop() -> None:
    stop = Path(os.environ["HEADRACE_CONTROL_DIR"], "stop")
    while not stop.exists():
        time.sleep(0.02)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--do", default="train")
    chosen = parser.parse_args()
    if chosen.do == "leave":
        return
    if chosen.do == "exit":
        raise SystemExit(3)
    if chosen.do == "wait":
        wait_for_a_stop()
    # Told to leave its outputs divided, a layer gives less than what it is added to.
    divided = ColwiseParallel(output_layouts=Shard(-1) if chosen.do == "halve" else Replicate())
    done = train.run(
        Net,
        Squares(),
        Fragile() if chosen.do == "fall" else step,
        tensor_parallel={"layers.*": divided},
    )
    if done.is_done:
        losses = step(done.model(), default_collate([Squares()[index] for index in range(96)]))
        print(f"rank {done.rank}: loss {losses.mean():.3f} after step {done.step}")


if __name__ == "__main__":
    main()
