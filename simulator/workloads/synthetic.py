"""Jobs that nobody recorded, as many as wanted: to see how things grow with size."""

from dataclasses import dataclass
from math import exp, log, sqrt
from statistics import NormalDist

from controlplane.domain.chance import draw
from simulator.workloads.drawing import Drawing
from simulator.workloads.trace_jobs import TraceJob, exponential

_ACCELERATORS = ((1, 0.60), (2, 0.12), (4, 0.12), (8, 0.10), (16, 0.04), (32, 0.02))
"""Numbers asked for, and how many of the jobs ask for each: mostly one, as in Philly."""


_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Synthetic:
    """What is generated.

    Attributes:
        jobs: How many.
        jobs_per_hour: How many arrive in an hour on average, at random.
        median_seconds: Half of the jobs run shorter alone.
        mean_seconds: Running time on average; a log-normal distribution has both.
    """

    jobs: int = 400
    jobs_per_hour: float = 30.0
    median_seconds: float = 900.0
    mean_seconds: float = 3600.0


def generate(described: Synthetic, drawing: Drawing) -> list[TraceJob]:
    """The jobs, drawn from the seed.

    Raises:
        ValueError: There can be no such jobs.
    """
    if described.jobs < 1 or described.jobs_per_hour <= 0:
        raise ValueError(
            f"wanted at least one job and a rate above 0, got {described.jobs} jobs and "
            f"{described.jobs_per_hour:g} an hour"
        )
    if not 0 < described.median_seconds <= described.mean_seconds:
        raise ValueError(
            f"wanted a median running time above 0 and no longer than the mean, got "
            f"{described.median_seconds:g} and {described.mean_seconds:g} s"
        )
    spread = sqrt(2 * log(described.mean_seconds / described.median_seconds))
    gap = 3600.0 / described.jobs_per_hour
    jobs, at = [], 0.0
    for number in range(described.jobs):
        name = f"job-{number:0{len(str(described.jobs))}}"
        if number:
            at += exponential(gap, drawing.seed, "gap", name)
        luck = max(1e-12, draw(drawing.seed, "run", name))
        seconds = described.median_seconds * exp(spread * _NORMAL.inv_cdf(luck))
        count = _count(draw(drawing.seed, "accelerators", name))
        jobs.append(drawing.job(name, at, drawing.model(name), count, max(1.0, seconds)))
    return jobs


def _count(luck: float) -> int:
    for count, share in _ACCELERATORS:
        luck -= share
        if luck < 0:
            return count
    return _ACCELERATORS[-1][0]
