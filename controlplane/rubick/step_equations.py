"""The equations of a step's time, and their derivatives by the parameters' logarithms.

With the symbols of the paper (MLSys 2025, section 4): d, t, p for replicas, tensor and pipeline
parallelism, a for micro-batches, f(k; x, y) for the p-norm of two things that overlap. For one
micro-batch on the pipeline rank that has most to do:

    compute = (arithmetic / (t * rate) + activations / memory) * (1 + recomputed)
              + weights and gradients / memory
    launch  = blocks * seconds per block * (kernels + more by kind of plan)
    micro   = f(k_launch; compute, launch) + activations between slices and stages

and for a step, with "times" being a for sharded models and 1 otherwise:

    step = (a + bubble * (p - 1)) * micro
         + times * (longer + contended * shorter - backward + exposed + latency)
         + optimizer + offload + uneven + fixed

where longer and shorter are of the backward pass and the exchange of gradients. The paper has a
p-norm there as well; but what is exchanged takes multiprocessors and memory from what is computed
for as long as it lasts, however short, and a p-norm hides a short exchange all but completely.
Memory's speed is the optimizer's, which does nothing but read and write.
"""

from collections.abc import Callable

import numpy as np

from controlplane.rubick.configurations import Configurations, Numbers
from controlplane.rubick.parameters import INDEX, NAMES
from controlplane.rubick.sizes import ModelSizes

_GRADIENT_BYTES = 4.0
_BACKWARD = 2 / 3
"""Of the arithmetic of a step without checkpointing, what the backward pass does."""

_OPTIMIZER_BYTES = 28.0
"""AdamW's for a parameter: weight, gradient and moments read, all but the gradient written."""

_UNDIVIDED_FRACTION = 10 / 34
"""Of a block's activations, what tensor parallelism leaves whole: norms and residuals (Korthikanti
et al., MLSys 2023: 10 + 24 / t of 34 bytes)."""

_CARD_ACCELERATORS = 2
"""Accelerators that share a network card, as in hosts of eight with four; how much a further card
gives is fitted, and so is what a further accelerator on a card gives."""


_ROUNDED_MAXIMUM = 8.0
"""Exponent of a p-norm that is nearly a maximum, and has no corner for a fit to get stuck at."""

_NOTHING = 1e-300
"""Instead of 0, where a logarithm is taken."""


def p_norm(exponent: float, one: Numbers, other: Numbers) -> Numbers:
    """How long two things take that overlap: (x^k + y^k)^(1/k), k from 1 (their sum) upwards.

    Large exponents give the longer of the two (paper, section 4.2; Pollux, OSDI 2021).
    """
    longer = np.maximum(one, other)
    ratio = np.minimum(one, other) / np.where(longer > 0, longer, 1.0)
    found: Numbers = longer * (1 + ratio**exponent) ** (1 / exponent)
    return found


