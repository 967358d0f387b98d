"""Weights for runs that are not missing at random: how much each observed one stands for others.

Placement decides what is observed: big jobs run on big machines, and nobody tries a slow device
twice. Calibration runs weighed by the odds of being missing, (1 - p) / p of their workload and
platform, stand for those that are missing (conformalised matrix completion, Gui, Barber and Ma,
2023). p is the chance that a pair was observed: a logistic model of one term for each workload and
one for each platform.
"""

import numpy as np

from controlplane.pitot.run_times import Ids, Reals

_ROUNDS = 200
_SETTLED = 1e-8
_RIDGE = 0.1
"""Keeps the terms of a row of which all pairs or none were observed finite."""
MOST_ODDS = 100.0
"""Beyond which one run would stand for too many."""


def observed_pairs(workload: Ids, platform: Ids, workloads: int, platforms: int) -> np.ndarray:
    """(workloads, platforms) whether any run of a pair was observed."""
    seen = np.zeros((workloads, platforms), dtype=np.bool_)
    seen[workload, platform] = True
    return seen


def odds_of_missing(seen: np.ndarray) -> Reals:
    """(workloads, platforms) odds that a pair is missing; all alike where none is special.

    Args:
        seen: (workloads, platforms) whether each pair was observed.

    Raises:
        ValueError: Nothing was observed.
    """
    if not seen.any():
        raise ValueError("wanted observed pairs of workload and platform, found none")
    size, wanted = seen.shape, seen.astype(np.float64)
    row, column = np.zeros(size[0]), np.zeros(size[1])
    level = float(np.log(wanted.mean() / max(1.0 - wanted.mean(), 1e-6)))
    for _ in range(_ROUNDS):
        before = row, column
        row = row + _step(wanted, row, column, level, axis=1)
        column = column + _step(wanted, row, column, level, axis=0)
        if max(np.abs(row - before[0]).max(), np.abs(column - before[1]).max()) < _SETTLED:
            break
    logits = level + row[:, None] + column
    return np.clip(np.exp(-logits), 1.0 / MOST_ODDS, MOST_ODDS)


def _step(wanted: Reals, row: Reals, column: Reals, level: float, axis: int) -> Reals:
    """One of Newton's, for the terms of one side with those of the other fixed."""
    chance = 1.0 / (1.0 + np.exp(-(level + row[:, None] + column)))
    own = row if axis == 1 else column
    slope = (wanted - chance).sum(axis=axis) - _RIDGE * own
    bend = (chance * (1.0 - chance)).sum(axis=axis) + _RIDGE
    found: Reals = np.clip(slope / bend, -1.0, 1.0)
    return found
