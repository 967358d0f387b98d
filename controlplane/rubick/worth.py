r"""What it is worth to give a job a choice: the objective of a round.

For a job with :math:`R` steps left, a choice of :math:`a` accelerators and :math:`s` seconds a
step, reached by a switch of :math:`\sigma` seconds (0 for what it has already), with :math:`n` jobs
that wait or are expected and :math:`A` accelerators in all,

    cost      C(o) = (sigma + R s) (1 + n a / A)
    worth     w(o) = (max(P, phi C*) + C* - C(o)) / C*^alpha,    C* = min over o of C(o)

A second on ``a`` accelerators keeps those who wait from ``a / A`` of the cluster, so the cost is
what the choice adds to everybody's completion times. A job that waits has worth 0: it loses the
patience, which is ``P`` seconds or a share ``phi`` of what it needs at best, and that best.
``alpha`` sets how much short jobs come first.
The round looks for the assignment with the largest sum of worths.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controlplane.rubick.choices import Choices, Numbers


@dataclass(frozen=True, slots=True)
class Wanting:
    """A job that is to be given something.

    Attributes:
        choices: What it can be given.
        steps_left: Steps that it still needs.
        switch_seconds: What it costs it to start or change.
        held_accelerators: Accelerators that it has; 0 if it has none, or cannot keep them.
        held_seconds: What a step takes on those.
        held_wait_seconds: Until it trains there: a switch that is not over yet.
        weight: How much it counts.
    """

    choices: Choices
    steps_left: float
    switch_seconds: float
    held_accelerators: int = 0
    held_seconds: float = 0.0
    held_wait_seconds: float = 0.0
    weight: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Worths:
    """What each choice of a job is worth.

    Attributes:
        of_choices: Of each choice. Shape ``(number of choices,)``.
        of_keeping: Of what it has; minus infinity if it has nothing.
        switching: What a switch alone costs in the same measure.
        of_a_second: What a second of its completion time is worth.
        cost: The least cost, in seconds of completion times.
    """

    of_choices: Numbers
    of_keeping: float
    switching: float
    of_a_second: float
    cost: float


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
        costs = (switch[:, None] + left[:, None] * choices.seconds[None, :]) * harm[None, :]
        least = costs.min(axis=1)
    else:
        costs, least = np.empty((len(group), 0)), keeping.copy()
    least = np.maximum(least, 1e-6)
    scale = weight / least**alpha
    patience = np.maximum(patience, share * least)
    of_choices = scale[:, None] * ((patience + least)[:, None] - costs)
    of_keeping = np.where(held > 0, scale * (patience + least - keeping), -np.inf)
    switching = scale * switch
    return [
        Worths(
            of_choices[i],
            float(of_keeping[i]),
            float(switching[i]),
            float(scale[i]),
            float(least[i]),
        )
        for i in range(len(group))
    ]
