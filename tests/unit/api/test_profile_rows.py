"""Rows of a profile, and what is counted in them."""

import json
from pathlib import Path

import pytest

from headrace.api.models import PRESETS
from headrace.api.profile_file import rows_in
from headrace.api.profile_rows import (
    Asked,
    LinkRow,
    Machine,
    PlanRow,
    Status,
    flat,
    latest,
    peak_flops,
    row_of,
    step_flops,
)

ASKED = Asked("gpt2-tiny", 2, 16, 64, "fp32")
MACHINE = Machine("cpu", 1, "2.15.0", "", "", "", "0.1.0")
ROW = PlanRow(ASKED, "dp2", Status.MEASURED, "2", parameters=10, iteration=0.5, machine=MACHINE)
LINK = LinkRow("all-reduce", 2, 1024, 0.5, 2048.0, MACHINE, "2026-11-26")


@pytest.mark.parametrize("row", [ROW, LINK, PlanRow(ASKED, "dp2", Status.FAILED, reason="why")])
def test_a_row_is_read_as_it_was_written(row: PlanRow | LinkRow) -> None:
    assert row_of(json.loads(json.dumps(flat(row)))) == row


def test_of_rows_about_the_same_thing_the_last_counts() -> None:
    first = PlanRow(ASKED, "dp2", Status.NOT_MEASURED)
    other = PlanRow(ASKED, "tp2", Status.MEASURED)
    assert latest([first, other, LINK, ROW]) == [ROW, other, LINK]


def test_a_line_that_was_not_finished_is_no_row(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(flat(ROW)) + '\n{"kind": "pl')
    assert rows_in(file) == [ROW]
    assert rows_in(tmp_path / "none.jsonl") == []


def test_another_file_is_not_taken_for_rows(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("plan,seconds\n" + json.dumps(flat(ROW)) + "\n")
    with pytest.raises(ValueError, match="line 1: wanted a row of a profile"):
        rows_in(file)


def test_a_switch_is_the_sum_of_its_parts() -> None:
    row = PlanRow(
        ASKED,
        "dp2",
        Status.MEASURED,
        switch_build=1.0,
        switch_parameters=2.0,
        switch_equip=3.0,
        switch_moments=4.0,
    )
    assert row.switch == 10.0
    assert ROW.switch is None


def test_operations_are_counted_as_usual() -> None:
    shape = PRESETS["gpt2-1.26b"]
    tokens = 16 * 1024
    scores = 12 * 24 * 1920 * 1024 * tokens
    assert step_flops(shape, 16, 1024) == 6 * shape.parameters * tokens + scores


def test_only_known_devices_have_a_peak() -> None:
    assert peak_flops("NVIDIA H100 80GB HBM3", "bf16") == 989e12
    assert peak_flops("Someone's GPU", "bf16") is None
