"""Fitting the performance model to measured steps: robust, with priors, and with intervals."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from controlplane.rubick.configurations import Configurations, Numbers
from controlplane.rubick.intervals import interval_factor, left_out
from controlplane.rubick.measurements import Measurement, columns, refuse_unsound
from controlplane.rubick.step_time import StepTimeModel, log_seconds_with_jacobian, step_seconds

NOISE_PRIOR = 0.05
"""What measured steps are expected to scatter by: standard deviation of their logarithm."""

NOISE_PRIOR_ROWS = 6.0
"""For how many rows that expectation counts."""

_FREEDOM = 4.0
"""Rows scatter as a Student distribution with so many degrees: one far off counts for little."""

_FEWEST_PLACEMENTS = 6
"""With fewer different placements, intervals are judged by leaving out single plans."""

_REACH = 8.0
"""No parameter is further from its prior than so many deviations."""

OUTLYING_AT = 4.0
"""Rows further off than so many deviations are named."""


@dataclass(frozen=True, slots=True)
class Outlier:
    """A row that the others do not bear out.

    Attributes:
        index: Its place among the rows.
        row: The row.
        ratio: Its time over what the model says.
    """

    index: int
    row: Measurement
    ratio: float


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted model, and what it made of its rows.

    Attributes:
        model: For predictions.
        outliers: Rows that it does not explain, worst first.
    """

    model: StepTimeModel
    outliers: tuple[Outlier, ...]


def fit(
    rows: Sequence[Measurement], prior: StepTimeModel, start: StepTimeModel | None = None
) -> Fit:
    """The most plausible model after these measurements.

    Args:
        rows: What was measured, in any order; of several about the same all count.
        prior: What is known without them.
        start: An earlier fit to begin with, which saves time; it does not change the result beyond
            the optimizer's tolerance.

    Raises:
        ValueError: A time is not a positive, finite number.
    """
    refuse_unsound(rows)
    if not rows:
        return Fit(prior, ())
    configurations = columns(rows)
    measured = np.log([row.seconds for row in rows])
    precision: Numbers = np.asarray(np.linalg.inv(prior.covariance), dtype=np.float64)
    whitening: Numbers = np.asarray(np.linalg.cholesky(precision).T, dtype=np.float64)
    begin = (start or prior).log_parameters
    noise, logs = NOISE_PRIOR, begin
    for _ in range(3):
        logs = _solve(logs, measured, configurations, prior, whitening, noise)
        found, jacobian = log_seconds_with_jacobian(logs, prior.sizes, configurations)
        residuals = measured - found
        weights = _weights(residuals / noise)
        covariance = _covariance(jacobian, weights, noise, precision)
        hat = weights * np.einsum("nk,nk->n", jacobian @ covariance, jacobian) / noise**2
        squares = NOISE_PRIOR_ROWS * NOISE_PRIOR**2 + float((weights * residuals**2).sum())
        noise = math.sqrt(squares / (NOISE_PRIOR_ROWS + len(rows) - float(hat.sum())))
    covariance = _covariance(jacobian, weights, noise, precision)
    errors, deviations = left_out(residuals, jacobian, covariance, weights, noise, _places(rows))
    model = StepTimeModel(
        sizes=prior.sizes,
        log_parameters=logs,
        covariance=covariance,
        noise=noise,
        interval_factor=interval_factor(errors, deviations, prior.coverage),
        coverage=prior.coverage,
        rows=len(rows),
    )
    outliers = [
        Outlier(index, row, float(np.exp(residual)))
        for index, (row, residual) in enumerate(zip(rows, residuals, strict=True))
        if abs(residual) > OUTLYING_AT * noise
    ]
    outliers.sort(key=lambda outlier: -abs(np.log(outlier.ratio)))
    return Fit(model, tuple(outliers))


def _places(rows: Sequence[Measurement]) -> list[Hashable]:
    """What is left out together: all of a placement, or of a plan on one if placements are few."""
    if len({row.shares for row in rows}) >= _FEWEST_PLACEMENTS:
        return [row.shares for row in rows]
    return [(row.plan, row.shares) for row in rows]


def _solve(
    begin: Numbers,
    measured: Numbers,
    configurations: Configurations,
    prior: StepTimeModel,
    whitening: Numbers,
    noise: float,
) -> Numbers:
    count = len(measured)

    def residuals(logs: Numbers) -> Numbers:
        off = np.log(step_seconds(logs, prior.sizes, configurations)) - measured
        return np.concatenate([off / noise, whitening @ (logs - prior.log_parameters)])

    def derivatives(logs: Numbers) -> Numbers:
        _, jacobian = log_seconds_with_jacobian(logs, prior.sizes, configurations)
        return np.vstack([jacobian / noise, whitening])

    def loss(squares: Numbers) -> Numbers:
        """Of a Student distribution for rows; the prior's part stays quadratic."""
        found = np.vstack([squares, np.ones_like(squares), np.zeros_like(squares)])
        weights = (_FREEDOM + 1) / (_FREEDOM + squares[:count])
        found[0, :count] = (_FREEDOM + 1) * np.log1p(squares[:count] / _FREEDOM)
        found[1, :count] = weights
        found[2, :count] = -weights / (_FREEDOM + squares[:count])
        return found

    reach = _REACH * np.sqrt(np.diag(prior.covariance))
    low, high = prior.log_parameters - reach, prior.log_parameters + reach
    inside = np.clip(begin, low + 1e-3 * reach, high - 1e-3 * reach)
    solved: Any = least_squares(
        residuals,
        inside,
        bounds=(low, high),
        jac=derivatives,
        loss=loss,
        method="trf",
        ftol=1e-7,
        xtol=1e-6,
        gtol=1e-6,
        max_nfev=100,
    )
    return np.asarray(solved.x, dtype=np.float64)


def _covariance(jacobian: Numbers, weights: Numbers, noise: float, precision: Numbers) -> Numbers:
    """Of parameters, given rows of this scatter and a prior of this precision."""
    information = precision + (jacobian * weights[:, None]).T @ jacobian / noise**2
    return np.asarray(np.linalg.inv(information), dtype=np.float64)


def _weights(scaled: Numbers) -> Numbers:
    """How much rows count that are so many deviations off."""
    return np.asarray((_FREEDOM + 1) / (_FREEDOM + scaled**2))
