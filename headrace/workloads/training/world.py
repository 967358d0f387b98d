"""The ranks that train together: their process group, its subgroups, and what they tell each
other.
"""

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from headrace.api.plan import ExecutionPlan
from headrace.workloads.refusal import OUT_OF_MEMORY, reason_of
from headrace.workloads.rendezvous import RankGoneError, Rendezvous
from headrace.workloads.training.grid import AXES, grid_of
from headrace.workloads.training.stopwatch import Moment

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup, Store

_TIMEOUT = timedelta(minutes=10)
_GLOO_TRANSPORT = "gloo/transport/"
"""Part of the place in gloo's sources that all its errors about connections begin with."""

_GLOO_CHECK = "enforce fail"
"""Of those the mark of what ranks ask of each other and does not match."""


def lost_contact(error: BaseException) -> bool:
    """Whether an error says that another rank cannot be reached, and not that we are wrong."""
    if reason_of(error)[0] == OUT_OF_MEMORY:
        return False  # NCCL takes memory too, and says so in an error of torch's for its backends
    if isinstance(error, dist.DistError):
        return True
    words = str(error)
    of_gloo = isinstance(error, RuntimeError) and _GLOO_TRANSPORT in words
    return of_gloo and _GLOO_CHECK not in words


_worlds = itertools.count()
"""Numbers the worlds that this process has lived in."""


def along(mesh: DeviceMesh, *axes: str) -> DeviceMesh:
    """The part of a world's mesh along some of `grid.AXES`."""
    assert mesh.mesh_dim_names is not None
    chosen = tuple(mesh.mesh_dim_names[AXES.index(axis)] for axis in axes)
    return mesh[chosen[0]] if len(chosen) == 1 else mesh[chosen]


def meeting(board: Rendezvous, step: int) -> "Store":
    """Where ranks meet that make a world after a step."""
    return dist.PrefixStore(f"world-{step}", board.store)


def _made(group: Any) -> "ProcessGroup":
    """torch gives those that are not in a group a number instead of it."""
    made: ProcessGroup = group
    return made


class Sums:
    """Numbers that may still be on their way from a GPU.

    Attributes:
        moment: When they are there.
    """

    def __init__(self, sums: Tensor) -> None:
        device, self._sums = sums.device, sums
        if device.type == "cuda":
            self._sums = torch.empty(sums.shape, dtype=sums.dtype, pin_memory=True)
            self._sums.copy_(sums, non_blocking=True)
        self.moment = Moment(device)

    def tolist(self) -> list[float]:
        """The numbers. Waits for them, but not for what the GPU was given to do since."""
        self.moment.wait()
        found: list[float] = self._sums.tolist()
        return found


class World:
    """The process group of all ranks.

    Attributes:
        rank: This rank.
        size: Number of ranks.
        device: Where this rank computes.
        is_worn: Whether ranks have left it. Those that stayed can go on in it, but not make another
            process group: torch would wait for those that are gone.
    """

    def __init__(self, store: "Store", *, rank: int, size: int, device: torch.device) -> None:
        self.rank = rank
        self.size = size
        self.device = device
        self.is_worn = False
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
            if isinstance(error, OSError) or lost_contact(error):
                raise RankGoneError(f"the ranks could not be connected: {error}") from error
            raise
        self._all: ProcessGroup | None = None
        self._groups: dict[tuple[int, ...], ProcessGroup] = {}
        self._meshes: dict[tuple[str, int, int, int], DeviceMesh] = {}
        # torch takes meshes for the same whose shapes and names are, and remembers for each what
        # its operators do; an earlier world's would have it ask for groups that are gone.
        number = next(_worlds)
        self._axes = tuple(f"{axis}-{number}" for axis in AXES)

    @property
    def runs_ahead(self) -> bool:
        """Whether the device can be given a step while it does the one before."""
        return self.device.type == "cuda"

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
                    mesh_dim_names=self._axes,
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

    def summed(self, numbers: Sequence[Tensor | float]) -> "Sums":
        """Sums over all ranks. Nothing here waits for a GPU, so more work can be sent to it."""
        known = [0.0 if isinstance(number, Tensor) else float(number) for number in numbers]
        on_gpu = self.device.type == "cuda"
        together = torch.tensor(known, pin_memory=on_gpu).to(self.device, non_blocking=True)
        for place, number in enumerate(numbers):
            if isinstance(number, Tensor):
                together[place].copy_(number.detach())
        if self.size > 1:
            dist.all_reduce(together, group=self._all)
        return Sums(together)

    def let_go(self, size: int) -> None:
        """Go on with the first ``size`` ranks; the others may end once this has returned there.

        All ranks call it. Those that leave end without taking the process group apart, in which
        NCCL would have them wait for those that stay.
        """
        staying, together = range(size), self.for_saving
        self._all = _made(dist.new_group(staying, timeout=_TIMEOUT))
        if self.rank < size:
            # Among those that stay alone: torch has the others split NCCL's communicator for every
            # group that they are not in, also where those in it do not because it is none of NCCL.
            self.for_saving = _made(
                dist.new_group(
                    staying, backend="gloo", timeout=_TIMEOUT, use_local_synchronization=True
                )
            )
        # Nobody ends while another may still read from its memory.
        dist.barrier(group=together)
        self.size = size
        self.is_worn = True

    def highest(self, numbers: Sequence[float]) -> list[float]:
        """The largest of each over all ranks."""
        together = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        if self.size > 1:
            dist.all_reduce(together, op=dist.ReduceOp.MAX, group=self._all)
        found: list[float] = together.tolist()
        return found

    def part(self) -> None:
        """Leave, once all ranks are done."""
        if self.is_worn:
            self._cut_off()
        self._groups.clear()
        self._meshes.clear()
        dist.destroy_process_group()

    def _cut_off(self) -> None:
        """End connections whose other ends are gone, which would be waited for otherwise."""
        made = [*self._groups.values(), self.for_saving, self._all, dist.group.WORLD]
        # torch gives those that are not in a group a number instead of it.
        groups = [group for group in made if isinstance(group, dist.ProcessGroup)]
        # Side by side: each waits for threads of its own, up to a second and more under NCCL.
        with ThreadPoolExecutor(len(groups)) as threads:
            list(threads.map(dist.ProcessGroup.abort, groups))
