"""How long a step of a plan takes on a placement: the performance model that Headrace fits.

It keeps the form of the Rubick paper (MLSys 2025, section 4): a forward pass, a backward pass that
overlaps the exchange of gradients by a p-norm, an optimizer and what offload moves. It differs in
what it learns and what it is told:

- Computing is predicted from arithmetic and a rate, not supplied for each configuration.
- Accelerators wait for the host where they have little to compute, so halving their work does not
  halve the step.
- Both bandwidths are fitted. Between nodes, the smallest number of accelerators on any node decides
  how many network cards work for the job.
- Each further node, and each step, costs time that does not shrink with more accelerators.
- ZeRO-1 and 3, pipelines and micro-batches of a sharded model are parts of it.
- Each prediction has an interval.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from controlplane.rubick.configurations import Configurations, Numbers
from controlplane.rubick.parameters import INDEX, NAMES
from controlplane.rubick.sizes import ModelSizes

_GRADIENT_BYTES = 4.0
_BACKWARD = 2 / 3
"""Of the arithmetic of a step without checkpointing, what the backward pass does."""

_DIFFERENCE = 1e-5
"""Step of the logarithms of parameters for differences."""


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
        logs, jacobian = log_seconds_with_jacobian(self.log_parameters, self.sizes, configurations)
        spread = self.interval_factor * self.deviations(jacobian)
        return StepTimes(np.exp(logs), np.exp(logs - spread), np.exp(logs + spread))

    def seconds(self, configurations: Configurations) -> Numbers:
        """The medians alone, many times faster."""
        return step_seconds(self.log_parameters, self.sizes, configurations)

    def deviations(self, jacobian: Numbers) -> Numbers:
        """Standard deviations of logarithms of times with these derivatives."""
        of_parameters = np.einsum("nk,kl,nl->n", jacobian, self.covariance, jacobian)
        found: Numbers = np.sqrt(np.maximum(of_parameters, 0.0) + self.noise**2)
        return found

    def parameters(self) -> dict[str, float]:
        """Fitted numbers by name."""
        return dict(zip(NAMES, np.exp(self.log_parameters).tolist(), strict=True))


def p_norm(exponent: Numbers | float, one: Numbers, other: Numbers) -> Numbers:
    """How long two things take that overlap: (x^k + y^k)^(1/k), k from 1 (their sum) upwards.

    Large exponents give the longer of the two (paper, section 4.2; Pollux, OSDI 2021).
    """
    longer = np.maximum(one, other)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(longer > 0, np.minimum(one, other) / longer, 0.0)
    found: Numbers = longer * (1 + ratio**exponent) ** (1 / exponent)
    return found


def log_seconds_with_jacobian(
    log_parameters: Numbers, sizes: ModelSizes, configurations: Configurations
) -> tuple[Numbers, Numbers]:
    """Logarithms of times (N), and their derivatives by the parameters' logarithms (N, K)."""
    count = len(log_parameters)
    moved = log_parameters + np.vstack([np.zeros(count), _DIFFERENCE * np.eye(count)])
    logs = np.log(step_seconds(moved, sizes, configurations))
    return logs[0], ((logs[1:] - logs[0]) / _DIFFERENCE).T


def step_seconds(
    log_parameters: Numbers, sizes: ModelSizes, configurations: Configurations
) -> Numbers:
    """Times of a step.

    Args:
        log_parameters: Logarithms, of shape (K,), or (M, K) for several sets of parameters.
        sizes: Of the model.
        configurations: N pairs.

    Returns:
        Seconds, of shape (N,) or (M, N).
    """
    values = np.exp(log_parameters)

    def value(name: str) -> Numbers:
        found: Numbers = values[..., INDEX[name], np.newaxis]
        return found

    step = _Step(sizes, configurations, value)
    return step.seconds()


