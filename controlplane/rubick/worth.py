r"""What it is worth to give a job a choice: the objective of a round.

For a job with :math:`R` steps left, a choice of :math:`a` accelerators and :math:`s` seconds a
step, reached by a switch of :math:`\sigma` seconds (0 for what it has already), with :math:`n` jobs
that wait or are expected and :math:`A` accelerators in all,

    cost      C(o) = (sigma + R s) (1 + n a / A)
    worth     w(o) = (max(P, phi C*) + C* - C(o)) / C*^alpha,    C* = min over o of C(o)

A second on ``a`` accelerators keeps those who wait from ``a / A`` of the cluster, so the cost is
what the choice adds to everybody's completion times. To go where no rank can stay is a restart,
whose :math:`\sigma` is larger than that of a change in memory; a choice that can be had either way
is taken to be had in memory until it is known where it will lie.
A job that waits has worth 0: it loses the patience, which is ``P`` seconds or a share ``phi`` of
what it needs at best, and that best. ``alpha`` sets how much short jobs come first.
The round looks for the assignment with the largest sum of worths.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from controlplane.rubick.choices import Choices, Numbers

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Wanting:
    """A job that is to be given something.

    Attributes:
        choices: What it can be given.
        steps_left: Steps that it still needs.
        switch_seconds: What it costs it to start or change; of a job that has something, to change
            in memory.
        held_accelerators: Accelerators that it has; 0 if it has none, or cannot keep them.
        held_seconds: What a step takes on those.
        held_wait_seconds: Until it trains there: a switch that is not over yet.
        weight: How much it counts.
        restart_seconds: What it costs it to end and start somewhere else.
        restarts: Choices that it can only have so. Shape ``(number of choices,)``; None where a
            restart costs no more than a change in memory.
    """

    choices: Choices
    steps_left: float
    switch_seconds: float
    held_accelerators: int = 0
    held_seconds: float = 0.0
    held_wait_seconds: float = 0.0
    weight: float = 1.0
    restart_seconds: float = 0.0
    restarts: Flags | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Worths:
    """What each choice of a job is worth.

    Attributes:
        of_choices: Of each choice, had in the cheapest way. Shape ``(number of choices,)``.
        of_keeping: Of what it has; minus infinity if it has nothing.
        switching: What a start alone costs in the same measure; of a job that has something, a
            change in memory.
        of_a_second: What a second of its completion time is worth.
        cost: The least cost, in seconds of completion times.
        restarting: What a restart alone costs in the same measure.
        of_restarts: Of each choice, had by a restart. Shape ``(number of choices,)``; None where
            that costs no more.
    """

    of_choices: Numbers
    of_keeping: float
    switching: float
    of_a_second: float
    cost: float
    restarting: float = 0.0
    of_restarts: Numbers | None = None


def worths(
    jobs: Sequence[Wanting],
    *,
    patience_seconds: float,
    patience_share: float,
    shortest_first: float,
    competition: float,
) -> list[Worths]:
    """What the choices of each job are worth.

    Args:
        jobs: All of the round. Those with equal choices are computed together.
        patience_seconds: ``P``.
        patience_share: ``phi``.
        shortest_first: ``alpha``.
        competition: ``n / A``.
    """
    found: list[Worths | None] = [None] * len(jobs)
    alike: dict[Choices, list[int]] = {}
    for place, job in enumerate(jobs):
        alike.setdefault(job.choices, []).append(place)
    for places in alike.values():
        group = [jobs[place] for place in places]
        for place, worth in zip(
            places,
            _together(group, patience_seconds, patience_share, shortest_first, competition),
            strict=True,
        ):
            found[place] = worth
    return [worth for worth in found if worth is not None]


def _together(
    group: Sequence[Wanting], patience: float, share: float, alpha: float, competition: float
) -> list[Worths]:
    choices = group[0].choices
    left = np.array([job.steps_left for job in group])
    switch = np.array([job.switch_seconds for job in group])
    weight = np.array([job.weight for job in group])
    held = np.array([float(job.held_accelerators) for job in group])
    keeping = np.array([job.held_wait_seconds + job.steps_left * job.held_seconds for job in group])
    keeping *= 1.0 + competition * held
    if len(choices.every):
        harm = 1.0 + competition * choices.accelerators
        trains = left[:, None] * choices.seconds[None, :]
        costs = (_cheapest(group, switch) + trains) * harm[None, :]
        least = costs.min(axis=1)
    else:
        harm = np.ones(0)
        costs, least = np.empty((len(group), 0)), keeping.copy()
    least = np.maximum(least, 1e-6)
    scale = weight / least**alpha
    patience = np.maximum(patience, share * least)
    of_choices = scale[:, None] * ((patience + least)[:, None] - costs)
    of_keeping = np.where(held > 0, scale * (patience + least - keeping), -np.inf)
    switching = scale * switch
    found = [
        Worths(
            of_choices[i],
            float(of_keeping[i]),
            float(switching[i]),
            float(scale[i]),
            float(least[i]),
            float(switching[i]),
        )
        for i in range(len(group))
    ]
    for i, job in enumerate(group):
        if job.restarts is not None:
            dearer = np.where(job.restarts, 0.0, job.restart_seconds - job.switch_seconds)
            found[i] = replace(
                found[i],
                restarting=float(scale[i]) * job.restart_seconds,
                of_restarts=of_choices[i] - scale[i] * dearer * harm,
            )
    return found


def _cheapest(group: Sequence[Wanting], switch: Numbers) -> Numbers:
    """Seconds that each choice costs in the cheapest way, a row for each job."""
    if all(job.restarts is None for job in group):
        return switch[:, None]
    return np.array(
        [
            np.full(len(job.choices.every), job.switch_seconds)
            if job.restarts is None
            else np.where(job.restarts, job.restart_seconds, job.switch_seconds)
            for job in group
        ]
    )
