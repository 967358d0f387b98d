"""The performance model as the Rubick paper publishes it (MLSys 2025, section 4), for comparison.

Seven numbers are fitted for each model; forward times are profiled and bandwidths given. The
equations are those of the authors' artifact, in its units: milliseconds, parameters in units of
2**20, bandwidths in GB/s, four bytes a number. Two versions of it differ in how offload overlaps:
by constants that are added (the version of the artifact evaluation, which reproduces the paper's
Table 2), or by the same p-norm as communication (the version before).

What it does not do is why Headrace fits another one (`step_time`): both bandwidths are given and
not fitted, a forward time is halved when accelerators are doubled, and ZeRO-1 and 3, bubbles of a
pipeline and micro-batches of one are unknown to it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize

from controlplane.rubick.configurations import Configurations, Numbers
from controlplane.rubick.step_equations import p_norm

_MEBI = 2.0**20
_NUMBER_BYTES = 4.0
_RING_3D_GB_PER_SECOND = 20.0
"""Between nodes, of the artifact's 3D function."""

NETWORK_GB_PER_SECOND = 2.0
"""Between nodes, of the artifact's function for data parallelism."""


class Offloading(StrEnum):
    """How offload overlaps what it runs beside."""

    ADDITIVE = "additive"
    P_NORM = "p-norm"


@dataclass(frozen=True, slots=True)
class PublishedParameters:
    """The seven fitted numbers, by the paper's and the artifact's names.

    Attributes:
        k_bwd: Backward pass over forward pass.
        k_sync: Exponent of the overlap of backward pass and communication.
        k_opt: Milliseconds of the optimizer for 2**20 parameters.
        k_opt_off: The same on one CPU thread.
        k_const: Milliseconds of a step beside all else.
        k_off: Of communication and offload: milliseconds, or an exponent.
        k_swap: Of optimizer and offload: milliseconds, or an exponent.
    """

    k_bwd: float
    k_sync: float
    k_opt: float
    k_opt_off: float
    k_const: float
    k_off: float
    k_swap: float


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """The published model of one type of model.

    Attributes:
        parameters: Fitted.
        mebi_parameters: Trained weights in units of 2**20.
        pcie: GB/s to host memory.
        nvlink: GB/s within a node.
        network: GB/s between nodes.
        offloading: Which of the two versions.
    """

    parameters: PublishedParameters
    mebi_parameters: float
    pcie: float
    nvlink: float
    network: float = NETWORK_GB_PER_SECOND
    offloading: Offloading = Offloading.ADDITIVE

    def data_parallel_milliseconds(
        self,
        forward: ArrayLike,
        gpus: ArrayLike,
        *,
        threads: ArrayLike = 1.0,
        is_zero: ArrayLike = False,
        offloads: ArrayLike = False,
        crosses_nodes: ArrayLike = False,
        alphas: tuple[ArrayLike, ArrayLike, ArrayLike] = (1.0, 1.0, 1.0),
    ) -> Numbers:
        """A step of a plan of the DP family.

        Args:
            forward: Milliseconds of a forward pass of an accumulation step on one GPU.
            gpus: In all.
            threads: CPU threads of each GPU.
            is_zero: Whether the optimizer is divided among GPUs (ZeRO-DP).
            offloads: Whether it runs on CPUs (ZeRO-Offload).
            crosses_nodes: Whether the slower bandwidth counts.
            alphas: Multipliers of forward, backward and communication, by strategy.
        """
        k = self.parameters
        n = np.asarray(gpus, dtype=np.float64)
        forward = np.asarray(forward, dtype=np.float64)
        alpha_f, alpha_b, alpha_c = (np.asarray(alpha, dtype=np.float64) for alpha in alphas)
        backward = k.k_bwd * forward
        bandwidth = np.where(crosses_nodes, self.network, self.nvlink)
        volume = 2 * _NUMBER_BYTES * self.mebi_parameters * (n - 1) / n
        exchanged = p_norm(k.k_sync, backward, alpha_c * volume / bandwidth)
        moved = np.where(offloads, _NUMBER_BYTES * self.mebi_parameters / n / self.pcie, 0.0)
        on_cpu = k.k_opt_off * self.mebi_parameters / (n * np.asarray(threads))
        on_gpu = k.k_opt * self.mebi_parameters / np.where(is_zero, n, 1.0)
        optimizer = np.where(offloads, on_cpu, on_gpu)
        return np.asarray(
            alpha_f * forward
            + (alpha_b - 1) * backward
            + self._communicated_and_offloaded(exchanged, moved)
            + self._optimized_and_offloaded(optimizer, moved)
            + k.k_const
        )

    def _communicated_and_offloaded(self, exchanged: Numbers, moved: Numbers) -> Numbers:
        k_off = self.parameters.k_off
        if self.offloading is Offloading.P_NORM:
            return p_norm(max(k_off, 1.0), exchanged, moved)
        return np.where(moved > 0, exchanged + k_off + moved, exchanged)

    def _optimized_and_offloaded(self, optimizer: Numbers, moved: Numbers) -> Numbers:
        k_swap = self.parameters.k_swap
        if self.offloading is Offloading.P_NORM:
            return p_norm(max(k_swap, 1.0), optimizer, moved)
        return optimizer + k_swap + moved  # the constant is there without offload too

    def three_dimensional_milliseconds(
        self,
        forward: ArrayLike,
        *,
        pipeline: ArrayLike,
        tensor: ArrayLike,
        nodes: ArrayLike,
        gpus_per_node: ArrayLike,
        samples: int,
        sequence_times_hidden: float,
        layers: int,
    ) -> Numbers:
        """A step of a 3D plan, with the forward time that was profiled for just this plan.

        It divides without remainder, as the artifact does, which makes up to a percent.
        """
        k = self.parameters
        p, t, w, g = (
            np.asarray(x, dtype=np.float64) for x in (pipeline, tensor, nodes, gpus_per_node)
        )
        forward = np.asarray(forward, dtype=np.float64)
        d = w * g // t // p
        micro = samples // d
        size = micro * sequence_times_hidden
        tensor_exchange = 4 * 2 * _NUMBER_BYTES * size * (t - 1) / t * layers / _MEBI / self.nvlink
        handed = 2 * 2 * _NUMBER_BYTES * size // t / _RING_3D_GB_PER_SECOND / _MEBI * p
        bandwidth = np.where((g > t) & (p == w), self.nvlink, _RING_3D_GB_PER_SECOND)
        replicas = 2 * _NUMBER_BYTES * (d - 1) / d * self.mebi_parameters // t / p / bandwidth
        return np.asarray(
            forward
            + p_norm(k.k_sync, k.k_bwd * forward, replicas)
            + self.mebi_parameters / t / p * k.k_opt
            + k.k_const
            + np.where(p > 1, handed, 0.0)
            + tensor_exchange
        )

    def seconds(self, configurations: Configurations, forward: float) -> Numbers:
        """Steps of plans of the DP family, as the artifact's scheduler asks for them.

        Args:
            configurations: Without tensor parallelism and pipelines.
            forward: Milliseconds of a forward pass of the whole batch on one GPU.

        Raises:
            ValueError: One of them is of another family.
        """
        c = configurations
        if bool(np.any(c.data_parallel != c.accelerators)):
            raise ValueError(
                "wanted plans with replicas alone, got tensor parallelism or a pipeline; "
                "three_dimensional_milliseconds takes them with a forward time each"
            )
        steps = c.accumulation
        alpha_c = np.where((c.zero_stage > 0) & (c.offloads == 0), steps, 1.0)
        found = self.data_parallel_milliseconds(
            forward / c.accelerators / steps,
            c.accelerators,
            threads=c.cpu_threads,
            is_zero=c.zero_stage > 0,
            offloads=c.offloads > 0,
            crosses_nodes=c.nodes > 1,
            alphas=(steps * (1 + c.checkpoints), steps, alpha_c),
        )
        return found / 1000


