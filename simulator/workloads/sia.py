"""The workloads of Sia (SOSP 2023): ``philly-1.csv`` to ``newtrace-4.csv``.

Their applications were not measured on A800, and the files do not say for how long jobs run. Both
follow from the class of size that Pollux (OSDI 2021, section 5.1) and Sia give each application:
the measured model of that class, and GPU-hours drawn from the class's range.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from controlplane.domain.chance import draw
from simulator.workloads.csv_rows import CsvRow, rows_of
from simulator.workloads.drawing import Drawing
from simulator.workloads.trace_jobs import TraceJob

COLUMNS = ("name", "time", "application", "num_replicas", "batch_size")


@dataclass(frozen=True, slots=True)
class Stand:
    """What stands for an application.

    Attributes:
        model: A measured model.
        least_hours: Least GPU-hours of a job.
        most_hours: Most.
    """

    model: str
    least_hours: float
    most_hours: float


STANDS: Mapping[str, Stand] = {
    "cifar10": Stand("vit", 0.1, 1.0),
    "ncf": Stand("vit", 0.1, 1.0),
    "bert": Stand("bert", 1.0, 10.0),
    "deepspeech2": Stand("roberta", 1.0, 10.0),
    "yolov3": Stand("t5", 10.0, 100.0),
    "imagenet": Stand("gpt2", 100.0, 1000.0),
}

RULE = "Sia's applications are not measured: " + "; ".join(
    f"{name} is {stand.model} for {stand.least_hours:g} to {stand.most_hours:g} GPU-hours"
    for name, stand in STANDS.items()
)
"""To be printed with every result."""


def read_sia(file: Path, drawing: Drawing) -> list[TraceJob]:
    """The jobs of one of Sia's workloads, all of them or none.

    Args:
        file: The file.
        drawing: How what it does not tell is drawn.

    Raises:
        ValueError: It is no such file; with the line.
        OSError: It cannot be read.
    """
    jobs = [_job(row, drawing) for row in rows_of(file, COLUMNS)]
    if not jobs:
        raise ValueError(f"{file}: wanted jobs below {','.join(COLUMNS)}, found none")
    names = {job.name for job in jobs}
    if len(names) < len(jobs):
        raise ValueError(f"{file}: wanted every name once, {len(jobs) - len(names)} come again")
    return jobs


def _job(row: CsvRow, drawing: Drawing) -> TraceJob:
    stand = STANDS.get(row["application"])
    if stand is None or stand.model not in drawing.table.models:
        raise row.wrong(
            f"application: wanted one of {', '.join(STANDS)}, got {row['application']!r}"
        )
    name, replicas = row["name"], row.whole("num_replicas")
    row.whole("batch_size")
    luck = draw(drawing.seed, "hours", name)
    # Equal chances for each factor: half of the jobs are below the geometric middle.
    hours = stand.least_hours * (stand.most_hours / stand.least_hours) ** luck
    seconds = hours * 3600 / replicas
    return drawing.job(name, row.number("time"), stand.model, replicas, seconds)
