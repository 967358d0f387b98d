"""The ranks that train together: their process group, its subgroups, and what they tell each
other.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from headrace.api.plan import ExecutionPlan
from headrace.workloads.rendezvous import RankGoneError
from headrace.workloads.training.grid import AXES, grid_of

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup, Store

_TIMEOUT = timedelta(minutes=10)
_SIGNS_OF_LOST_CONTACT = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe")


def lost_contact(error: BaseException) -> bool:
    """Whether an error says that another rank cannot be reached, and not that we are wrong."""
    if isinstance(error, dist.DistError):
        return True
    words = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in words for sign in _SIGNS_OF_LOST_CONTACT)


def _made(group: Any) -> "ProcessGroup":
    """torch gives those that are not in a group a number instead of it."""
    made: ProcessGroup = group
    return made


class World:
    """The process group of all ranks.

    Attributes:
        rank: This rank.
        size: Number of ranks.
        device: Where this rank computes.
    """

    def __init__(self, store: "Store", *, rank: int, size: int, device: torch.device) -> None:
        self.rank = rank
        self.size = size
        self.device = device
        on_gpu = device.type == "cuda"
        try:
            dist.init_process_group(
                # Objects and checkpoints are coordinated over gloo, beside the GPUs' own traffic.
                "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
                store=dist.PrefixStore("group", store),
                rank=rank,
                world_size=size,
                timeout=_TIMEOUT,
                device_id=device if on_gpu else None,
            )
            # Whatever is written in the background must not meet the collectives of a step.
            self.for_saving = _made(dist.new_group(backend="gloo", timeout=_TIMEOUT))
        except (RuntimeError, OSError) as error:
            raise RankGoneError(f"the ranks could not be connected: {error}") from error
        self._all: ProcessGroup | None = None
        self._groups: dict[tuple[int, ...], ProcessGroup] = {}
        self._meshes: dict[tuple[str, int, int, int], DeviceMesh] = {}

    def group(self, ranks: Sequence[int]) -> "ProcessGroup":
        """The process group of some ranks. All ranks of the world ask for the same ones in turn."""
        key = tuple(ranks)
        if key not in self._groups:
            self._groups[key] = _made(dist.new_group(list(ranks), timeout=_TIMEOUT))
        return self._groups[key]

    def mesh(self, plan: ExecutionPlan, device_type: str = "") -> DeviceMesh | None:
        """The plan's ranks along `grid.AXES`; None for a rank that the plan does not use.

        Every rank of the world asks for it, because process groups are made together. They are
        kept, so coming back to a plan costs nothing.

        Args:
            plan: The plan.
            device_type: ``cpu`` or ``cuda``; where the ranks compute if left out.
        """
        device_type = device_type or self.device.type
        key = (
            device_type,
            plan.pipeline_parallel,
            plan.data_parallel,
            plan.tensor_parallel,
        )
        if key not in self._meshes:
            grid = torch.tensor(grid_of(plan))
            mine = [self._own_row(grid, axis) for axis in range(grid.ndim)]
            if self.rank < plan.ranks:
                self._meshes[key] = DeviceMesh.from_group(
                    [group for group in mine if group is not None],
                    device_type,
                    mesh=grid,
                    mesh_dim_names=AXES,
                )
        return self._meshes.get(key)

    def _own_row(self, grid: Tensor, axis: int) -> "ProcessGroup | None":
        own = None
        for row in grid.movedim(axis, -1).reshape(-1, grid.shape[axis]).tolist():
            group = self.group(row)
            if self.rank in row:
                own = group
        return own

    def gathered(self, value: Any) -> list[Any]:
        """What each rank gave, by rank."""
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self._all)
        return found

    def summed(self, numbers: Sequence[Tensor | float]) -> Tensor:
        """Sums over all ranks. On a GPU they are on their way: reading them waits."""
        tensors = [
            number.detach().float().reshape(())
            if isinstance(number, Tensor)
            else torch.tensor(float(number), device=self.device)
            for number in numbers
        ]
        together = torch.stack(tensors)
        if self.size > 1:
            dist.all_reduce(together, group=self._all)
        return together

    def let_go(self, size: int) -> None:
        """Go on with the first ``size`` ranks; the others may end once this has returned there.

        All ranks call it. The others' connections stay open as long as they live, unused.
        """
        staying = range(size)
        self._all = _made(dist.new_group(staying, timeout=_TIMEOUT))
        self.for_saving = _made(dist.new_group(staying, backend="gloo", timeout=_TIMEOUT))
        self.size = size

    def highest(self, numbers: Sequence[float]) -> list[float]:
        """The largest of each over all ranks."""
        together = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        if self.size > 1:
            dist.all_reduce(together, op=dist.ReduceOp.MAX)
        found: list[float] = together.tolist()
        return found

    def part(self) -> None:
        """Leave, once all ranks are done."""
        self._groups.clear()
        self._meshes.clear()
        dist.destroy_process_group()