class StepEquations:
    """All parts of the steps of some configurations, for one set of parameters.

    Args:
        log_parameters: Logarithms of `PARAMETERS` (K).
        sizes: Of the model.
        configurations: N pairs of plan and placement.
    """

    def __init__(
        self, log_parameters: Numbers, sizes: ModelSizes, configurations: Configurations
    ) -> None:
        self._values = np.exp(log_parameters).tolist()
        self.sizes, self.c = sizes, configurations
        c = configurations
        self.is_offloaded = c.offloads > 0
        self.is_sharded = (c.zero_stage >= 2) | self.is_offloaded
        self.is_pipeline = c.pipeline_parallel > 1
        self.is_tensor = c.tensor_parallel > 1
        self.is_gathered = c.zero_stage == 3
        self.is_inside = c.replica_nodes <= 1
        self.is_slice_inside = c.smallest_share >= c.tensor_parallel
        # Of numbers of parameters: what a rank computes with.
        self.owned = sizes.parameters / (c.tensor_parallel * c.pipeline_parallel)
        self._micro_batch()
        self._exchange()
        self._update()
        self._offload()
        self._whole()

    def value(self, name: str) -> float:
        """A parameter."""
        found: float = self._values[INDEX[name]]
        return found

    def _micro_batch(self) -> None:
        """Forward and backward pass of a micro-batch."""
        c, sizes, value = self.c, self.sizes, self.value
        s = np.where(c.positions > 0, c.positions, sizes.positions)
        samples = c.samples / (c.data_parallel * c.accumulation)
        head = np.where(self.is_pipeline, sizes.head_fraction, 0.0)
        part = ((1 - head) / c.pipeline_parallel + head) / c.tensor_parallel
        flops = samples * s * (sizes.flops_per_position + sizes.flops_per_position_pair * s)
        self.recomputed = value("recomputed_fraction") * c.checkpoints
        self.multiplied = flops * part / value("flops_per_second")
        self.blocks = sizes.layers / c.pipeline_parallel
        of_byte = value("optimizer_seconds_per_parameter") / _OPTIMIZER_BYTES
        undivided = _UNDIVIDED_FRACTION + (1 - _UNDIVIDED_FRACTION) / c.tensor_parallel
        numbers = samples * s * sizes.hidden * self.blocks * sizes.relative_launches
        self.passed = numbers * undivided * value("activation_bytes_per_number") * of_byte
        self.compute_once = self.multiplied + self.passed
        self.touched = self.owned * value("touched_bytes_per_parameter") * of_byte
        self.compute = self.compute_once * (1 + self.recomputed) + self.touched
        self.launch_once = self.blocks * value("launch_seconds_per_block")
        self.launch = self.launch_once * self._launches()
        self.launch_exponent = 1 + value("launch_exponent_less_one")
        self.worked = p_norm(self.launch_exponent, self.compute, self.launch)
        self._activations(sizes.bytes_per_number * samples * s * sizes.hidden)
        self.micro = (
            self.worked
            + self.slices
            + c.stages_per_rank
            * (self.handed + value("pipeline_seconds_per_stage") * self.is_pipeline)
        )
        self.backward_part = (_BACKWARD + self.recomputed) / (1 + self.recomputed)
        self.backward = self.micro * self.backward_part

    def _launches(self) -> Numbers:
        """How many times the host's work for the kernels of a GPT-2 block.

        What computes is kernels of the model's own number; what shards and exchanges is hooks
        around a block and its weights, whatever the block computes.
        """
        c, value = self.c, self.value
        kernels = self.sizes.relative_launches
        self.more_tensor = kernels * value("launch_more_tensor") * self.is_tensor
        self.more_again = kernels * value("launch_more_checkpointed") * c.checkpoints
        # Of what slices exchange, the forward pass has half, and does it again.
        self.more_checkpointed = self.more_again + self.more_tensor / 2 * c.checkpoints
        self.more_accumulated = self.is_sharded * (1 - 1 / c.accumulation)
        self.more_sharded = (
            value("launch_more_sharded") * self.is_sharded
            + value("launch_more_gathered") * self.is_gathered
            + value("launch_more_accumulated") * self.more_accumulated
        )
        # Blocks are gathered while others are computed again: the two hide each other in part.
        self.more_both = np.hypot(self.more_checkpointed, self.more_sharded)
        self.is_replicated = (c.data_parallel > 1) & ~self.is_sharded
        replicated = value("launch_more_replicated") * self.is_replicated
        return np.asarray(kernels + self.more_both + replicated + self.more_tensor)

    def _activations(self, size: Numbers) -> None:
        """What tensor-parallel ranks and neighbouring stages exchange, which nothing hides."""
        c, value = self.c, self.value
        t = c.tensor_parallel
        # Two all-reduces forward, two backward, two more where the forward pass runs again.
        volume = (4 + 2 * c.checkpoints) * 2 * (t - 1) / t * size * self.blocks
        inside = value("intra_bytes_per_second") * value("tensor_bandwidth_fraction")
        outside = value("inter_bytes_per_second")
        self.slices = volume / np.where(self.is_slice_inside, inside, outside)
        between = np.where(c.nodes > 1, outside, value("intra_bytes_per_second"))
        self.handed = np.where(self.is_pipeline, 2 * size / between, 0.0)

    def _exchange(self) -> None:
        """Of gradients and weights among replicas.

        Of one micro-batch where the model is sharded, else of a step: what overlaps the backward
        pass, and what does not.
        """
        c, value = self.c, self.value
        d, share = c.data_parallel, c.replica_smallest_share
        # All slices of a node leave it by the same cards.
        cards = np.ceil(share / _CARD_ACCELERATORS) ** value("card_exponent")
        cards = cards * share ** value("share_exponent")
        outside = value("inter_bytes_per_second") * cards / c.tensor_parallel
        bandwidth = np.where(self.is_inside, value("intra_bytes_per_second"), outside)
        per_byte = self.owned * (d - 1) / d / bandwidth
        number = self.sizes.bytes_per_number
        reduced = np.where(self.is_sharded, 1.0, 2.0) * _GRADIENT_BYTES
        self.exchanged = per_byte * (reduced + 2 * number * self.is_gathered)
        self.exposed_gather = (
            per_byte * number * (c.zero_stage == 2) * value("exposed_gather_fraction")
        )
        # ZeRO-1 sends new weights after the update.
        self.exposed = self.exposed_gather + per_byte * _GRADIENT_BYTES * (c.zero_stage == 1)
        self.latency = value("latency_seconds_per_node") * (c.replica_nodes - 1)

    def _update(self) -> None:
        """The optimizer, on the accelerators or on the hosts."""
        c, value = self.c, self.value
        among = np.where(c.zero_stage >= 1, c.data_parallel, 1.0)
        here = value("optimizer_seconds_per_parameter") * self.owned / among
        self.on_accelerator = np.where(self.is_offloaded, 0.0, here)
        is_shared = (c.zero_stage >= 1) & (c.data_parallel > 1) & ~self.is_offloaded
        self.shared_update = np.where(is_shared, value("shared_optimizer_seconds"), 0.0)
        self.workers: Numbers = c.data_parallel * np.maximum(c.cpu_threads, 1.0)
        owned = np.where(self.is_offloaded, self.owned, 0.0)
        self.on_threads = value("cpu_optimizer_seconds_per_parameter") * owned / self.workers
        self.on_hosts = value("host_memory_seconds_per_parameter") * owned

    def _offload(self) -> None:
        """Weights to the accelerator and gradients back, with each micro-batch."""
        c, value = self.c, self.value
        size = np.where(self.is_offloaded, _GRADIENT_BYTES * self.owned / c.data_parallel, 0.0)
        ways = np.where(self.is_gathered, 3.0, 2.0)
        self.moved = c.accumulation * ways * size / value("pcie_bytes_per_second")
        # Gradients of later micro-batches are added to those that are there already.
        later = (c.accumulation - 1) * self.is_offloaded
        self.added_bytes = later * size * value("accumulated_offload_seconds_per_byte")
        blocks = later * self.sizes.layers
        self.added_blocks = blocks * value("accumulated_offload_seconds_per_block")

    def _whole(self) -> None:
        c, value = self.c, self.value
        self.times = np.where(self.is_sharded & ~self.is_pipeline, c.accumulation, 1.0)
        longer = p_norm(_ROUNDED_MAXIMUM, self.backward, self.exchanged)
        self.shorter = self.backward + self.exchanged - longer
        together = longer + value("contended_fraction") * self.shorter
        self.zero_bubble = c.is_zero_bubble * value("zero_bubble_fraction")
        self.slots = c.accumulation + (c.bubble + self.zero_bubble) * (c.pipeline_parallel - 1)
        # An accelerator without a neighbour has no card to share; offload paces what it sends.
        is_uneven = (c.uneven_nodes > 0) & ~self.is_offloaded
        self.uneven_size = is_uneven * (c.accelerators - 1) ** value("uneven_exponent")
        self.is_mixed = c.largest_share > c.smallest_share
        more = value("uneven_seconds") + value("mixed_seconds") * self.is_mixed
        self.uneven = self.uneven_size * more
        self.seconds: Numbers = (
            self.slots * self.micro
            + self.times * (together - self.backward + self.exposed + self.latency)
            + self.on_accelerator
            + self.shared_update
            + self.on_threads
            + self.on_hosts
            + self.moved
            + self.added_bytes
            + self.added_blocks
            + self.uneven
            + value("fixed_seconds")
        )

    def derivatives(self) -> Numbers:
        """Of the logarithms of seconds by the logarithms of parameters (N, K)."""
        found = np.zeros((len(NAMES), len(self.seconds)))

        def put(name: str, column: Numbers) -> None:
            found[INDEX[name]] += column

        contended = self.value("contended_fraction")
        longer_by_backward, longer_by_exchanged, _ = _p_norm_derivatives(
            _ROUNDED_MAXIMUM, self.backward, self.exchanged
        )
        by_backward = longer_by_backward + contended * (1 - longer_by_backward)
        by_exchanged = longer_by_exchanged + contended * (1 - longer_by_exchanged)
        put("contended_fraction", self.times * contended * self.shorter)
        by_backward = self.times * (by_backward - 1)
        by_micro = self.slots + by_backward * self.backward_part
        self._computing(put, by_micro, by_backward * self.micro)
        self._exchanging(put, by_micro, self.times * by_exchanged)
        self._updating(put)
        return (found / self.seconds).T

    def _computing(
        self, put: Callable[[str, Numbers], None], by_micro: Numbers, by_part: Numbers
    ) -> None:
        c, value = self.c, self.value
        by_compute, by_launch, by_exponent = _p_norm_derivatives(
            self.launch_exponent, self.compute, self.launch
        )
        by_compute, by_launch = by_micro * by_compute, by_micro * by_launch
        put("launch_exponent_less_one", by_micro * by_exponent * value("launch_exponent_less_one"))
        by_once = by_compute * (1 + self.recomputed)
        put("flops_per_second", -by_once * self.multiplied)
        passed, touched = by_once * self.passed, by_compute * self.touched
        put("activation_bytes_per_number", passed)
        put("touched_bytes_per_parameter", touched)
        self.by_memory = passed + touched
        by_recomputed = by_compute * self.compute_once
        by_recomputed = by_recomputed + by_part * (1 - _BACKWARD) / (1 + self.recomputed) ** 2
        put("recomputed_fraction", by_recomputed * self.recomputed)
        put("launch_seconds_per_block", by_launch * self.launch)
        each = by_launch * self.launch_once
        both = np.where(self.more_both > 0, self.more_both, 1.0)
        by_checkpointed = each * self.more_checkpointed / both
        by_sharded = each * self.more_sharded / both
        put("launch_more_checkpointed", by_checkpointed * self.more_again)
        put("launch_more_sharded", by_sharded * value("launch_more_sharded") * self.is_sharded)
        put("launch_more_gathered", by_sharded * value("launch_more_gathered") * self.is_gathered)
        accumulated = value("launch_more_accumulated") * self.more_accumulated
        put("launch_more_accumulated", by_sharded * accumulated)
        put("launch_more_replicated", each * value("launch_more_replicated") * self.is_replicated)
        put("launch_more_tensor", (each + by_checkpointed / 2 * c.checkpoints) * self.more_tensor)
        put("zero_bubble_fraction", self.zero_bubble * (c.pipeline_parallel - 1) * self.micro)
        stages = value("pipeline_seconds_per_stage") * self.is_pipeline * c.stages_per_rank
        put("pipeline_seconds_per_stage", by_micro * stages)

    def _exchanging(
        self, put: Callable[[str, Numbers], None], by_micro: Numbers, by_exchanged: Numbers
    ) -> None:
        c, value = self.c, self.value
        slices, handed = by_micro * self.slices, by_micro * c.stages_per_rank * self.handed
        replicas = by_exchanged * self.exchanged + self.times * self.exposed
        between = np.where(self.is_inside, 0.0, replicas)
        is_far = c.nodes > 1
        put("tensor_bandwidth_fraction", -slices * self.is_slice_inside)
        put(
            "intra_bytes_per_second",
            -(slices * self.is_slice_inside + handed * ~is_far + replicas * self.is_inside),
        )
        put("inter_bytes_per_second", -(slices * ~self.is_slice_inside + handed * is_far + between))
        share = c.replica_smallest_share
        cards = np.log(np.ceil(share / _CARD_ACCELERATORS))
        put("card_exponent", -between * value("card_exponent") * cards)
        put("share_exponent", -between * value("share_exponent") * np.log(share))
        put("exposed_gather_fraction", self.times * self.exposed_gather)
        put("latency_seconds_per_node", self.times * self.latency)

    def _updating(self, put: Callable[[str, Numbers], None]) -> None:
        c, value = self.c, self.value
        put("optimizer_seconds_per_parameter", self.on_accelerator + self.by_memory)
        put("shared_optimizer_seconds", self.shared_update)
        put("cpu_optimizer_seconds_per_parameter", self.on_threads)
        put("host_memory_seconds_per_parameter", self.on_hosts)
        put("pcie_bytes_per_second", -self.moved)
        put("accumulated_offload_seconds_per_byte", self.added_bytes)
        put("accumulated_offload_seconds_per_block", self.added_blocks)
        put("fixed_seconds", np.full(len(c), value("fixed_seconds")))
        put("uneven_seconds", self.uneven_size * value("uneven_seconds"))
        put("mixed_seconds", self.uneven_size * value("mixed_seconds") * self.is_mixed)
        size: Numbers = np.log(np.maximum(c.accelerators - 1, 1.0))
        put("uneven_exponent", self.uneven * value("uneven_exponent") * size)


def _p_norm_derivatives(
    exponent: float, one: Numbers, other: Numbers
) -> tuple[Numbers, Numbers, Numbers]:
    """Of a p-norm by its two times and by its exponent."""
    longer = np.maximum(np.maximum(one, other), _NOTHING)
    log_ratio = np.log(np.maximum(np.minimum(one, other) / longer, _NOTHING))
    power = np.exp(exponent * log_ratio)
    log_total = np.log1p(power)
    root = np.exp(log_total / exponent)
    by_longer = root / (1 + power)
    by_shorter = by_longer * np.exp((exponent - 1) * log_ratio)
    is_longer = one >= other
    by_one = np.where(is_longer, by_longer, by_shorter)
    by_other = np.where(is_longer, by_shorter, by_longer)
    by_exponent = power * log_ratio / (1 + power) - log_total / exponent
    return by_one, by_other, longer * root * by_exponent / exponent
