"""Sia's integer program (SOSP 2023; equations as in the released simulator), numbers in and out.

Each job gets at most one configuration. What it costs is a negative power of the goodput that the
job has there, in multiples of its least; a restart makes every configuration but the present one
dearer, most for jobs that are young or were restarted often.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from controlplane.baselines.choices import Choice, cheapest

COST_MAX = 3000.0
"""No cost is larger."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """One way in which a job could be run.

    Attributes:
        accelerators: How many it takes.
        gain: Goodput relative to the job's least: G in the paper.
        uses: How much it takes of which limits; of the one without a name its accelerators.
    """

    accelerators: int
    gain: float
    uses: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A job in the program.

    Attributes:
        configurations: What it could get.
        previous: Position of the one that it has; -1 if it has one that is none of these; None if
            it has nothing.
        restart_factor: What the gain of every other configuration is multiplied with.
    """

    configurations: tuple[Configuration, ...]
    previous: int | None = None
    restart_factor: float = 1.0


def counts(node_size: int, nodes: int) -> tuple[int, ...]:
    """Numbers of accelerators for which there is a configuration: powers of two within a node, and
    whole nodes.
    """
    powers = [1 << i for i in range(node_size.bit_length()) if 1 << i < node_size]
    return (*powers, *(node_size * k for k in range(1, nodes + 1))) if nodes else ()


def gains(goodputs: Sequence[float], unit: int = 1) -> tuple[float, ...]:
    """Goodputs in multiples of the least, which counts as the accelerators of one replica.

    Args:
        goodputs: Of the configurations that are valid; positive.
        unit: Accelerators of one replica: of the smallest that the job could have.
    """
    least = min(goodputs, default=1.0)
    return tuple(unit * each / least for each in goodputs)


def restart_factor(age_seconds: float, restarts: int, restart_seconds: float) -> float:
    """How much of a gain is left if a job is restarted: what it could have trained, were it
    restarted as often again.

    Args:
        age_seconds: Since its submission.
        restarts: How often it was restarted; its first start does not count.
        restart_seconds: What one restart takes.
    """
    if age_seconds < restart_seconds or age_seconds + restart_seconds == 0:
        return 1.0
    return max(age_seconds - restarts * restart_seconds, 0.0) / (age_seconds + restart_seconds)


def cost(gain: float, power: float) -> float:
    """What a configuration costs: two decimals, 3000 at most."""
    if power >= 0:
        raise ValueError(f"power: wanted a negative one, with which costs fall, got {power}")
    return COST_MAX if gain <= 0 else min(round(float(gain**power), 2), COST_MAX)


def cost_row(job: Candidate, power: float) -> tuple[float, ...]:
    """The costs of a job's configurations, its restart factor applied."""
    factors = (
        1.0 if job.previous is None or i == job.previous else job.restart_factor
        for i in range(len(job.configurations))
    )
    return tuple(
        cost(factor * each.gain, power)
        for factor, each in zip(factors, job.configurations, strict=True)
    )


def allocation(
    jobs: Sequence[Candidate],
    limits: Mapping[str, int],
    *,
    power: float = -0.5,
    none_costs: float = 1.1,
) -> tuple[int | None, ...]:
    """Which configuration each job gets; None for none.

    Costs have two decimals, so several allocations may cost the same. Of those the one is taken
    that changes fewest jobs; then the one that gives earlier jobs more.

    Jobs that are being restarted keep what they are to have: they do not take part, nor does what
    they hold.

    Args:
        jobs: In order of arrival.
        limits: How much there is of what configurations use.
        power: Exponent p.
        none_costs: Cost of a job that gets nothing (lambda).

    """
    sizes = (each.accelerators for job in jobs for each in job.configurations)
    most = 1 + max(sizes, default=0) * len(jobs) ** 2
    rows: list[list[Choice]] = []
    for i, job in enumerate(jobs):
        row = []
        for j, (each, price) in enumerate(
            zip(job.configurations, cost_row(job, power), strict=True)
        ):
            kept = job.previous == j
            tie = -(len(jobs) - i) * each.accelerators - (most if kept else 0)
            uses = (("", each.accelerators), *each.uses)
            row.append(Choice(round(100 * price), uses, float(tie)))
        rows.append(row)
    return cheapest(rows, limits, round(100 * none_costs))


def total_cost(
    jobs: Sequence[Candidate],
    chosen: Sequence[int | None],
    *,
    power: float = -0.5,
    none_costs: float = 1.1,
) -> float:
    """What an allocation costs."""
    return sum(
        none_costs if taken is None else cost_row(job, power)[taken]
        for job, taken in zip(jobs, chosen, strict=True)
    )
