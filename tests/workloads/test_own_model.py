"""A model of the user's own as a rank holds it, in a world of one."""

from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from headrace.api.plan import ExecutionPlan
from headrace.workloads.training.batches import described, leaves, micro_batches
from headrace.workloads.training.own.model import OwnBlueprint, built
from headrace.workloads.training.planned import PlannedModel
from headrace.workloads.training.sharding import materialise
from headrace.workloads.training.switching import fill_initial
from headrace.workloads.training.world import World


class Block(nn.Linear):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        Block.calls += 1
        return super().forward(x)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(4, 4) for _ in range(3))
        self.frozen = nn.Parameter(torch.full((4,), 2.0), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(x)) * self.frozen
        return x


def step(model: nn.Module, x: Tensor) -> Tensor:
    found: Tensor = model(x).square().mean(dim=1)
    return found


@pytest.fixture
def world() -> Iterator[World]:
    found = World(dist.HashStore(), rank=0, size=1, device=torch.device("cpu"))
    yield found
    found.part()


def a_model(world: World, plan: str = "dp1", seed: int = 5) -> PlannedModel:
    blueprint = OwnBlueprint(built(Net, seed), lambda: built(Net, seed), step, seed=seed)
    model = PlannedModel(
        blueprint,
        ExecutionPlan.parse(plan),
        world,
        precision="fp32",
        global_batch_size=4,
        weight_decay=0.1,
    )
    fill_initial(model, seed)
    return model


def test_weights_depend_on_the_seed_alone(world: World) -> None:
    first = a_model(world).pieces()
    torch.rand(3)
    second, other = a_model(world).pieces(), a_model(world, seed=6).pieces()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(("plan", "times"), [("dp1", 1), ("dp1-gc", 2), ("dp1-ga2-gc", 4)])
def test_activation_checkpointing_computes_the_blocks_again(
    world: World, plan: str, times: int
) -> None:
    model = a_model(world, plan)
    Block.calls = 0
    model.gradients(torch.ones(4, 4), ())
    assert Block.calls == 3 * times


def test_what_is_frozen_stays_and_the_rest_learns(world: World) -> None:
    model = a_model(world)
    before = {name: piece.clone() for name, piece in model.pieces().items()}
    model.gradients(torch.ones(4, 4), ())
    model.update(0.01)
    after = model.pieces()
    assert torch.equal(after["model.frozen"], before["model.frozen"])
    assert not torch.equal(after["model.layers.0.weight"], before["model.layers.0.weight"])


def test_constants_go_where_it_computes_and_weights_where_they_live() -> None:
    def build() -> nn.Module:
        model = Net()
        model.register_buffer("scale", torch.ones(3))
        return model

    part = OwnBlueprint(built(build, 5), build, step, seed=5).part(0, 1)
    materialise(part, torch.device("cpu"), torch.device("meta"))
    assert {tensor.device.type for tensor in part.parameters()} == {"cpu"}
    assert {tensor.device.type for tensor in part.buffers()} == {"meta"}


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


def test_batches_of_any_form_are_divided_alike() -> None:
    numbers = torch.arange(6)
    batch = {"pair": Pair(numbers, -numbers), "list": [numbers.float()], "none": ()}
    first, second = micro_batches(batch, 2)
    assert isinstance(second["pair"], Pair)
    assert second["pair"].right.tolist() == [-3, -4, -5]
    assert first["list"][0].tolist() == [0.0, 1.0, 2.0]
    assert first["none"] == ()
    assert len(list(leaves(batch))) == 3
    assert described(batch) == "int64[6], int64[6], float32[6]"
