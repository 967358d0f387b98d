"""``headrace coverage``: promised against reached."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from headrace.api.generated import admin_pb2
from headrace.cli.coverage import between
from headrace.cli.exit_codes import ExitCode
from tests.contract.cli.conftest import Headrace
from tests.contract.cli.fake_control_plane import FakeControlPlane

DAY = 86_400.0
NOON = 1_796_040_000.0


def outcome(
    late: float = 0.0,
    *,
    started: bool = True,
    queue: str = "default",
    day: int = 0,
    missing: int = 0,
    stage: str = "Succeeded",
) -> admin_pb2.ForecastOutcome:
    """Of a job that was to end within ten minutes, and did so much after the middle of these."""
    middle = NOON + day * DAY
    told = admin_pb2.ForecastOutcome(
        uid="u", job="default/a", queue=queue, accelerator_type="cpu", started=started,
        ended_at=middle + late, stage=stage,
    )  # fmt: skip
    told.end.low, told.end.high, told.end.coverage = middle - 300.0, middle + 300.0, 0.9
    told.end.outcomes_missing = missing
    return told


def test_what_came_true_is_shown_in_all_by_queue_and_by_day(
    headrace: Headrace, plane: FakeControlPlane
) -> None:
    plane.outcomes += [outcome() for _ in range(8)]
    plane.outcomes += [outcome(301.0, queue="research", day=1), outcome(-301.0, day=1)]
    plane.outcomes += [outcome(started=False), outcome(999.0, missing=3), outcome(stage="Failed")]
    told = headrace("coverage")
    rows = [line.split() for line in told.stdout.splitlines() if line.startswith("start")]
    shown = {" ".join(row[1:-7]): row[-7:] for row in rows}
    assert shown["all"] == ["10", "90%", "80%", "49-94%", "10%", "10%", "10m"]
    assert shown["queue research"][2] == "0%"
    assert [row[:3] for name, row in shown.items() if name.startswith("20")] == [
        ["8", "90%", "100%"],
        ["2", "90%", "0%"],
    ]
    assert max(map(len, told.stdout.splitlines())) <= 80
    assert "1 predictions were made before they were calibrated" in told.stderr
    assert "1 were of jobs that failed" in told.stderr


def test_as_a_document_it_has_every_group(headrace: Headrace, plane: FakeControlPlane) -> None:
    plane.outcomes += [outcome(), outcome(301.0)]
    found = json.loads(headrace("coverage", "-o", "json").stdout)
    (row,) = found["queue"]
    assert (row["of"], row["jobs"], row["reached"], row["late"]) == ("queue default", 2, 0.5, 0.5)


def test_a_picture_is_drawn_of_days(
    headrace: Headrace, plane: FakeControlPlane, tmp_path: Path
) -> None:
    plane.outcomes += [outcome(day=day, started=day % 2 == 0) for day in range(4)]
    headrace("coverage", "--plot", str(tmp_path / "c.svg"))
    tree = ElementTree.parse(tmp_path / "c.svg")
    points = [each for each in tree.iter() if each.tag.endswith("circle")]
    assert len(points) == 4
    assert "100.0 % of 1" in ElementTree.tostring(points[0], encoding="unicode")


def test_where_nothing_is_counted_it_says_so(
    headrace: Headrace, plane: FakeControlPlane, tmp_path: Path
) -> None:
    assert "no job that was predicted has ended yet" in headrace("coverage").stderr
    done = headrace("coverage", "--plot", str(tmp_path / "c.svg"))
    assert done.exit_code == ExitCode.NOT_FOUND
    assert "nothing to draw yet" in done.stderr


@pytest.mark.parametrize(
    ("share", "count", "low", "high"), [(1.0, 1, 0.207, 1.0), (0.9, 1000, 0.880, 0.917)]
)
def test_few_jobs_leave_much_open(share: float, count: int, low: float, high: float) -> None:
    assert between(share, count) == pytest.approx((low, high), abs=1e-3)
