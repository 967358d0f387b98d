"""What a change of plan costs while the ranks stay, and from one rank to two and back.

Two ranks of this machine: GPUs if there are two, else CPU processes with a tiny model, which says
nothing about GPUs. The control plane does not order changes of size in memory yet; this measures
what the parts for it can do.

    python benchmarks/switches.py [--model gpt2-1.26b] [--global-batch 16]
"""

import argparse
import os
import socket
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import itertools

from headrace.api.models import PRESETS
from headrace.api.plan import ExecutionPlan
from headrace.workloads.training.families.build import FamilyBlueprint
from headrace.workloads.training.planned import PlannedModel
from headrace.workloads.training.samples import open_samples
from headrace.workloads.training.switching import Breakdown, carried, fill_initial, switched
from headrace.workloads.training.world import World

WALK = ["dp2-z2", "tp2", "dp2-z2", "pp2.1f1b-ga4", "tp2", "pp2.1f1b-ga4", "dp2-z2", "tp2", "dp2-z2"]
STEPS = 8


class Ranks:
    """One of two ranks, and what it trains."""

    def __init__(self, rank: int, port: int, given: argparse.Namespace) -> None:
        self.rank, self.batch = rank, given.global_batch
        self.on_gpu = torch.cuda.device_count() > 1
        self.device = torch.device("cuda", rank) if self.on_gpu else torch.device("cpu")
        if self.on_gpu:
            torch.cuda.set_device(self.device)
            torch.zeros(1, device=self.device)
        self.store = dist.TCPStore("127.0.0.1", port, None, rank == 0, wait_for_workers=False)
        self.shape = PRESETS[given.model]
        self.samples = open_samples("random", self.shape, 0)
        self.step = 0

    def world(self, name: str, size: int) -> World:
        store = dist.PrefixStore(name, self.store)
        return World(store, rank=self.rank, size=size, device=self.device)

    def laid_out(self, plan: str, world: World) -> PlannedModel:
        return PlannedModel(
            FamilyBlueprint(self.shape),
            ExecutionPlan.parse(plan),
            world,
            precision="bf16" if self.on_gpu else "fp32",
            global_batch_size=self.batch,
            weight_decay=0.01,
        )

    def trained(self, model: PlannedModel) -> tuple[float, float]:
        """Seconds of the first step, and the median of later ones."""
        seconds = []
        for _ in range(STEPS):
            began = time.monotonic()
            indices = torch.arange(self.batch) + self.step * self.batch
            inputs, targets = self.samples.batch(model.mine(indices % self.samples.count))
            loss = model.gradients(inputs.to(self.device), targets.to(self.device))
            told = model.world.summed([loss])
            model.update(1e-4)
            told.tolist()
            seconds.append(time.monotonic() - began)
            self.step += 1
        return seconds[0], statistics.median(seconds[2:])

    def say(self, change: str, seconds: float, parts: str, steps: tuple[float, float]) -> None:
        if self.rank == 0:
            still = seconds + max(0.0, steps[0] - steps[1])
            print(
                f"| {change} | {seconds:.2f} | {parts} | {steps[0]:.2f}, {steps[1]:.2f} "
                f"| {still:.2f} |",
                flush=True,
            )


def parts(took: Breakdown) -> str:
    each = (took.build, took.parameters, took.equip, took.moments)
    return " / ".join(f"{seconds:.2f}" for seconds in each)


def walk(ranks: Ranks) -> None:
    """Changes under ranks that stay."""
    world = ranks.world("walk", 2)
    model = ranks.laid_out(WALK[0], world)
    fill_initial(model, 0)
    ranks.trained(model)
    for before, plan in itertools.pairwise(WALK):
        model, took = switched(model, ExecutionPlan.parse(plan))
        ranks.say(f"{before} to {plan}", took.seconds, parts(took), ranks.trained(model))
    world.part()


def grow_and_shrink(ranks: Ranks) -> None:
    """One rank trains; a second one, which is ready, joins; then it goes."""
    old: PlannedModel | None = None
    if ranks.rank == 0:
        alone = ranks.world("alone", 1)
        old = ranks.laid_out("dp1", alone)
        fill_initial(old, 0)
        ranks.trained(old)
        ranks.store.set("joins", "now")
        began = time.monotonic()
        alone.part()
    else:
        ranks.store.wait(["joins"])
        began = time.monotonic()
    world = ranks.world("both", 2)
    joined = time.monotonic() - began
    start = time.monotonic()
    model = ranks.laid_out("dp2-z2", world)
    took = carried(old, model, time.monotonic() - start)
    ranks.step = int(max(world.gathered(ranks.step)))
    seconds = joined + took.seconds
    steps = ranks.trained(model)
    ranks.say(f"dp1 to dp2-z2 (joining {joined:.2f})", seconds, parts(took), steps)
    start = time.monotonic()
    model, took = switched(model, ExecutionPlan.parse("dp1"))
    world.let_go(1)
    seconds = time.monotonic() - start
    if ranks.rank == 0:
        ranks.say("dp2-z2 to dp1", seconds, parts(took), ranks.trained(model))


def run(rank: int, port: int, given: argparse.Namespace) -> None:
    ranks = Ranks(rank, port, given)
    if rank == 0:
        print(f"{given.model}, batch {given.global_batch}, {ranks.device.type}, two ranks\n")
        print("| change | s | build / weights / equip / moments | first, later steps | still |")
        print("|---|---|---|---|---|", flush=True)
    walk(ranks)
    grow_and_shrink(ranks)
    sys.stdout.flush()
    os._exit(0)  # whoever stays would wait for the group of those who went


def main() -> None:
    on_gpu = torch.cuda.device_count() > 1
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--model", choices=PRESETS, default="gpt2-1.26b" if on_gpu else "gpt2-tiny")
    parser.add_argument("--global-batch", type=int, default=16)
    given = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    mp.spawn(run, args=(port, given), nprocs=2)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
