"""The workload files of Rubick's artifact: ``workload-base.csv`` and ``workload-bp.csv``.

406 jobs over 13.2 h, made from the busiest 12 h of Microsoft's Philly trace (section 7.3).
"""

from pathlib import Path

from simulator.measured_table import MeasuredTable, plan_named
from simulator.workloads.csv_rows import CsvRow, rows_of
from simulator.workloads.trace_jobs import TraceJob, requested

COLUMNS = (
    "name",
    "submission_time",
    "duration",
    "application",
    "num_gpus",
    "num_cpus",
    "bandwidth",
    "exec_plan",
    "steps",
    "is_sla",
)


def read_rubick(file: Path, table: MeasuredTable) -> list[TraceJob]:
    """The jobs of a workload file, all of them or none.

    Args:
        file: The file.
        table: The measured models.

    Raises:
        ValueError: It is no such file, or a job asks for what the table does not know; with the
            line.
        OSError: It cannot be read.
    """
    jobs: list[TraceJob] = []
    lines: dict[str, int] = {}
    for row in rows_of(file, COLUMNS):
        job = _job(row, table)
        first = lines.setdefault(job.name, row.line)
        if first != row.line:
            raise row.wrong(f"name: {job.name} stands in line {first} already")
        jobs.append(job)
    if not jobs:
        raise ValueError(f"{file}: wanted jobs below {','.join(COLUMNS)}, found none")
    return jobs


def _job(row: CsvRow, table: MeasuredTable) -> TraceJob:
    model, count = row["application"], row.whole("num_gpus")
    if model not in table.models:
        raise row.wrong(
            f"application: wanted a measured model ({', '.join(table.models)}), got {model!r}"
        )
    try:
        plan = plan_named(row["exec_plan"], count, table.global_batch_size(model))
    except ValueError as error:
        raise row.wrong(f"exec_plan: {error}") from error
    if requested(table, model, plan) is None:
        known = sorted({way.accelerators for way in table.every_way(model) if way.plan == plan})
        sizes = sorted({way.accelerators for way in table.every_way(model)})
        raise row.wrong(
            f"exec_plan: {model} was not measured under {row['exec_plan']} on {count} "
            f"accelerators; it was on {', '.join(map(str, known or sizes))}"
        )
    if row["is_sla"] not in ("0", "1"):
        raise row.wrong(f"is_sla: wanted 0 or 1, got {row['is_sla']!r}")
    if not row["name"]:
        raise row.wrong("name: wanted one, got nothing")
    return TraceJob(
        name=row["name"],
        at_seconds=row.number("submission_time"),
        model_type=model,
        accelerators=count,
        plan=plan,
        steps=row.whole("steps"),
        recorded_seconds=row.number("duration"),
        guaranteed=row["is_sla"] == "1",
    )
