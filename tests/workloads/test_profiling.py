"""Plans measured for real, on two ranks with gloo."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from headrace.api.models import PRESETS, resized
from headrace.api.plan import ExecutionPlan
from headrace.api.profile_file import rows_in
from headrace.api.profile_rows import Asked, LinkRow, PlanRow, Row, Status
from headrace.api.profiling_command import profiling_command
from headrace.workloads.machine import free_host_bytes
from headrace.workloads.profiling import session
from headrace.workloads.profiling.measuring import Length, Measuring
from headrace.workloads.profiling.session import Clock, Session, Task
from headrace.workloads.training.samples import open_samples
from headrace.workloads.training.world import World

SHAPE = resized(PRESETS["gpt2-tiny"], hidden=32, sequence_length=16)
BATCH = 8


def _plan_rows(rows: list[Row]) -> dict[str, PlanRow]:
    return {row.plan: row for row in rows if isinstance(row, PlanRow)}


@pytest.mark.process
def test_two_ranks_measure_plans_through_the_switch_path(tmp_path: Path) -> None:
    plans = ["dp2", "tp2", "pp2.1f1b-ga2", "dp2-z2-offload", "dp2-ga3", "dp4"]
    asked = Asked("gpt2-tiny", 2, BATCH, 16, "fp32")
    output = tmp_path / "rows.jsonl"
    command = profiling_command(asked, plans, seconds=200, output=output)
    # The server's packages and the command line's are not needed, nor those of the schema.
    blocked = "import sys; sys.modules.update(dict.fromkeys(['pydantic', 'typer', 'grpc', 'rich']))"
    (tmp_path / "sitecustomize.py").write_text(blocked)
    subprocess.run(
        [*command, "--steps=3", "--warmup=1"],
        check=True,
        timeout=200,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
    )
    rows = rows_in(output)
    found = _plan_rows(rows)
    assert {row.link for row in rows if isinstance(row, LinkRow)} == {
        "all-reduce",
        "point-to-point",
    }
    assert [found[plan].status for plan in plans] == [Status.MEASURED] * 4 + [Status.INFEASIBLE] * 2
    assert found["dp2"].switch is None
    for plan in plans[1:4]:
        row = found[plan]
        assert row.switch is not None
        assert row.stood_still is not None
        assert row.stood_still >= row.switch
    for plan in plans[:4]:
        row = found[plan]
        assert row.steps >= 3
        assert row.iteration is not None
        assert row.forward
        assert row.backward_communication
        assert row.optimizer
        assert row.peak_process
        assert row.asked == asked


class Alone:
    """Sessions of this process alone."""

    def __init__(self, world: World, file: Path) -> None:
        self.world, self.file = world, file
        self.seconds = 0.0

    def run(
        self, plans: list[str], *, limit: float = 1e9, plan_seconds: float = 1e9
    ) -> dict[str, PlanRow]:
        """A session whose clock goes on by a second whenever it is asked."""

        def since_start() -> float:
            self.seconds += 1
            return self.seconds

        asked = Asked("gpt2-tiny", 1, BATCH, SHAPE.sequence_length, "fp32")
        parsed = [ExecutionPlan.parse(plan) for plan in plans]
        task = Task(asked, SHAPE, parsed, Length(1, 3, plan_seconds), self.file)
        batch = open_samples("random", SHAPE, 1).batch(torch.arange(BATCH))
        Session(task, self.world, dist.HashStore(), batch, Clock(since_start, limit)).run()
        return _plan_rows(rows_in(self.file))


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Alone]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    world = World(dist.HashStore(), rank=0, size=1, device=torch.device("cpu"))
    try:
        yield Alone(world, tmp_path / "rows.jsonl")
    finally:
        world.part()
        torch.set_num_threads(threads)


def test_what_there_is_no_time_for_is_told_and_measured_by_the_next_run(alone: Alone) -> None:
    plans = ["dp1", "dp1-gc", "dp1-ga2"]
    first = alone.run(plans, limit=12)
    assert first["dp1"].status is Status.MEASURED
    assert first["dp1-ga2"].status is Status.NOT_MEASURED
    second = alone.run(plans)
    assert [second[plan].status for plan in plans] == [Status.MEASURED] * 3
    assert second["dp1"] == first["dp1"]


def test_a_third_run_measures_nothing(alone: Alone) -> None:
    alone.run(["dp1"])
    size = alone.file.stat().st_size
    alone.run(["dp1"])
    assert alone.file.stat().st_size == size


def test_a_plan_without_memory_ends_nothing(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Measuring.of

    def of(self: Measuring, model: object, length: Length) -> dict[str, object]:
        if str(model.plan) == "dp1-ga2":  # type: ignore[attr-defined]
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(self, model, length)  # type: ignore[arg-type]

    monkeypatch.setattr(Measuring, "of", of)
    found = alone.run(["dp1", "dp1-ga2", "dp1-gc", "dp1-ga4"])
    assert found["dp1-ga2"].status is Status.OUT_OF_MEMORY
    assert "CUDA out of memory" in found["dp1-ga2"].reason
    assert found["dp1-gc"].status is Status.MEASURED
    assert found["dp1-gc"].switch is None, "there was no state to come from"
    assert found["dp1-ga4"].switch is not None


def test_a_plan_that_cannot_be_changed_to_is_begun_anew(
    alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def switched(model: object, plan: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(session, "switched", switched)
    found = alone.run(["dp1", "dp1-gc"])
    assert found["dp1-gc"].status is Status.MEASURED
    assert found["dp1-gc"].switch is None
    told = [json.loads(line)["status"] for line in alone.file.read_text().splitlines()]
    assert told == ["measured", "switch-failed", "measured"]


def test_ranks_that_ended_without_a_word_leave_a_row(alone: Alone) -> None:
    board = dist.HashStore()
    board.set("begun", "dp1-gc")
    asked = Asked("gpt2-tiny", 1, BATCH, SHAPE.sequence_length, "fp32")
    batch = open_samples("random", SHAPE, 1).batch(torch.arange(BATCH))
    task = Task(asked, SHAPE, [ExecutionPlan.parse("dp1-gc")], Length(1, 3, 1e9), alone.file)
    Session(task, alone.world, board, batch, Clock(lambda: 0.0, 1.0)).run()
    (row,) = rows_in(alone.file)
    assert isinstance(row, PlanRow)
    assert row.status is Status.FAILED
    assert "ended without a word" in row.reason
    assert session.plan_begun(board) == session.NO_PLAN


def test_a_slow_plan_is_taken_apart_while_it_is_timed(alone: Alone) -> None:
    row = alone.run(["dp1-ga2"], plan_seconds=0.0)["dp1-ga2"]
    assert row.steps == 3
    assert row.iteration is not None
    assert row.forward
    assert row.backward_communication
    assert row.optimizer
    assert row.forward + row.backward_communication + row.optimizer <= 1.5 * row.iteration


def test_ranks_that_do_not_move_are_given_up_and_others_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "_STUCK_SECONDS", 0.05)
    given_up: list[ExecutionPlan] = []
    is_given_up = threading.Event()

    def give_up(plan: ExecutionPlan) -> None:
        given_up.append(plan)
        is_given_up.set()

    watch = session._Watch(give_up)
    plan = ExecutionPlan.parse("dp2")
    with watch.over(plan):
        for _ in range(20):
            watch.has_moved()
            assert not is_given_up.wait(0.005)
        assert is_given_up.wait(5)
    assert given_up == [plan]


def test_what_a_cgroup_uses_already_is_not_free_but_for_what_only_caches(tmp_path: Path) -> None:
    for name, told in (
        ("memory.max", "5000000"),
        ("memory.current", "3000000"),
        ("memory.stat", "anon 2000000\ninactive_file 400000\nactive_file 600000\n"),
    ):
        (tmp_path / name).write_text(f"{told}\n")
    assert free_host_bytes(tmp_path) == 2_400_000
    whole = free_host_bytes(tmp_path / "none")
    (tmp_path / "memory.max").write_text("max\n")
    assert free_host_bytes(tmp_path) > whole / 2 > 2_400_000
