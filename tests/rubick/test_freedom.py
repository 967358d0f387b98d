"""The ablations give what their tables say (measured on eight A800 a node)."""

import os
from pathlib import Path
from typing import Any

import pytest

from controlplane.domain.job import AcceleratorRequest, JobSpec
from controlplane.domain.queue import DEFAULT_QUEUE
from controlplane.domain.step_times import Way
from controlplane.rubick.freedom import Freedom
from simulator.measured_table import MeasuredTable, plan_named, read_table

DATA = os.environ.get("HEADRACE_DATA", "")
pytestmark = pytest.mark.skipif(not DATA, reason="HEADRACE_DATA names no folder with rubick/")


@pytest.fixture(scope="module")
def table() -> MeasuredTable:
    return read_table(Path(DATA) / "rubick" / "measured")


def about(wanted: Any) -> Any:
    """As the page of oracles has it, to three digits."""
    return pytest.approx(wanted, rel=1e-3)


def fastest(
    table: MeasuredTable, model: str, asked: str, count: int, freedom: Freedom
) -> dict[int, float]:
    """Seconds of a step on each number of accelerators that the freedom leaves."""
    batch = table.global_batch_size(model)
    spec = JobSpec(
        queue=DEFAULT_QUEUE,
        accelerators=AcceleratorRequest(1, 64, requested=count),
        model_type=model,
        global_batch_size=batch,
        plans=table.plans(model),
        requested_plan=plan_named(asked, count, batch),
    )
    found: dict[int, Way] = {}
    for way in table.ways(spec, table.kind):
        known = found.get(way.accelerators)
        if freedom.allows(spec, way) and (known is None or way.seconds < known.seconds):
            found[way.accelerators] = way
    return {n: way.seconds for n, way in sorted(found.items())}


def test_a_small_model(table: MeasuredTable) -> None:
    assert fastest(table, "t5", "ga", 4, Freedom.NOTHING) == about({4: 0.4084})
    assert fastest(table, "t5", "ga", 4, Freedom.PLANS) == about({4: 0.3351})
    assert fastest(table, "t5", "ga", 4, Freedom.ACCELERATORS)[8] == about(0.3201)


def test_of_a_plan_in_three_dimensions_only_the_replicas_change(table: MeasuredTable) -> None:
    free = Freedom.ACCELERATORS
    assert fastest(table, "llama7", "182", 16, free) == about({16: 1.131, 32: 0.945, 64: 0.859})
    found = fastest(table, "llama7", "244", 32, free)
    assert (found[16], found[64]) == about((1.346, 0.673))
    assert list(fastest(table, "llama30", "524", 40, free)) == [40]
    assert fastest(table, "llama30", "641", 24, free) == about({24: 5.297, 48: 2.742})
