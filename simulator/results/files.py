"""Writes what came of a run, so that anyone can compute it again.

``allocations.csv`` alone says who held what, and when; ``jobs.csv`` what became of each job;
``summary.json`` the numbers that follow from both.
"""

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path

from headrace.api.plan import ExecutionPlan
from simulator.measured_table import name_of
from simulator.results.allocation_log import COLUMNS, Row
from simulator.results.job_outcomes import JobOutcome
from simulator.results.summary import Summary

JOB_COLUMNS = (
    *(each.name for each in fields(JobOutcome)),
    "artifact_plan",
    "completion",
    "below_promise_as_predicted",
    "beyond_promised_run",
)


def write_run(
    folder: Path,
    summary: Summary,
    outcomes: Sequence[JobOutcome],
    rows: Sequence[Row],
    notes: Sequence[str],
) -> None:
    """Writes one run into its own folder, which is made.

    Raises:
        OSError: It cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "allocations.csv", COLUMNS, (row.cells() for row in rows))
    _write(folder / "jobs.csv", JOB_COLUMNS, map(_job_cells, outcomes))
    told = {**asdict(summary), "notes": list(notes)}
    text = json.dumps(told, indent=2) + "\n"
    (folder / "summary.json").write_text(text, encoding="utf-8")


def _write(file: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _job_cells(job: JobOutcome) -> list[object]:
    told = [
        *(getattr(job, each.name) for each in fields(JobOutcome)),
        name_of(ExecutionPlan.parse(job.requested_plan)) if job.requested_plan else "",
        job.completion,
        job.below_promise_as_predicted,
        job.beyond_promised_run,
    ]
    return ["" if cell is None else cell for cell in told]
