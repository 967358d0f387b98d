"""Models with known parameters, and steps that such a model took."""

from collections.abc import Sequence

import numpy as np

from controlplane.rubick.configurations import Configurations, Shares
from controlplane.rubick.measurements import Measurement, columns
from controlplane.rubick.parameters import INDEX
from controlplane.rubick.priors import prior_for
from controlplane.rubick.sizes import ModelSizes
from controlplane.rubick.step_time import StepTimeModel, step_seconds
from headrace.api.plan import ExecutionPlan

SIZES = ModelSizes.of_numbers(336e6, 24, 1024, 512)
SAMPLES = 64
THREADS = 8.0

PLANS: Sequence[str] = (
    "dp{n}",
    "dp{n}-gc",
    "dp{n}-ga2",
    "dp{n}-z1",
    "dp{n}-z2",
    "dp{n}-z3",
    "dp{n}-z3-ga2-gc",
    "dp{n}-z2-offload",
    "dp{n}-z2-ga2-offload",
)
"""Plans of replicas, for so many accelerators."""

PLACEMENTS: Sequence[Shares] = ((1,), (2,), (4,), (8,), (2, 2), (4, 4), (1, 1, 2), (2, 6), (8, 8))


def truth(**changes: float) -> StepTimeModel:
    """A model that knows its parameters; ``changes`` are factors of the prior's medians."""
    prior = prior_for(SIZES, precision="fp32")
    logs = prior.log_parameters.copy()
    for name, factor in changes.items():
        logs[INDEX[name]] += np.log(factor)
    return StepTimeModel(SIZES, logs, prior.covariance * 1e-6, 1e-3, 1.645)


def pairs(placements: Sequence[Shares] = PLACEMENTS) -> list[tuple[ExecutionPlan, Shares]]:
    """Each plan on each placement."""
    return [
        (ExecutionPlan.parse(plan.format(n=sum(shares))), shares)
        for shares in placements
        for plan in PLANS
        if sum(shares) > 1 or plan not in ("dp{n}-z1", "dp{n}-z2", "dp{n}-z3", "dp{n}-z3-ga2-gc")
    ]


def configurations(placements: Sequence[Shares] = PLACEMENTS) -> Configurations:
    """The same as columns."""
    return columns(measured(truth(), placements))


def measured(
    model: StepTimeModel,
    placements: Sequence[Shares] = PLACEMENTS,
    scatter: float = 0.0,
    seed: int = 0,
) -> list[Measurement]:
    """Steps that this model takes, scattered by a standard deviation of their logarithm."""
    chance = np.random.default_rng(seed)
    rows = [Measurement(plan, shares, SAMPLES, 1.0, THREADS) for plan, shares in pairs(placements)]
    seconds = step_seconds(model.log_parameters, model.sizes, columns(rows))
    seconds = seconds * np.exp(scatter * chance.standard_normal(len(rows)))
    return [
        Measurement(row.plan, row.shares, row.samples, float(time), row.cpu_threads)
        for row, time in zip(rows, seconds, strict=True)
    ]
