"""Where a rank computes a step. Pure; no torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.api.plan import ExecutionPlan

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


@dataclass(frozen=True, slots=True)
class Position:
    """A rank's place in the plan, and which step it computes there.

    Attributes:
        plan: The plan in force; another one after a change of plan.
        data: The ranks that compute other samples with the same pieces of the model; None where a
            step is tried before ranks are connected. Like ``tensor`` another one after each change.
        tensor: The ranks that share this one's matrices; None likewise.
        rank: This rank, of ``plan.ranks``.
        replica: Which of ``plan.data_parallel`` equal parts of the global batch is computed here,
            in ``plan.accumulation_steps`` micro-batches.
        slice: Which of ``plan.tensor_parallel`` parts of a divided matrix is held here.
        step: The optimizer step, counted from 1.
    """

    plan: ExecutionPlan
    data: "DeviceMesh | None"
    tensor: "DeviceMesh | None"
    rank: int
    replica: int
    slice: int
    step: int
