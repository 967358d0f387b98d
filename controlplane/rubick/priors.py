"""What is expected of a model before a step of it was measured: its sizes on known hardware."""

import numpy as np

from controlplane.rubick.parameters import INDEX, PARAMETERS
from controlplane.rubick.sizes import ModelSizes
from controlplane.rubick.step_time import StepTimeModel
from headrace.api.profile_rows import peak_flops

_EFFICIENCY = 0.45
"""Part of the printed peak that transformers reach."""

_NOISE = 0.06
_FACTOR_90 = 1.645


def prior_for(
    sizes: ModelSizes, device: str = "", *, precision: str = "bf16", coverage: float = 0.9
) -> StepTimeModel:
    """A model from sizes and the name of an accelerator alone, with wide intervals.

    Args:
        sizes: Of the model.
        device: Name of the accelerator, as it calls itself; empty or unknown for any.
        precision: In which it computes.
        coverage: Of intervals.
    """
    logs = np.log([parameter.typical for parameter in PARAMETERS])
    spreads = np.array([parameter.spread for parameter in PARAMETERS])
    peak = peak_flops(device, precision)
    if peak is not None:
        logs[INDEX["flops_per_second"]] = np.log(_EFFICIENCY * peak)
        spreads[INDEX["flops_per_second"]] = 0.5
    return StepTimeModel(sizes, logs, np.diag(spreads**2), _NOISE, _FACTOR_90, coverage)


def transferred(known: StepTimeModel, sizes: ModelSizes) -> StepTimeModel:
    """What a fitted model tells about another model on the same accelerators."""
    spreads = np.array([parameter.transfers for parameter in PARAMETERS])
    covariance = known.covariance + np.diag(spreads**2)
    return StepTimeModel(
        sizes, known.log_parameters, covariance, known.noise, known.interval_factor, known.coverage
    )
