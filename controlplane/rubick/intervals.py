"""How wide intervals must be, from what a fit would have said about rows that it had not seen.

Rows are left out placement by placement, as a scheduler meets them: it has measured some and asks
about others. To fit again without each would take as many fits; to first order the answer follows
from the one fit (leave-group-out by the hat matrix: Cook and Weisberg, 1982). A row's error, over
the standard deviation that was expected of it, is its score. An interval reaches as many deviations
as a quantile of the scores says (conformal prediction with jackknife residuals: Barber et al.,
Annals of Statistics 2021). A few scores of a Student distribution stand in for rows that are
missing, and lose their weight as rows come.
"""

import math
from collections.abc import Hashable, Sequence

import numpy as np
from scipy.stats import t as student

from controlplane.rubick.configurations import Numbers

_STAND_INS = 10
_STAND_IN_FREEDOM = 4.0


def left_out(
    residuals: Numbers,
    jacobian: Numbers,
    covariance: Numbers,
    weights: Numbers,
    noise: float,
    places: Sequence[Hashable],
) -> tuple[Numbers, Numbers]:
    """Errors of rows that a fit had not seen, and the deviations that it would have expected.

    Args:
        residuals: Of the fit, logarithms (N).
        jacobian: Of the logarithms of times by parameters (N, K).
        covariance: Of parameters after the fit (K, K).
        weights: Of rows in the fit (N).
        noise: Standard deviation of a row.
        places: What is left out together (N).
    """
    groups: dict[Hashable, list[int]] = {}
    for index, place in enumerate(places):
        groups.setdefault(place, []).append(index)
    errors, deviations = np.empty_like(residuals), np.empty_like(residuals)
    for group in groups.values():
        mine = jacobian[group]
        hat = mine @ covariance @ mine.T * weights[group] / noise**2
        without = np.linalg.inv(np.eye(len(group)) - np.minimum(hat, 1.0) * (1 - 1e-9))
        errors[group] = without @ residuals[group]
        deviations[group] = noise * np.sqrt(np.maximum(np.diag(without), 1.0))
    return errors, deviations


def interval_factor(errors: Numbers, deviations: Numbers, coverage: float) -> float:
    """Deviations to each side of a prediction that hold a row with this probability."""
    scores = np.abs(errors) / deviations
    ranks = (np.arange(_STAND_INS) + 0.5) / _STAND_INS
    stand_ins = student.ppf((1 + ranks) / 2, _STAND_IN_FREEDOM)
    pooled = np.sort(np.concatenate([scores, stand_ins]))
    place = math.ceil(coverage * (len(pooled) + 1)) - 1
    return float(pooled[min(place, len(pooled) - 1)])
