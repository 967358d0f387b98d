"""The parameters of a step's time: what they mean, and what is known before anything is measured.

All are positive and fitted as logarithms, so that a prior is a typical value and a factor by which
one may well be wrong. They are divided by the sizes of the model, so that what one model taught
about a type of accelerator is a prior for the next model on it.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Parameter:
    """One fitted number.

    Attributes:
        name: With its unit.
        typical: Median of the prior.
        spread: Standard deviation of its logarithm.
        transfers: The same after another model on the same type of accelerator was fitted.
    """

    name: str
    typical: float
    spread: float
    transfers: float


PARAMETERS: tuple[Parameter, ...] = (
    # Arithmetic of forward and backward pass, by the usual count, on one accelerator.
    Parameter("flops_per_second", 1e14, 1.5, 0.5),
    # Arithmetic that activation checkpointing adds, as a part of the step's.
    Parameter("recomputed_fraction", 0.33, 0.25, 0.15),
    # The host's work to start a block's kernels, which accelerators wait for when they have little
    # to compute: of one block, forward and backward.
    Parameter("launch_seconds_per_block", 1.5e-3, 0.8, 0.4),
    Parameter("launch_more_checkpointed", 0.8, 0.5, 0.3),
    Parameter("launch_more_replicated", 0.4, 0.6, 0.3),
    Parameter("launch_more_sharded", 0.8, 0.5, 0.3),
    Parameter("launch_more_gathered", 0.4, 0.6, 0.3),
    Parameter("launch_more_accumulated", 0.5, 0.6, 0.3),
    Parameter("launch_more_tensor", 3.0, 0.6, 0.4),
    # How sharply the slower of computing and launching decides: exponent of the p-norm, less one.
    Parameter("launch_exponent_less_one", 2.0, 0.7, 0.4),
    # How well gradients are exchanged behind the backward pass: the paper's k_sync, less one.
    Parameter("overlap_exponent_less_one", 0.7, 1.0, 0.5),
    Parameter("intra_bytes_per_second", 1e11, 1.0, 0.5),
    # Between nodes of one accelerator each.
    Parameter("inter_bytes_per_second", 8e9, 1.0, 0.5),
    # Several accelerators of a node reach the network by several cards.
    Parameter("card_exponent", 0.6, 0.5, 0.3),
    Parameter("share_exponent", 0.15, 0.7, 0.4),
    Parameter("latency_seconds_per_node", 2e-3, 1.2, 0.8),
    Parameter("uneven_seconds", 2e-3, 2.0, 1.0),
    Parameter("mixed_seconds", 2e-3, 2.0, 1.0),
    Parameter("uneven_exponent", 0.5, 0.5, 0.3),
    Parameter("exposed_gather_fraction", 0.5, 0.8, 0.4),
    Parameter("tensor_bandwidth_fraction", 0.6, 0.6, 0.4),
    Parameter("zero_bubble_fraction", 0.15, 0.8, 0.5),
    Parameter("pipeline_seconds_per_stage", 2e-3, 1.0, 0.6),
    Parameter("optimizer_seconds_per_parameter", 2e-11, 0.8, 0.4),
    Parameter("shared_optimizer_seconds", 5e-3, 1.0, 0.7),
    Parameter("pcie_bytes_per_second", 2e10, 0.8, 0.5),
    Parameter("cpu_optimizer_seconds_per_parameter", 1.2e-9, 0.8, 0.4),
    Parameter("cpu_optimizer_exponent", 0.5, 0.4, 0.3),
    Parameter("accumulated_offload_seconds_per_byte", 3e-10, 0.7, 0.4),
    Parameter("accumulated_offload_seconds_per_block", 4e-3, 0.8, 0.4),
    Parameter("fixed_seconds", 5e-3, 1.2, 0.8),
)

NAMES: tuple[str, ...] = tuple(parameter.name for parameter in PARAMETERS)
INDEX: dict[str, int] = {name: index for index, name in enumerate(NAMES)}
