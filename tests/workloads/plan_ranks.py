"""One rank of the plan matrix: trains under many plans in one process, told by environment.

``python -m tests.workloads.plan_ranks``, or forked by ``zygote``. A *walk* is a list of plans; it
begins anew from the seed and changes the plan in memory, after the same number of steps each time.
"""

import json
import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from headrace.api.models import PRESETS, ModelShape, resized
from headrace.api.plan import ExecutionPlan
from headrace.workloads.training.blueprint import Blueprint
from headrace.workloads.training.families.build import FamilyBlueprint
from headrace.workloads.training.optimiser import Schedule
from headrace.workloads.training.order import SampleOrder
from headrace.workloads.training.planned import PlannedModel
from headrace.workloads.training.samples import Samples, open_samples
from headrace.workloads.training.switching import carried, fill_initial, switched
from headrace.workloads.training.world import World

GLOBAL_BATCH = 16
SEED = 7
SHAPES = {
    # Sizes that ranks and stages do not divide evenly.
    "gpt2": resized(PRESETS["gpt2-tiny"], layers=5, hidden=40, vocabulary=259, sequence_length=32),
    "llama": resized(PRESETS["llama-tiny"], hidden=32, sequence_length=32),
    "bert": resized(PRESETS["bert-tiny"], hidden=32, sequence_length=32),
    "roberta": resized(PRESETS["roberta-tiny"], hidden=32, sequence_length=32),
    "t5": resized(PRESETS["t5-tiny"], hidden=32, sequence_length=32),
    "vit": PRESETS["vit-tiny"],
}


class Training:
    """Steps of one model, whatever the plan."""

    def __init__(self, blueprint: Blueprint, samples: Samples, world: World) -> None:
        self._blueprint, self._samples, self.world = blueprint, samples, world
        self._order = SampleOrder(samples=samples.count, global_batch_size=GLOBAL_BATCH, seed=SEED)
        self._schedule = Schedule(3e-3, 5, 1000)

    @classmethod
    def of(cls, shape: ModelShape, world: World) -> "Training":
        """Of a built-in model."""
        source = "digits" if shape.family == "vit" else "python-stdlib"
        return cls(FamilyBlueprint(shape), open_samples(source, shape, SEED), world)

    def laid_out(self, plan: ExecutionPlan) -> PlannedModel:
        """The model, still without memory."""
        return PlannedModel(
            self._blueprint,
            plan,
            self.world,
            precision="fp32",
            global_batch_size=GLOBAL_BATCH,
            weight_decay=0.01,
        )

    def begun(self, plan: ExecutionPlan) -> PlannedModel:
        """The model at step 0."""
        model = self.laid_out(plan)
        fill_initial(model, SEED)
        return model

    def losses(self, model: PlannedModel, steps: int, first: int) -> list[float]:
        """Train some steps; ranks that the plan does not use only listen."""
        found = []
        for step in range(first, first + steps):
            loss = torch.zeros(())
            if model.is_member:
                inputs, targets = self._samples.batch(model.mine(self._order.of_step(step)))
                loss = model.gradients(inputs, targets)
                expect_gradients_once(model)
            found += self.world.summed([loss]).tolist()
            if model.is_member:
                model.update(self._schedule.rate(step))
        return found

    def walked(self, plans: list[str], steps: int) -> list[float]:
        """Losses along a walk."""
        model: PlannedModel | None = None
        found: list[float] = []
        for text in plans:
            plan = ExecutionPlan.parse(text)
            model = self.begun(plan) if model is None else switched(model, plan)[0]
            found += self.losses(model, steps, len(found) + 1)
        return found


def expect_gradients_once(model: PlannedModel) -> None:
    """Nothing holds on to DDP's buckets of the steps before."""
    if model.plan.ranks > model.plan.data_parallel or model.plan.zero_stage > 1:
        return
    real, work = model._real.values(), model._work.values()
    sizes = {
        each.grad.untyped_storage().data_ptr(): each.grad.untyped_storage().nbytes()
        for each in (*real, *work)
        if each.grad is not None
    }
    assert sum(sizes.values()) < 1.2 * sum(each.nbytes for each in real), "gradients are held twice"


def joined_and_left(
    store: dist.Store, rank: int, shape: ModelShape, plans: list[str], steps: int
) -> list[float]:
    """Losses of rank 0: alone, with a second rank that joins, and alone again when it has gone."""
    alone, both, again = map(ExecutionPlan.parse, plans)
    device = torch.device("cpu")
    found: list[float] = []
    old: PlannedModel | None = None
    if rank == 0:
        first = World(dist.PrefixStore("alone", store), rank=0, size=1, device=device)
        training = Training.of(shape, first)
        old = training.begun(alone)
        found += training.losses(old, steps, 1)
        first.part()
    world = World(dist.PrefixStore("both", store), rank=rank, size=2, device=device)
    training = Training.of(shape, world)
    model = training.laid_out(both)
    carried(old, model)
    found += training.losses(model, steps, model.step + 1)
    model, _ = switched(model, again)
    world.let_go(1)
    return found + training.losses(model, steps, model.step + 1) if rank == 0 else []


def main() -> int:
    """Train what the environment tells; rank 0 writes the losses."""
    warnings.simplefilter("ignore")
    asked: dict[str, Any] = json.loads(os.environ["TEST_WALKS"])
    rank, port = int(os.environ["TEST_RANK"]), int(os.environ["TEST_PORT"])
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, None, rank == 0, wait_for_workers=False)
    shape = SHAPES[asked["model"]]
    if not asked["joins"]:
        world = World(store, rank=rank, size=asked["ranks"], device=torch.device("cpu"))
        training = Training.of(shape, world)
    with Path(os.environ["TEST_OUTPUT"] + f".{rank}").open("w") as output:
        for walk in asked["walks"]:
            try:
                if asked["joins"]:
                    losses = joined_and_left(store, rank, shape, walk, asked["steps"])
                else:
                    losses = training.walked(walk, asked["steps"])
                line = {"walk": walk, "losses": losses}
            except Exception:
                line = {"walk": walk, "error": traceback.format_exc()}
            output.write(json.dumps(line) + "\n")
            output.flush()
            if "error" in line:
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
