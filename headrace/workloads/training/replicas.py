"""The process group of data parallelism: replicas that add up their gradients.

One all-reduce a step carries all gradients, the loss and the wishes of the ranks, so that every
rank knows after each step, and at the same step, whether one was asked to stop.
"""

from datetime import timedelta
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from headrace.workloads.rendezvous import RankGoneError

if TYPE_CHECKING:
    from headrace.workloads.rendezvous import Rendezvous

_TIMEOUT = timedelta(minutes=10)


class Replicas:
    """The ranks of this attempt. A single rank needs no process group."""

    def __init__(self, rendezvous: "Rendezvous", device: torch.device) -> None:
        self.rank = rendezvous.rank
        self.count = rendezvous.ranks
        if self.count == 1:
            return
        on_gpu = device.type == "cuda"
        try:
            dist.init_process_group(
                "nccl" if on_gpu else "gloo",
                store=dist.PrefixStore("group", rendezvous.store),
                rank=self.rank,
                world_size=self.count,
                timeout=_TIMEOUT,
                device_id=device if on_gpu else None,
            )
        except (RuntimeError, OSError) as error:
            raise RankGoneError(f"the ranks could not be connected: {error}") from error

    def give_out(self, tensor: Tensor) -> None:
        """Make the tensor on every rank what it is on rank 0."""
        if self.count == 1:
            return
        try:
            dist.broadcast(tensor, src=0)
        except RuntimeError as error:
            raise RankGoneError(str(error)) from error

    def add_up(self, tensor: Tensor, tail: Tensor) -> list[float]:
        """Sum the tensor over all ranks, in place; returns its tail as numbers."""
        try:
            if self.count > 1:
                dist.all_reduce(tensor)
            numbers: list[float] = tail.tolist()
        except RuntimeError as error:
            if "out of memory" in str(error).lower():
                raise
            raise RankGoneError(str(error)) from error
        return numbers

    def part(self) -> None:
        """Leave the process group, once all ranks are done."""
        if self.count > 1:
            dist.destroy_process_group()
