"""Synergy-Opt (OSDI 2022): the most speed that CPUs and memory in all could buy, as a program.

The referee of Synergy-Tune: no policy asks it, as it says nothing of where anybody would be.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.baselines.choices import Choice, cheapest


@dataclass(frozen=True, slots=True)
class Profile:
    """A job's speed under different amounts of CPUs and memory for each accelerator.

    Attributes:
        accelerators: How many it has.
        points: As (CPUs, GB, speed); speed 1 is that of the proportional share.
    """

    accelerators: int
    points: tuple[tuple[float, float, float], ...]


def best_points(
    profiles: Sequence[Profile], cpus: float, memory_gb: float
) -> tuple[tuple[float, float, float], ...]:
    """The point of each job with which the sum of speeds is largest; nobody is slower than with its
    proportional share. As in the released code a job counts once, whatever its accelerators, and
    the cluster counts as one server.

    Args:
        profiles: The jobs, whose proportional shares fit.
        cpus: CPUs in all.
        memory_gb: Memory in all.

    Raises:
        ValueError: They do not fit even so.
    """
    allowed = [[point for point in each.points if point[2] >= 1] for each in profiles]
    rows = [
        [
            Choice(-speed, (("cpus", each.accelerators * c), ("gb", each.accelerators * m)))
            for c, m, speed in points
        ]
        for each, points in zip(profiles, allowed, strict=True)
    ]
    chosen = cheapest(rows, {"cpus": cpus, "gb": memory_gb})
    return tuple(points[i] for points, i in zip(allowed, chosen, strict=True) if i is not None)
