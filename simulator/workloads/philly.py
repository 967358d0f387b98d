"""Microsoft's Philly trace (USENIX ATC 2019), in the form that Sia's artifact gives it.

82,247 jobs from September to December 2017: when each was submitted, for how long it ran, and on
how many GPUs. What it trained is not told, so models are drawn, as Rubick's paper does (section
7.3): numbers of GPUs that a model cannot use become ones that it can, with the GPU-hours kept.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from controlplane.domain.chance import draw
from simulator.workloads.csv_rows import rows_of
from simulator.workloads.drawing import Drawing
from simulator.workloads.trace_jobs import TraceJob

COLUMNS = ("timestamp", "duration", "num_gpus", "gpu_time", "cluster")

BUSIEST = datetime(2017, 10, 17, 10, tzinfo=UTC)
"""Where the 12 h begin from which Rubick's workload was made."""


@dataclass(frozen=True, slots=True)
class Window:
    """Which of the trace's jobs are taken.

    Attributes:
        start: When it begins; the trace's times are read as UTC.
        hours: How long it is. Longer than the trace, the trace is repeated.
        jobs: How many are drawn from it; None for all.
        longest_hours: Jobs that ran longer are left out; None for no limit.
    """

    start: datetime = BUSIEST
    hours: float = 12.0
    jobs: int | None = None
    longest_hours: float | None = None


@dataclass(frozen=True, slots=True)
class _Recorded:
    name: str
    at_seconds: float
    run_seconds: float
    accelerators: int


def read_philly(file: Path, window: Window, drawing: Drawing) -> list[TraceJob]:
    """The jobs of a window, down-sampled, with what the trace does not tell drawn.

    Args:
        file: The trace.
        window: Which of its jobs.
        drawing: How the rest is drawn.

    Raises:
        ValueError: It is no such file, or there are not as many jobs.
        OSError: It cannot be read.
    """
    found = _in_window(_recorded(file), window)
    most = window.longest_hours
    if most is not None:
        found = [job for job in found if job.run_seconds <= most * 3600]
    wanted = len(found) if window.jobs is None else window.jobs
    if not 0 < wanted <= len(found):
        raise ValueError(
            f"{file}: wanted {wanted or 'any'} jobs from {window.start:%Y-%m-%d %H:%M} UTC for "
            f"{window.hours:g} h, there are {len(found)}"
        )
    if wanted < len(found):
        found = sorted(found, key=lambda job: draw(drawing.seed, "sampled", job.name))[:wanted]
        found.sort(key=lambda job: (job.at_seconds, job.name))
    return [
        drawing.job(
            job.name, job.at_seconds, drawing.model(job.name), job.accelerators, job.run_seconds
        )
        for job in found
    ]


def _recorded(file: Path) -> list[_Recorded]:
    """Every job of the trace, by when it was submitted, since 1970."""
    jobs = []
    for row in rows_of(file, COLUMNS):
        try:
            at = datetime.fromisoformat(row["timestamp"]).replace(tzinfo=UTC).timestamp()
        except ValueError as error:
            raise row.wrong(
                f"timestamp: wanted one like 2017-10-09 07:01:55, got {row['timestamp']!r}"
            ) from error
        seconds = row.number("duration")
        jobs.append(_Recorded(f"philly-{row.line}", at, seconds, row.whole("num_gpus")))
    if not jobs:
        raise ValueError(f"{file}: wanted jobs below {','.join(COLUMNS)}, found none")
    return sorted(jobs, key=lambda job: (job.at_seconds, job.name))


def _in_window(recorded: list[_Recorded], window: Window) -> list[_Recorded]:
    """The jobs of the window, their times counted from its beginning."""
    start, length = window.start.timestamp(), window.hours * 3600
    first, last = recorded[0].at_seconds, recorded[-1].at_seconds
    # A whole number of weeks later the trace begins again, so that hours and weekdays fit.
    week = 7 * 24 * 3600.0
    period = week * (1 + (last - first) // week)
    jobs = []
    turn = 0
    while turn == 0 or first + turn * period < start + length:
        suffix = f"-{turn}" if turn else ""
        jobs += [
            _Recorded(f"{job.name}{suffix}", at, job.run_seconds, job.accelerators)
            for job in recorded
            if 0 <= (at := job.at_seconds + turn * period - start) < length
        ]
        turn += 1
    return jobs
