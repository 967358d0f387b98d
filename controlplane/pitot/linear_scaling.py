"""The baseline of section 2.3: each platform and each workload takes so many times as long."""

import numpy as np

from controlplane.pitot.run_times import Reals, RunTimes

_SETTLED = 1e-4
_MOST_ROUNDS = 20_000


def linear_scaling(runs: RunTimes, workloads: int, platforms: int) -> tuple[Reals, Reals]:
    """Means of rows and columns by turns, of undisturbed runs.

    Args:
        runs: Observations; those with co-runners are left out.
        workloads: How many there are.
        platforms: How many there are.

    Returns:
        (workloads,) c and (platforms,) a, logarithms of seconds; 0 for what was never seen.
    """
    alone = runs.rows(runs.degree == 1)
    logs = alone.log_seconds
    runs_of = np.maximum(np.bincount(alone.workload, minlength=workloads), 1)
    runs_on = np.maximum(np.bincount(alone.platform, minlength=platforms), 1)
    workload, platform = np.zeros(workloads), np.zeros(platforms)
    for _ in range(_MOST_ROUNDS):
        before = workload, platform
        rest = logs - workload[alone.workload]
        platform = np.bincount(alone.platform, rest, platforms) / runs_on
        rest = logs - platform[alone.platform]
        workload = np.bincount(alone.workload, rest, workloads) / runs_of
        moved = np.abs(workload - before[0]).sum() + np.abs(platform - before[1]).sum()
        if moved < _SETTLED:
            break
    return workload, platform
