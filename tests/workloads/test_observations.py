"""What a job tells of its plan in passing."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.distributed as dist

from headrace.api.model_choice import chosen_shape
from headrace.api.plan import ExecutionPlan
from headrace.api.profile_rows import Asked, PlanRow, row_of, step_flops, unsound_in
from headrace.workloads.control import ControlFolder
from headrace.workloads.machine import Memory
from headrace.workloads.training import stopwatch
from headrace.workloads.training.observing import Observer
from headrace.workloads.training.stopwatch import FORWARD, GRADIENTS, OPTIMIZER
from headrace.workloads.training.world import World
from tests.workloads.attempts import Agent, a_manifest, until

ASKED = Asked("", 0, 16, 32, "fp32")


def told(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "changes.jsonl").read_text().splitlines()]


def rows(lines: list[dict[str, Any]]) -> list[PlanRow]:
    found = [row_of(line) for line in lines]
    assert all(isinstance(row, PlanRow) and not unsound_in(row) for row in found)
    return [row for row in found if isinstance(row, PlanRow)]


def test_a_job_tells_what_its_plans_take(agent: Agent, store: Path) -> None:
    run = agent.start(a_manifest(store, steps=400), 2, plan="dp2").reaches(12)
    run.ask_for("pp2.1f1b-ga4")
    until(lambda: len(run.changes()) == 1, lambda: run.units[0].output)
    run.reaches(run.changes()[0]["step"] + 25).stop()
    assert len(run.outcomes()) == 1
    lines = run.observed()
    found = rows(lines)
    assert {row.plan for row in found} == {"dp2", "pp2.1f1b-ga4"}
    assert all(line["observed"] % 10 == 0 for line in lines)
    sizes = {"numHiddenLayers": 2, "hiddenSize": 32, "numAttentionHeads": 2}
    shape = chosen_shape("gpt2", "tiny", sizes, sequence_length=32)
    for row in found:
        assert (row.asked, row.parameters) == (replace(ASKED, accelerators=2), shape.parameters)
        assert None not in (row.forward, row.backward_communication, row.iteration)
        assert 0 < row.forward < row.forward + row.backward_communication  # type: ignore[operator]
        assert row.optimizer
        assert row.iteration_lower <= row.iteration <= row.iteration_upper  # type: ignore[operator]
        assert row.steps >= 5
        assert row.offload == 0.0
        assert row.tokens_rate == 16 * 32 / row.iteration  # type: ignore[operator]
        assert row.flops_rate == step_flops(shape, 16, 32) / row.iteration / 2  # type: ignore[operator]
        assert row.peak_allocated == row.peak_process == row.host
        assert row.machine is not None
        assert row.machine.device == "cpu"
        assert row.machine.torch == torch.__version__
    assert not (run.units[1].folder / "changes.jsonl").exists(), "only rank 0 tells"


class Steps:
    """A model whose steps take known times."""

    blueprint = None
    shapes: ClassVar = {"weight": (4, 8), "bias": (8,)}

    def __init__(self, plan: str, world: World) -> None:
        self.plan, self.world = ExecutionPlan.parse(plan), world
        self.stopwatch = stopwatch.Stopwatch(torch.device("cpu"))

    def step(self, observer: Observer, number: int) -> None:
        observer.before(self, number)  # type: ignore[arg-type]
        with self.stopwatch.part(GRADIENTS), self.stopwatch.part(FORWARD):
            pass
        observer.look()
        with self.stopwatch.part(OPTIMIZER):
            pass
        observer.after(float(number))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """One rank, where every look at the clock is a second after the one before."""
    now = iter(range(100_000))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(now)))
    found = World(dist.HashStore(), rank=0, size=1, device=torch.device("cpu"))
    yield found
    found.part()


def an_observer(folder: Path) -> Observer:
    return Observer(ControlFolder(folder), ASKED, Memory(torch.device("cpu")))


def test_the_first_steps_of_a_plan_are_not_looked_at(tmp_path: Path, world: World) -> None:
    observer = an_observer(tmp_path)
    first, second = Steps("dp1", world), Steps("dp1-offload", world)
    for number in range(1, 19):
        first.step(observer, number)
    for number in range(19, 32):
        second.step(observer, number)
    lines = told(tmp_path)
    one, other = rows(lines)
    assert [line["observed"] for line in lines] == [10, 30]  # 20 is the second step of its plan
    assert (one.plan, one.steps, one.parameters) == ("dp1", 8, 40)
    # Steps 3 to 10, which take as many seconds.
    assert (one.iteration_lower, one.iteration, one.iteration_upper) == (4.75, 6.5, 8.25)
    assert (one.forward, one.backward_communication, one.optimizer) == (1.0, 2.0, 1.0)
    assert (other.plan, other.steps, other.offload) == ("dp1-offload", 10, None)
    assert other.flops_rate is None, "what a script's model computes is not known"


def test_it_tells_less_and_less_often_also_if_it_goes_to_and_fro(
    tmp_path: Path, world: World
) -> None:
    observer = an_observer(tmp_path)
    stay = Steps("dp1", world)
    for number in range(1, 1302):
        stay.step(observer, number)
    lines = told(tmp_path)
    assert [line["observed"] for line in lines] == [10, 20, 40, 80, 160, 320, 640, 1280]
    assert [row.steps for row in rows(lines)] == [8, 10, 20, 40, 80, 160, 320, 640]
    for turn in range(32):
        plan = Steps("dp1" if turn % 2 else "dp1-gc", world)
        for number in range(100):
            plan.step(observer, 1400 + 100 * turn + number)
    again = [line["plan"] for line in told(tmp_path)[len(lines) :]]
    assert (again.count("dp1"), again.count("dp1-gc")) == (1, 8), "of 32 stays"


def test_of_many_steps_the_last_thousand_count(tmp_path: Path, world: World) -> None:
    observer, stay = an_observer(tmp_path), Steps("dp1", world)
    for number in range(1, 2562):
        stay.step(observer, number)
    last = rows(told(tmp_path))[-1]
    assert (last.steps, last.iteration) == (1000, 2060.5)
