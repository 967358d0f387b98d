"""What a job tells of its plan in passing."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from headrace.workloads.control import ControlFolder
from headrace.workloads.training import stopwatch
from headrace.workloads.training.observing import Observer
from headrace.workloads.training.stopwatch import FORWARD, GRADIENTS, OPTIMIZER
from headrace.workloads.training.world import World
from tests.workloads.attempts import Agent, a_manifest, until


def told(folder: Path) -> list[dict[str, Any]]:
    file = folder / "observations.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_a_job_tells_where_the_time_of_every_tenth_step_goes(agent: Agent, store: Path) -> None:
    run = agent.start(a_manifest(store, steps=400), 2, plan="dp2").reaches(12)
    run.ask_for("pp2.1f1b-ga4")
    until(lambda: len(run.changes()) == 1, lambda: run.units[0].output)
    run.reaches(run.changes()[0]["step"] + 25).stop()
    assert len(run.outcomes()) == 1
    found = told(run.units[0].folder)
    assert {each["plan"] for each in found} == {"dp2", "pp2.1f1b-ga4"}
    assert all(each["step"] % 10 == 0 for each in found)
    for each in found:
        assert 0 < each["forward"] < each["forward"] + each["backward_communication"]
        assert each["optimizer"] > 0
        assert each["iteration"] > 0
        assert each["peak_allocated"] > 0
    assert not told(run.units[1].folder), "only rank 0 tells"


class Steps:
    """A model whose steps take known times."""

    def __init__(self, plan: str, world: World) -> None:
        self.plan, self.world = plan, world
        self.stopwatch = stopwatch.Stopwatch(torch.device("cpu"))

    def step(self, observer: Observer, number: int) -> None:
        observer.before(self, number)  # type: ignore[arg-type]
        with self.stopwatch.part(GRADIENTS), self.stopwatch.part(FORWARD):
            pass
        observer.look()
        with self.stopwatch.part(OPTIMIZER):
            pass
        observer.after(float(number))


def test_the_first_steps_of_a_plan_are_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(1000))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(now)))
    world = World(dist.HashStore(), rank=0, size=1, device=torch.device("cpu"))
    try:
        observer = Observer(ControlFolder(tmp_path))
        first, second = Steps("dp1", world), Steps("dp1-gc", world)
        for number in range(1, 19):
            first.step(observer, number)
        for number in range(19, 32):
            second.step(observer, number)
    finally:
        world.part()
    one, other = told(tmp_path)
    assert (one["step"], one["plan"], one["steps"]) == (10, "dp1", 8)
    assert one["iteration"] == 6.5  # steps 3 to 10
    assert (one["forward"], one["backward_communication"], one["optimizer"]) == (1.0, 2.0, 1.0)
    # Step 20 is the second one under its plan.
    assert (other["step"], other["plan"], other["steps"]) == (30, "dp1-gc", 10)
