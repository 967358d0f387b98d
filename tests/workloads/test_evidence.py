"""Tables of measured plans: written, read again, drawn."""

import json
import xml.dom.minidom
from pathlib import Path

import pytest

from benchmarks import evidence
from headrace.api.memory import estimated_peak_bytes
from headrace.api.models import PRESETS
from headrace.api.plan import ExecutionPlan
from headrace.api.profile_rows import LinkRow, Machine, PlanRow, Row, Status, flat

MODEL = "gpt2-1.26b"
MACHINE = Machine("NVIDIA H100 80GB HBM3", 16, "2.11.0", "13.0", "2.28", "580.1", "not installed")
PLANS = ("dp2", "tp2", "dp2-z3")


def rows() -> list[Row]:
    asked = evidence.asked_of(MODEL, 2)
    measured: list[Row] = [
        PlanRow(
            asked,
            plan,
            Status.MEASURED,
            "2",
            parameters=1_257_000_000,
            steps=10,
            iteration=0.1 + index,
            forward=0.03,
            backward_communication=0.06,
            optimizer=0.01,
            offload=0.0,
            peak_process=30 * 2**30,
            machine=MACHINE,
            date="2026-11-26T21:00:00+00:00",
        )
        for index, plan in enumerate(PLANS)
    ]
    reason = 'CUDA out of memory, "2.00 GiB" <wanted>'
    lost = PlanRow(asked, "dp2-gc", Status.OUT_OF_MEMORY, "2", reason=reason, machine=MACHINE)
    return [*measured, lost, LinkRow("all-reduce", 2, 2**26, 0.001, 350e9, MACHINE)]


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    evidence.write(table, rows())
    assert evidence.read(table) == rows()
    evidence.write(tmp_path / "none.csv", [])
    assert evidence.read(tmp_path / "none.csv") == []


def test_a_picture_shows_every_plan_with_its_estimate(tmp_path: Path) -> None:
    evidence.write(tmp_path / f"plans-{MODEL}.csv", rows()[:-1])
    picture = evidence.draw(MODEL, tmp_path).read_text()
    xml.dom.minidom.parseString(picture)
    for plan in (*PLANS, "dp2-gc"):
        assert f">{plan}</text>" in picture
    needed = estimated_peak_bytes(
        PRESETS[MODEL], ExecutionPlan.parse("dp2"), 16, precision="bf16"
    ).accelerator_bytes
    assert f"30.0 / {needed / 2**30:.1f}" in picture
    assert "out-of-memory: CUDA out of memory" in picture


def test_the_lists_of_plans_are_fixed() -> None:
    for model in evidence.TASKS:
        for gpus in (1, 2):
            assert 7 <= len(evidence.plans_of(model, gpus)) <= 24


def test_what_takes_long_comes_last() -> None:
    plans = [ExecutionPlan.parse(plan) for plan in evidence.plans_of(MODEL, 1)]
    last = plans[-1]
    assert (plans[0].offload, last.offload) == (False, True)
    assert last.accumulation_steps == max(plan.accumulation_steps for plan in plans)


def test_plans_that_were_not_begun_are_marked_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ranks were ended while they worked on the second plan."""
    first, *others = evidence.plans_of(MODEL, 1)
    asked = evidence.asked_of(MODEL, 1)

    def run(_asked: object, _plans: object, _seconds: float, file: Path) -> None:
        row = PlanRow(asked, first, Status.MEASURED, iteration=0.1, machine=MACHINE)
        file.write_text(json.dumps(flat(row)) + "\n")

    monkeypatch.setattr(evidence, "_run", run)
    assert evidence.measure(MODEL, [1], 100.0, tmp_path) == len(others)
    table = evidence.read(tmp_path / f"plans-{MODEL}.csv")
    found = {row.plan: row for row in table if isinstance(row, PlanRow)}
    assert found[first].status is Status.MEASURED
    assert {found[plan].status for plan in others} == {Status.NOT_MEASURED}
    assert found[others[0]].machine is None
    assert found[others[0]].parameters > 1e9
