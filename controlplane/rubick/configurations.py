"""Plans on placements, as columns of numbers: what the performance model computes with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace.api.counted import counted
from headrace.api.plan import ExecutionPlan, PipelineSchedule

Numbers = NDArray[np.float64]

Shares = tuple[int, ...]
"""Accelerators that a job has of each of its nodes, in the order of its ranks."""

_BUBBLE: dict[PipelineSchedule | None, float] = {
    None: 0.0,
    PipelineSchedule.GPIPE: 1.0,
    PipelineSchedule.ONE_F_ONE_B: 1.0,
    PipelineSchedule.INTERLEAVED: 0.5,
    PipelineSchedule.ZERO_BUBBLE: 0.0,
}
"""Idle micro-batches of a rank for each further rank of the pipeline: (m + p - 1) / m of the work
takes m + p - 1 of them (GPipe, PipeDream-Flush), two stages a rank halve it (Megatron-LM), and
zero-bubble schedules fill it with the gradients of weights (ICLR 2024)."""


@dataclass(frozen=True, slots=True)
class Configurations:
    """Pairs of a plan and a placement; all columns are float arrays of the same length.

    Attributes:
        accelerators: In all.
        nodes: Nodes that they are on.
        smallest_share: Fewest accelerators on one of the nodes.
        largest_share: Most accelerators on one of the nodes.
        uneven_nodes: Fraction of the nodes with an odd number of accelerators, where there are
            several nodes: one accelerator has no neighbour to share a network card with.
        data_parallel: Replicas.
        accumulation: Micro-batches of a replica.
        tensor_parallel: Ranks that share a matrix.
        pipeline_parallel: Ranks among which layers are divided.
        bubble: Idle micro-batches for each further pipeline rank, by schedule.
        is_zero_bubble: 1 where the schedule splits the backward pass.
        stages_per_rank: Of a pipeline; a micro-batch is handed on so often by each rank.
        zero_stage: 0 to 3.
        checkpoints: 1 where activations are computed again.
        offloads: 1 where the optimizer runs in host memory.
        replica_nodes: Most nodes that one stage's replicas are on.
        replica_smallest_share: Fewest accelerators of such a stage on one node.
        samples: Global batch.
        positions: Of a sample; 0 for the model's own.
        cpu_threads: Of each accelerator.
    """

    accelerators: Numbers
    nodes: Numbers
    smallest_share: Numbers
    largest_share: Numbers
    uneven_nodes: Numbers
    data_parallel: Numbers
    accumulation: Numbers
    tensor_parallel: Numbers
    pipeline_parallel: Numbers
    bubble: Numbers
    is_zero_bubble: Numbers
    stages_per_rank: Numbers
    zero_stage: Numbers
    checkpoints: Numbers
    offloads: Numbers
    replica_nodes: Numbers
    replica_smallest_share: Numbers
    samples: Numbers
    positions: Numbers
    cpu_threads: Numbers

    def __len__(self) -> int:
        return len(self.accelerators)

    def take(self, chosen: NDArray[np.bool_] | NDArray[np.intp] | slice) -> "Configurations":
        """Those that a mask, an index or a slice chooses."""
        return Configurations(*(column[chosen] for column in self._columns()))

    def _columns(self) -> Iterator[Numbers]:
        for field in fields(self):
            yield getattr(self, field.name)

    @classmethod
    def of(
        cls,
        plans: Sequence[ExecutionPlan],
        shares: Sequence[Shares],
        samples: int | Sequence[int],
        *,
        cpu_threads: float | Sequence[float] = 1.0,
        positions: int | Sequence[int] = 0,
    ) -> "Configurations":
        """Columns of pairs.

        Args:
            plans: One for each pair.
            shares: Accelerators of each node, one tuple for each pair.
            samples: Global batch of all, or of each.
            cpu_threads: Of each accelerator, likewise.
            positions: Of a sample, likewise; 0 for the model's own.

        Raises:
            ValueError: The lengths differ, or a plan does not have as many ranks as its placement
                has accelerators.
        """
        if len(plans) != len(shares):
            raise ValueError(
                f"wanted a placement for each plan, got {counted(len(plans), 'plan')} and "
                f"{len(shares)} placements"
            )
        pairs = zip(plans, shares, strict=True)
        known = [(*_of_plan(plan), *_of_pair(plan, share)) for plan, share in pairs]
        columns = np.array(known, dtype=np.float64).reshape(len(known), len(_NAMES)).T
        rest = {"samples": samples, "positions": positions, "cpu_threads": cpu_threads}
        spread = {
            name: np.broadcast_to(np.asarray(value, dtype=np.float64), (len(known),))
            for name, value in rest.items()
        }
        return cls(**dict(zip(_NAMES, columns, strict=True)), **spread)


class _Plan(NamedTuple):
    data_parallel: int
    accumulation: int
    tensor_parallel: int
    pipeline_parallel: int
    bubble: float
    is_zero_bubble: bool
    stages_per_rank: int
    zero_stage: int
    checkpoints: bool
    offloads: bool


class _Pair(NamedTuple):
    accelerators: int
    nodes: int
    smallest_share: int
    largest_share: int
    uneven_nodes: float
    replica_nodes: int
    replica_smallest_share: int


_NAMES = (*_Plan._fields, *_Pair._fields)


@lru_cache(maxsize=65536)
def _of_plan(plan: ExecutionPlan) -> _Plan:
    return _Plan(
        plan.data_parallel,
        plan.accumulation_steps,
        plan.tensor_parallel,
        plan.pipeline_parallel,
        _BUBBLE[plan.schedule],
        plan.schedule is PipelineSchedule.ZERO_BUBBLE,
        plan.schedule.stages_per_rank if plan.schedule is not None else 1,
        plan.zero_stage,
        plan.activation_checkpointing,
        plan.offload,
    )


def _of_pair(plan: ExecutionPlan, shares: Shares) -> _Pair:
    return _pair(plan.ranks, plan.data_parallel * plan.tensor_parallel, tuple(shares))


@lru_cache(maxsize=65536)
def _pair(ranks: int, ranks_of_stage: int, shares: Shares) -> _Pair:
    if not shares or min(shares) < 1:
        raise ValueError(f"wanted at least one accelerator on each node, got {shares}")
    if sum(shares) != ranks:
        raise ValueError(
            f"wanted a placement of {counted(ranks, 'accelerator')} for a plan of {ranks} ranks, "
            f"got {sum(shares)} ({'+'.join(map(str, shares))})"
        )
    stages = [_stage(shares, begin, ranks_of_stage) for begin in range(0, ranks, ranks_of_stage)]
    odd = sum(share % 2 for share in shares) if len(shares) > 1 else 0
    return _Pair(
        accelerators=ranks,
        nodes=len(shares),
        smallest_share=min(shares),
        largest_share=max(shares),
        uneven_nodes=odd / len(shares),
        replica_nodes=max(len(stage) for stage in stages),
        replica_smallest_share=min(min(stage) for stage in stages),
    )


def _stage(shares: Shares, begin: int, length: int) -> list[int]:
    """How many ranks of a stage are on each of its nodes; ranks are numbered node after node."""
    found, first = [], 0
    for share in shares:
        inside = min(first + share, begin + length) - max(first, begin)
        if inside > 0:
            found.append(inside)
        first += share
    return found
