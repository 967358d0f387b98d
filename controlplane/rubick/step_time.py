"""How long a step of a plan takes on a placement: the performance model that Headrace fits.

It keeps the form of the Rubick paper (MLSys 2025, section 4): a forward pass, a backward pass that
overlaps the exchange of gradients, an optimizer and what offload moves. It differs in what it
learns and what it is told:

- Computing is predicted from arithmetic and a rate, and from what activations, weights and
  gradients take of memory's time, not supplied for each configuration.
- Of the shorter of backward pass and exchange a fitted part is not hidden, in place of a p-norm.
- Accelerators wait for the host where they have little to compute, so halving their work does not
  halve the step.
- Both bandwidths are fitted. Between nodes, the smallest number of accelerators on any node decides
  how many network cards work for the job.
- Each further node, and each step, costs time that does not shrink with more accelerators.
- ZeRO-1 and 3, pipelines and micro-batches of a sharded model are parts of it.
- Each prediction has an interval.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from controlplane.rubick.configurations import Configurations, Numbers
from controlplane.rubick.parameters import NAMES
from controlplane.rubick.sizes import ModelSizes
from controlplane.rubick.step_equations import StepEquations

_BLOCK = 1024
"""Predictions at once: as many as have room in a core's cache with their derivatives."""


class StepTimes(NamedTuple):
    """Predictions, one number for each configuration, in seconds.

    Attributes:
        seconds: The median.
        lower: Lower end of the interval.
        upper: Upper end of it.
    """

    seconds: Numbers
    lower: Numbers
    upper: Numbers


@dataclass(frozen=True, slots=True)
class StepTimeModel:
    """What is known about the steps of one model on one type of accelerator.

    Attributes:
        sizes: Of the model.
        log_parameters: Logarithms of `PARAMETERS`.
        covariance: Of these, as far as priors and measurements do not settle them.
        noise: Standard deviation of the logarithm of a measured time, beside the parameters'.
        interval_factor: How many standard deviations the interval reaches to each side.
        coverage: Probability with which the interval is meant to hold a measured time.
        rows: Measurements that it was fitted to; 0 for a prior.
    """

    sizes: ModelSizes
    log_parameters: Numbers
    covariance: Numbers
    noise: float
    interval_factor: float
    coverage: float = 0.9
    rows: int = 0

    def predict(self, configurations: Configurations) -> StepTimes:
        """Seconds of a step, with an interval that is meant to hold `coverage` of all steps."""
        blocks = [
            self._block(configurations.take(slice(first, first + _BLOCK)))
            for first in range(0, max(len(configurations), 1), _BLOCK)
        ]
        return StepTimes(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))

    def _block(self, configurations: Configurations) -> StepTimes:
        logs, jacobian = log_seconds_with_jacobian(self.log_parameters, self.sizes, configurations)
        spread = self.interval_factor * self.deviations(jacobian)
        return StepTimes(np.exp(logs), np.exp(logs - spread), np.exp(logs + spread))

    def seconds(self, configurations: Configurations) -> Numbers:
        """The medians alone, many times faster."""
        return step_seconds(self.log_parameters, self.sizes, configurations)

    def deviations(self, jacobian: Numbers) -> Numbers:
        """Standard deviations of logarithms of times with these derivatives."""
        rows = jacobian.T  # as they lie in memory
        of_parameters = ((self.covariance @ rows) * rows).sum(axis=0)
        found: Numbers = np.sqrt(np.maximum(of_parameters, 0.0) + self.noise**2)
        return found

    def parameters(self) -> dict[str, float]:
        """Fitted numbers by name."""
        return dict(zip(NAMES, np.exp(self.log_parameters).tolist(), strict=True))


def log_seconds_with_jacobian(
    log_parameters: Numbers, sizes: ModelSizes, configurations: Configurations
) -> tuple[Numbers, Numbers]:
    """Logarithms of times (N), and their derivatives by the parameters' logarithms (N, K)."""
    steps = StepEquations(log_parameters, sizes, configurations)
    return np.log(steps.seconds), steps.derivatives()


def step_seconds(
    log_parameters: Numbers, sizes: ModelSizes, configurations: Configurations
) -> Numbers:
    """Times of a step (N)."""
    return StepEquations(log_parameters, sizes, configurations).seconds