@dataclass(frozen=True, slots=True)
class ProfiledPoint:
    """One of the points that the published model is fitted to; times in milliseconds.

    Attributes:
        gpus: Of one node.
        threads: CPU threads of each.
        is_zero: ZeRO-DP.
        offloads: ZeRO-Offload.
        forward: Forward pass.
        backward: Backward pass with communication and offload beside it.
        optimizer: The update with offload beside it.
        step: All.
        alphas: Multipliers of forward, backward and communication.
    """

    gpus: int
    threads: int
    is_zero: bool
    offloads: bool
    forward: float
    backward: float
    optimizer: float
    step: float
    alphas: tuple[float, float, float] = (1.0, 1.0, 1.0)


_START = PublishedParameters(1.5, 1.1, 0.001, 1.0, 1.0, 1.0, 1.0)
_LOWER: Mapping[Offloading, tuple[float, ...]] = {
    Offloading.ADDITIVE: (1, 1, 1e-8, 1e-8, 1e-8, 0, 0),
    Offloading.P_NORM: (1, 1, 1e-8, 1e-8, 1e-8, 1, 1),
}


def fit_published(
    points: Sequence[ProfiledPoint],
    mebi_parameters: float,
    pcie: float,
    nvlink: float,
    offloading: Offloading = Offloading.ADDITIVE,
) -> PublishedModel:
    """The artifact's fit: the sum of three root mean square errors of logarithms, within bounds.

    Raises:
        ValueError: There are no points.
    """
    if not points:
        raise ValueError("wanted points that were profiled, got none")
    measured = np.array([(x.backward, x.optimizer, x.step) for x in points]).T

    def loss(values: Numbers) -> float:
        model = PublishedModel(
            PublishedParameters(*values), mebi_parameters, pcie, nvlink, offloading=offloading
        )
        errors = np.log(_phases(model, points)) - np.log(measured)
        return float(np.sqrt((errors**2).mean(axis=1)).sum())

    bounds = [(low, 10.0 if i == 0 else 1e6) for i, low in enumerate(_LOWER[offloading])]
    found: Any = minimize(loss, np.array(astuple(_START)), method="L-BFGS-B", bounds=bounds)
    parameters = PublishedParameters(*(float(value) for value in found.x))
    return PublishedModel(parameters, mebi_parameters, pcie, nvlink, offloading=offloading)


def _phases(model: PublishedModel, points: Sequence[ProfiledPoint]) -> Numbers:
    """Backward pass with what is beside it, update with what is beside it, and all of a step."""
    found = []
    for x in points:
        step = model.data_parallel_milliseconds(
            x.forward,
            x.gpus,
            threads=x.threads,
            is_zero=x.is_zero,
            offloads=x.offloads,
            alphas=x.alphas,
        )
        size = model.mebi_parameters / x.gpus
        moved = np.asarray(_NUMBER_BYTES * size / model.pcie if x.offloads else 0.0)
        k = model.parameters
        whole = size if x.is_zero else model.mebi_parameters
        update = np.asarray(k.k_opt_off * size / x.threads if x.offloads else k.k_opt * whole)
        optimizer = model._optimized_and_offloaded(update, moved)
        backward = step - optimizer - k.k_const - x.alphas[0] * x.forward
        found.append((float(backward), float(optimizer), float(step)))
    return np.array(found).T