class _Step:
    """The parts of a step; names are those of the equations in docs."""

    def __init__(
        self, sizes: ModelSizes, c: Configurations, value: Callable[[str], Numbers]
    ) -> None:
        self.sizes, self.c, self.value = sizes, c, value
        self.is_sharded = (c.zero_stage >= 2) | (c.offloads > 0)
        self.is_replicated = c.data_parallel > 1
        self.is_pipeline = c.pipeline_parallel > 1
        self.positions = np.where(c.positions > 0, c.positions, sizes.positions)
        self.micro_samples = c.samples / (c.data_parallel * c.accumulation)
        # Of numbers of parameters: what a rank computes with, and what its replicas exchange.
        self.owned = sizes.parameters / (c.tensor_parallel * c.pipeline_parallel)

    def seconds(self) -> Numbers:
        c, value = self.c, self.value
        micro = self._micro_batch()
        recomputed = value("recomputed_fraction") * c.checkpoints
        backward = micro * (_BACKWARD + recomputed) / (1 + recomputed)
        exchanged, exposed = self._exchange()
        times = np.where(self.is_sharded & ~self.is_pipeline, c.accumulation, 1.0)
        overlap = 1 + value("overlap_exponent_less_one")
        bubble = np.where(c.is_zero_bubble > 0, value("zero_bubble_fraction"), c.bubble)
        idle = bubble * (c.pipeline_parallel - 1)
        return (
            (c.accumulation + idle) * micro
            + times * (p_norm(overlap, backward, exchanged) - backward + exposed)
            + self._optimizer()
            + self._offload()
            + value("fixed_seconds")
            + self._uneven()
        )

    def _micro_batch(self) -> Numbers:
        """Forward and backward pass of a micro-batch on the pipeline rank that has most to do."""
        c, sizes, value = self.c, self.sizes, self.value
        s = self.positions
        flops = (
            self.micro_samples * s * (sizes.flops_per_position + sizes.flops_per_position_pair * s)
        )
        head = np.where(self.is_pipeline, sizes.head_fraction, 0.0)
        part = (1 - head) / c.pipeline_parallel + head
        compute = flops * part / (c.tensor_parallel * value("flops_per_second"))
        compute = compute * (1 + value("recomputed_fraction") * c.checkpoints)
        more = (
            1
            + value("launch_more_checkpointed") * c.checkpoints
            + value("launch_more_replicated") * (self.is_replicated & ~self.is_sharded)
            + value("launch_more_sharded") * self.is_sharded
            + value("launch_more_gathered") * (c.zero_stage == 3)
            + value("launch_more_tensor") * (c.tensor_parallel > 1)
        )
        blocks = sizes.layers / c.pipeline_parallel
        launch = blocks * value("launch_seconds_per_block") * more
        exponent = 1 + value("launch_exponent_less_one")
        return p_norm(exponent, compute, launch) + self._activations(blocks)

    def _activations(self, blocks: Numbers) -> Numbers:
        """What tensor-parallel ranks and neighbouring stages exchange, which nothing hides."""
        c, value = self.c, self.value
        number = self.sizes.bytes_per_number
        size = number * self.micro_samples * self.positions * self.sizes.hidden
        t = c.tensor_parallel
        # Two all-reduces forward, two backward, two more where the forward pass runs again.
        volume = (4 + 2 * c.checkpoints) * 2 * (t - 1) / t * size * blocks
        inside = value("intra_bytes_per_second") * value("tensor_bandwidth_fraction")
        bandwidth = np.where(c.smallest_share >= t, inside, value("inter_bytes_per_second"))
        between = np.where(
            c.nodes > 1, value("inter_bytes_per_second"), value("intra_bytes_per_second")
        )
        handed = 2 * size / between + value("pipeline_seconds_per_stage")
        return volume / bandwidth + np.where(self.is_pipeline, handed, 0.0)

    def _exchange(self) -> tuple[Numbers, Numbers]:
        """Of gradients and weights among replicas: what overlaps the backward pass, what does not.

        Of one micro-batch where the model is sharded, else of a step.
        """
        c, value = self.c, self.value
        d = c.data_parallel
        inside = value("intra_bytes_per_second")
        # All slices of a node leave it by the same cards.
        share = c.replica_smallest_share
        cards = np.ceil(share / 2) ** value("card_exponent") * share ** value("share_exponent")
        outside = value("inter_bytes_per_second") * cards / c.tensor_parallel
        bandwidth = np.where(c.replica_nodes > 1, outside, inside)
        per_byte = self.owned * (d - 1) / d / bandwidth
        reduced = _GRADIENT_BYTES * per_byte
        gathered = self.sizes.bytes_per_number * per_byte
        overlapped = np.where(self.is_sharded, 1.0, 2.0) * reduced
        overlapped = overlapped + np.where(c.zero_stage == 3, 2 * gathered, 0.0)
        latency = value("latency_seconds_per_node") * (c.replica_nodes - 1)
        exposed = np.where(c.zero_stage == 2, value("exposed_gather_fraction") * gathered, 0.0)
        # ZeRO-1 sends new weights after the update.
        exposed = exposed + np.where(c.zero_stage == 1, reduced, 0.0)
        return overlapped, exposed + latency

    def _uneven(self) -> Numbers:
        c, value = self.c, self.value
        mixed = (c.largest_share > c.smallest_share) * value("mixed_seconds")
        size = (c.accelerators - 1.0) ** value("uneven_exponent")
        return np.where(
            (c.uneven_nodes > 0) & (c.offloads == 0), size * (value("uneven_seconds") + mixed), 0.0
        )

    def _optimizer(self) -> Numbers:
        c, value = self.c, self.value
        among = np.where(c.zero_stage >= 1, c.data_parallel, 1.0)
        here = value("optimizer_seconds_per_parameter") * self.owned / among
        here = here + value("shared_optimizer_seconds") * ((c.zero_stage >= 1) & self.is_replicated)
        workers = c.data_parallel * np.maximum(c.cpu_threads, 1.0)
        on_cpu = value("cpu_optimizer_seconds_per_parameter") * self.owned
        on_cpu = on_cpu * workers ** -value("cpu_optimizer_exponent")
        return np.where(c.offloads > 0, on_cpu, here)

    def _offload(self) -> Numbers:
        """Weights to the accelerator and gradients back, with each micro-batch."""
        c, value = self.c, self.value
        size = _GRADIENT_BYTES * self.owned / c.data_parallel
        ways = np.where(c.zero_stage == 3, 3.0, 2.0)
        moved = c.accumulation * ways * size / value("pcie_bytes_per_second")
        # Gradients of later micro-batches are added to those that are there already.
        added = (c.accumulation - 1) * size * value("accumulated_offload_seconds_per_byte")
        return np.where(c.offloads > 0, moved + added, 0.0)
