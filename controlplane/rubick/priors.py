"""What is expected of a model before a step of it was measured: its sizes on known hardware.

The numbers of a type of hardware are rounded from data sheets and from what such links give in
practice; each is a median, and the spread beside it says how far off it may well be.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtri

from controlplane.rubick.parameters import INDEX, PARAMETERS
from controlplane.rubick.sizes import ModelSizes
from controlplane.rubick.step_time import StepTimeModel
from headrace.api.profile_rows import peak_flops

COVERAGE = 0.9
"""Of intervals, unless another one is asked for."""

_EFFICIENCY = 0.6
"""Part of the printed peak that large matrix products reach; what memory takes is counted apart."""

_EFFICIENCY_SPREAD = 0.4
_NOISE = 0.05


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known about a type of accelerators by its name.

    Attributes:
        intra_bytes_per_second: Of an all-reduce within a node.
        pcie_bytes_per_second: To host memory.
    """

    intra_bytes_per_second: float
    pcie_bytes_per_second: float


_HARDWARE: Mapping[str, _Known] = {
    "H100 80GB HBM3": _Known(1.5e11, 5e10),
    "H200": _Known(1.5e11, 5e10),
    "A100-SXM4": _Known(1e11, 2.2e10),
    "A800-SXM4": _Known(8e10, 2.2e10),
    "PCIe": _Known(1.5e10, 2.2e10),
}
"""By a part of the name; the first that is found counts."""

_CPU_FLOPS_PER_SECOND = 2e11
_CPU_BYTES_PER_SECOND = 2e9


def prior_for(
    sizes: ModelSizes, device: str = "", *, precision: str = "bf16", coverage: float = COVERAGE
) -> StepTimeModel:
    """A model from sizes and the name of an accelerator alone, with wide intervals.

    Args:
        sizes: Of the model.
        device: Name of the accelerator, as a profile's rows tell it (``cpu`` for slots without
            one); of another name, spreads are those of any hardware.
        precision: In which it computes: ``bf16`` or ``fp32``.
        coverage: Probability with which intervals are meant to hold a measured time.

    Raises:
        ValueError: The coverage is no probability.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage: wanted a probability between 0 and 1, got {coverage}")
    logs = np.log([parameter.typical for parameter in PARAMETERS])
    spreads = np.array([parameter.spread for parameter in PARAMETERS])

    def know(name: str, typical: float, spread: float) -> None:
        logs[INDEX[name]], spreads[INDEX[name]] = np.log(typical), spread

    peak = peak_flops(device, precision)
    if peak is not None:
        know("flops_per_second", _EFFICIENCY * peak, _EFFICIENCY_SPREAD)
    for part, known in _HARDWARE.items():
        if part in device:
            know("intra_bytes_per_second", known.intra_bytes_per_second, 0.5)
            know("pcie_bytes_per_second", known.pcie_bytes_per_second, 0.5)
            break
    if device == "cpu":
        know("flops_per_second", _CPU_FLOPS_PER_SECOND, 1.5)
        know("intra_bytes_per_second", _CPU_BYTES_PER_SECOND, 1.5)
        know("optimizer_seconds_per_parameter", 2e-9, 1.5)
    factor = float(ndtri((1 + coverage) / 2))
    return StepTimeModel(sizes, logs, np.diag(spreads**2), _NOISE, factor, coverage)


def transferred(known: StepTimeModel, sizes: ModelSizes) -> StepTimeModel:
    """What a fitted model tells about another model on accelerators of the same type.

    Parameters are divided by the sizes of a model, so they carry over, each with a spread of its
    own between models.
    """
    spreads = np.array([parameter.transfers for parameter in PARAMETERS])
    return replace(
        known,
        sizes=sizes,
        covariance=known.covariance + np.diag(spreads**2),
        interval_factor=max(known.interval_factor, float(ndtri((1 + known.coverage) / 2))),
        rows=0,
    )
