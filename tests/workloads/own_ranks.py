"""One rank that trains models of a user's own under tensor-parallel plans: all cases in one process
group, told by environment. Forked by ``zygote``.
"""

import json
import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812 - torch's own habit
from torch import Tensor, nn
from torch.distributed.tensor import Shard
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel
from torch.utils.data import TensorDataset

from headrace import train
from headrace.workloads.refusal import WorkloadError
from headrace.workloads.training.own.data_set import OwnSamples
from headrace.workloads.training.own.model import OwnBlueprint, built
from headrace.workloads.training.own.trial_together import tried_together
from headrace.workloads.training.world import World
from tests.workloads.plan_ranks import GLOBAL_BATCH, SEED, Training

WIDTH, CLASSES, STEPS, RANKS = 8, 10, 2, 4
PAIRS = {"layers.*.up": ColwiseParallel(), "layers.*.down": RowwiseParallel()}
LOSS_IN_PARTS = {"head": ColwiseParallel(output_layouts=Shard(-1), use_local_output=False)}


class Block(nn.Module):
    """A perceptron, with something of each kind between its two layers."""

    def __init__(self, *, gain: bool, mean: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.gain = nn.Parameter(torch.ones(1)) if gain else None
        self.mean = mean

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.tanh(self.up(self.norm(x)))
        if self.gain is not None:
            inner = inner * self.gain
        if self.mean:
            inner = inner - inner.mean(dim=-1, keepdim=True)
        found: Tensor = self.down(inner)
        return x + found


class Net(nn.Module):
    """Tells classes of points."""

    def __init__(self, *, gain: bool = False, mean: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.enter = nn.Linear(2, WIDTH)
        self.layers = nn.ModuleList(Block(gain=gain, mean=mean) for _ in range(2))
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for layer in self.layers:
            x = self.drop(layer(x))
        found: Tensor = self.head(x)
        return found


def points() -> TensorDataset:
    at = torch.rand((96, 2), generator=torch.Generator().manual_seed(5)) * 6 - 3
    return TensorDataset(at, (at.sum(dim=1).abs() % CLASSES).long())


positions: list[train.Position] = []


def step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    positions.append(train.position())
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


class Case:
    """A walk through plans, of a net and styles."""

    def __init__(
        self,
        *plans: str,
        styles: Mapping[str, ParallelStyle] = PAIRS,
        steps: int = STEPS,
        **net: Any,
    ) -> None:
        self._plans, self._styles, self._steps, self._net = plans, styles, steps, net

    def losses(self, world: World) -> list[float]:
        def build() -> nn.Module:
            return built(lambda: Net(**self._net), SEED)

        samples = OwnSamples(points(), at_least=GLOBAL_BATCH)
        blueprint = OwnBlueprint(build(), build, step, None, self._styles, seed=SEED)
        tried_together(build, step, samples, blueprint.styles, world)
        return Training(blueprint, samples, world).walked(list(self._plans), self._steps)


WALK = ("dp2", "tp2", "dp2", "dp2-tp2-z2", "tp4-ga2-gc", "dp2-tp2-z3-gc")
CASES = {
    "alone": Case("dp1", styles={}, steps=len(WALK) * STEPS),
    "divided": Case(*WALK),
    "loss in parts": Case("tp4", styles={**PAIRS, **LOSS_IN_PARTS}),
    "dropout alone": Case("dp1", styles={}, dropout=0.5),
    "dropout": Case("tp4", dropout=0.5),
    "mean of a part": Case(mean=True),
    "whole parameter between": Case(gain=True),
    "half of a pair": Case(styles={"layers.*.up": ColwiseParallel()}),
}


def main() -> int:
    """Train all cases; each rank writes losses, or the sentence that it was told."""
    warnings.simplefilter("ignore")
    rank, port = int(os.environ["TEST_RANK"]), int(os.environ["TEST_PORT"])
    torch.set_num_threads(1)
    torch.manual_seed(rank)  # whoever came later has drawn other numbers
    store = dist.TCPStore("127.0.0.1", port, None, rank == 0, wait_for_workers=False)
    world = World(store, rank=rank, size=RANKS, device=torch.device("cpu"))
    found: dict[str, Any] = {}
    for name, case in CASES.items():
        try:
            found[name] = case.losses(world)
        except WorkloadError as error:
            found[name] = error.message
    found["positions"] = [
        [str(at.plan), at.rank, at.replica, at.slice, at.step] for at in positions
    ]
    Path(f"{os.environ['TEST_OUTPUT']}.{rank}").write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
