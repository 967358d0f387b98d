"""The parameters of a step's time: what they mean, and what is known before anything is measured.

All are positive and fitted as logarithms, so that a prior is a typical value and a factor by which
one may well be wrong. They are divided by the sizes of the model, so that what one model taught
about a type of accelerator is a prior for the next model on it. How far that may be off is set by
kind: 0.2 for counts and shares, 0.25 for speeds of the same hardware, 0.4 and more where the shape
of a model decides; fits of five models to the tables of one cluster (A800s) differ by 0.1 to 0.3 in
what they determine well, by 0.8 to 0.9 in rate and overlap.
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
    Parameter("recomputed_fraction", 0.33, 0.25, 0.1),
    # The host's work to start a block's kernels, which accelerators wait for when they have little
    # to compute: of a GPT-2 block's, forward and backward. What is more is in parts of that.
    Parameter("launch_seconds_per_block", 1.5e-3, 0.8, 0.25),
    Parameter("launch_more_checkpointed", 0.8, 0.5, 0.2),
    Parameter("launch_more_replicated", 0.4, 0.6, 0.2),
    Parameter("launch_more_sharded", 0.8, 0.5, 0.2),
    Parameter("launch_more_gathered", 0.4, 0.6, 0.2),
    Parameter("launch_more_accumulated", 0.5, 0.6, 0.2),
    Parameter("launch_more_tensor", 3.0, 0.6, 0.25),
    # How sharply the slower of computing and launching decides: exponent of the p-norm, less one.
    Parameter("launch_exponent_less_one", 2.0, 0.7, 0.3),
    # Of the shorter of backward pass and exchange of gradients, what the longer does not hide: 1
    # where the two are one after the other, more where each slows the other.
    Parameter("contended_fraction", 0.5, 0.6, 0.5),
    Parameter("intra_bytes_per_second", 1e11, 1.0, 0.3),
    # Between nodes of one accelerator each.
    Parameter("inter_bytes_per_second", 8e9, 1.0, 0.25),
    # Several accelerators of a node reach the network by several cards.
    Parameter("card_exponent", 0.6, 0.5, 0.25),
    Parameter("share_exponent", 0.15, 0.7, 0.3),
    Parameter("latency_seconds_per_node", 2e-3, 1.2, 0.5),
    Parameter("uneven_seconds", 2e-3, 2.0, 2.0),
    Parameter("mixed_seconds", 2e-3, 2.0, 2.0),
    Parameter("uneven_exponent", 0.5, 0.5, 0.2),
    Parameter("exposed_gather_fraction", 0.5, 0.8, 0.2),
    Parameter("tensor_bandwidth_fraction", 0.6, 0.6, 0.25),
    Parameter("zero_bubble_fraction", 0.15, 0.8, 0.3),
    Parameter("pipeline_seconds_per_stage", 2e-3, 1.0, 0.4),
    Parameter("optimizer_seconds_per_parameter", 2e-11, 0.8, 0.25),
    # What a micro-batch reads and writes of memory beside multiplying: for each weight (its copy in
    # the computing precision, its gradient written and added), and for each number that a GPT-2
    # block passes on (34 bytes are kept of it, Korthikanti et al., MLSys 2023: written once, read
    # twice, and their gradients likewise). The optimizer's time says how fast memory is.
    Parameter("touched_bytes_per_parameter", 16.0, 0.5, 0.2),
    Parameter("activation_bytes_per_number", 200.0, 0.5, 0.2),
    Parameter("shared_optimizer_seconds", 5e-3, 1.0, 0.4),
    Parameter("pcie_bytes_per_second", 2e10, 0.8, 0.25),
    # An update on hosts: what threads share, and what more of them do not lessen (28 bytes a
    # parameter through a host's memory).
    Parameter("cpu_optimizer_seconds_per_parameter", 2.3e-9, 0.6, 0.25),
    Parameter("host_memory_seconds_per_parameter", 2e-10, 0.7, 0.25),
    # Into fresh memory at 1.6 GB/s, into used memory at 15: which, depends on the sizes of tensors.
    Parameter("accumulated_offload_seconds_per_byte", 3e-10, 0.8, 0.8),
    Parameter("accumulated_offload_seconds_per_block", 4e-3, 0.8, 0.4),
    Parameter("fixed_seconds", 5e-3, 1.2, 0.5),
)

NAMES: tuple[str, ...] = tuple(parameter.name for parameter in PARAMETERS)
INDEX: dict[str, int] = {name: index for index, name in enumerate(NAMES)}
