"""Estimates and bounds of many runs at once, in seconds: all that prediction is, on numpy alone.

A bound takes a few of the quantile heads, those that calibration chose and the median; the others
are never computed. Where more runs are asked for than there are pairs of workload and platform,
each product of embeddings is computed once for each pair and looked up.
"""

from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from controlplane.pitot.calibration import Calibration
from controlplane.pitot.network import Embeddings, activated
from controlplane.pitot.run_times import NOBODY, Ids, Reals
from controlplane.pitot.tower import Floats


@dataclass(frozen=True, slots=True)
class Bounds:
    """What runs take; seconds.

    Attributes:
        estimate: (n,) the median.
        lower: (n,) what so rarely is undercut.
        upper: (n,) what so rarely is exceeded.
    """

    estimate: Reals
    lower: Reals
    upper: Reals


def upper_bounds(
    at: Embeddings,
    calibration: Calibration,
    runs: tuple[Ids, Ids, Ids],
    miss: float,
) -> tuple[Reals, Reals]:
    """(n,) medians and (n,) times that are exceeded so rarely; seconds.

    Args:
        at: What was learnt.
        calibration: Of the same heads.
        runs: (n,) workloads, (n,) platforms and (n, k) co-runners, or ``NOBODY``.
        miss: The rate of times above the bound.

    Raises:
        TooFewRunsError: The pool of a degree that occurs is too small.
    """
    found = _bounds(at, calibration, runs, (None, miss))
    return found.estimate, found.upper


def two_sided_bounds(
    at: Embeddings,
    calibration: Calibration,
    runs: tuple[Ids, Ids, Ids],
    misses: tuple[float, float],
    weights: Reals | None = None,
) -> Bounds:
    """An interval for each run, in seconds.

    Args:
        at: What was learnt.
        calibration: Of the same heads.
        runs: (n,) workloads, (n,) platforms and (n, k) co-runners, or ``NOBODY``.
        misses: Rates of times below the interval and above it.
        weights: (n,) of these runs, where calibration was weighted (``missingness``).

    Raises:
        TooFewRunsError: The pool of a degree that occurs is too small.
    """
    return _bounds(at, calibration, runs, misses, weights)


def _bounds(
    at: Embeddings,
    calibration: Calibration,
    runs: tuple[Ids, Ids, Ids],
    misses: tuple[float | None, float],
    weights: Reals | None = None,
) -> Bounds:
    workload, platform, beside = runs
    degrees = 1 + np.count_nonzero(beside != NOBODY, axis=1)
    estimate, lower, upper = (np.empty(len(workload)) for _ in range(3))
    for degree in np.flatnonzero(np.bincount(degrees, minlength=1)).tolist():
        rows = np.flatnonzero(degrees == degree)
        asked = (workload[rows], platform[rows], beside[rows])
        told = cache(partial(predicted, at, runs=asked))
        own = None if weights is None else weights[rows]
        estimate[rows] = told(calibration.median)
        upper[rows] = calibration.bound("upper", told, degree, misses[1], own)
        lower[rows] = (
            -np.inf
            if misses[0] is None
            else calibration.bound("lower", told, degree, misses[0], own)
        )
    return Bounds(np.exp(estimate), np.exp(lower), np.exp(upper))


def predicted(at: Embeddings, head: int, runs: tuple[Ids, Ids, Ids]) -> Floats:
    """(n,) logarithms of seconds by one head; the same as ``Embeddings.log_seconds`` gives."""
    workload, platform, beside = runs
    pairs = at.workload.shape[0] * at.platform.shape[0]
    one = at.of_head(head)
    if len(workload) < pairs:
        return one.log_seconds(workload, platform, beside)[:, 0]
    return _looked_up(one, runs)


def _looked_up(at: Embeddings, runs: tuple[Ids, Ids, Ids]) -> Floats:
    """By tables of all pairs, of which a row reads one value for each product."""
    workload, platform, beside = runs
    rows, width = at.workload[:, 0], len(at.platform)
    table = rows @ at.platform.T + at.workload_scale[:, None] + at.platform_scale
    pair = workload * width + platform
    told: Floats = table.ravel()[pair]
    columns = [column for column in beside.T if (column != NOBODY).any()]
    if not columns:
        return told
    for part in range(at.magnitude.shape[1]):
        magnitudes = (rows @ at.magnitude[:, part].T).ravel()
        strength = np.zeros(len(told), dtype=np.float32)
        for column in columns:
            there = column != NOBODY
            found = magnitudes[np.where(there, column, 0) * width + platform]
            strength += np.where(there, found, np.float32(0))
        susceptible = (rows @ at.susceptible[:, part].T).ravel()
        told += susceptible[pair] * activated(strength)
    return told
