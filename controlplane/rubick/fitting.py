"""Fitting the performance model to measured steps: robust, with priors, and with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import least_squares
from scipy.stats import t as student

from controlplane.rubick.configurations import Configurations, Numbers, Shares
from controlplane.rubick.step_time import StepTimeModel, log_seconds_with_jacobian, step_seconds
from headrace.api.plan import ExecutionPlan

NOISE_PRIOR = 0.06
"""What measured steps are expected to scatter by: standard deviation of their logarithm."""

NOISE_PRIOR_ROWS = 4.0
"""For how many rows that expectation counts."""

_ROBUST_AT = 1.5
"""Residuals beyond so many deviations count less and less (soft L1)."""

OUTLYING_AT = 4.0
"""Rows further off than so many deviations are named."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """A measured step.

    Attributes:
        plan: What was run.
        shares: Accelerators of each node.
        samples: Global batch.
        seconds: Median time of a step.
        cpu_threads: Of each accelerator.
        positions: Of a sample; 0 for the model's own.
    """

    plan: ExecutionPlan
    shares: Shares
    samples: int
    seconds: float
    cpu_threads: float = 1.0
    positions: int = 0


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


def columns(rows: Sequence[Measurement]) -> Configurations:
    """What was measured, without the times."""
    return Configurations.of(
        [row.plan for row in rows],
        [row.shares for row in rows],
        [row.samples for row in rows],
        cpu_threads=[row.cpu_threads for row in rows],
        positions=[row.positions for row in rows],
    )


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
    for index, row in enumerate(rows):
        if not (np.isfinite(row.seconds) and row.seconds > 0):
            raise ValueError(
                f"row {index} ({row.plan} on {'+'.join(map(str, row.shares))}): wanted a time "
                f"above 0 seconds, got {row.seconds}"
            )
    if not rows:
        return Fit(prior, ())
    configurations = columns(rows)
    measured = np.log([row.seconds for row in rows])
    precision = np.linalg.inv(prior.covariance)
    whitening = np.linalg.cholesky(precision).T
    begin = (start or prior).log_parameters
    noise = NOISE_PRIOR
    logs = begin
    for _ in range(3):
        logs = _solve(logs, measured, configurations, prior, whitening, noise)
        found, jacobian = log_seconds_with_jacobian(logs, prior.sizes, configurations)
        residuals = measured - found
        noise = _noise(residuals, noise)
    weights = _weights(residuals / noise)
    information = precision + (jacobian * weights[:, None]).T @ jacobian / noise**2
    covariance: Numbers = np.asarray(np.linalg.inv(information), dtype=np.float64)
    model = StepTimeModel(
        sizes=prior.sizes,
        log_parameters=logs,
        covariance=covariance,
        noise=noise,
        interval_factor=float(student.ppf((1 + prior.coverage) / 2, NOISE_PRIOR_ROWS + len(rows))),
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
        """Soft L1 for rows; the prior's part stays quadratic."""
        found = np.vstack([squares, np.ones_like(squares), np.zeros_like(squares)])
        root = np.sqrt(1 + squares[:count] / _ROBUST_AT**2)
        found[0, :count] = 2 * _ROBUST_AT**2 * (root - 1)
        found[1, :count] = 1 / root
        found[2, :count] = -1 / (2 * _ROBUST_AT**2 * root**3)
        return found

    solved: Any = least_squares(
        residuals,
        begin,
        jac=derivatives,
        loss=loss,
        method="trf",
        ftol=1e-7,
        xtol=1e-6,
        gtol=1e-6,
        max_nfev=100,
    )
    return np.asarray(solved.x, dtype=np.float64)


def _noise(residuals: Numbers, before: float) -> float:
    """Scatter of rows, with little weight for those far off, and a prior for few rows."""
    squares = _weights(residuals / before) * residuals**2
    total = NOISE_PRIOR_ROWS * NOISE_PRIOR**2 + float(squares.sum())
    return float(np.sqrt(total / (NOISE_PRIOR_ROWS + len(residuals))))


def _weights(scaled: Numbers) -> Numbers:
    return np.asarray(1 / np.sqrt(1 + (scaled / _ROBUST_AT) ** 2))
