"""How fast bytes go between the ranks, and between a device and its host: measured, not assumed."""

import statistics
import time
from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist

from headrace.workloads.training.world import World

SIZE = 64 * 2**20
_PINNED_SIZE = 256 * 2**20
_REPEATS = 5

Measured = tuple[str, int, float, float]
"""Link, bytes of a transfer, seconds, and bytes a second."""


def measured_links(world: World) -> Iterator[Measured]:
    """Every kind of link that this world has; all ranks call it."""
    if world.size > 1:
        numbers = torch.ones(SIZE // 4, device=world.device)
        seconds = _seconds(world, lambda: _reduce(numbers))
        yield "all-reduce", SIZE, seconds, 2 * (world.size - 1) / world.size * SIZE / seconds
        seconds = _seconds(world, lambda: _send(world, numbers))
        yield "point-to-point", SIZE, seconds, SIZE / seconds
    if world.device.type == "cuda":
        there = torch.empty(_PINNED_SIZE // 4, device=world.device)
        here = torch.empty(_PINNED_SIZE // 4, pin_memory=True)
        seconds = _seconds(world, lambda: there.copy_(here, non_blocking=True))
        yield "host-to-device", _PINNED_SIZE, seconds, _PINNED_SIZE / seconds
        seconds = _seconds(world, lambda: here.copy_(there, non_blocking=True))
        yield "device-to-host", _PINNED_SIZE, seconds, _PINNED_SIZE / seconds


def _reduce(numbers: torch.Tensor) -> None:
    dist.all_reduce(numbers, op=dist.ReduceOp.MAX)


def _send(world: World, numbers: torch.Tensor) -> None:
    """From the first rank to the second."""
    if world.rank == 0:
        dist.send(numbers, 1)
    elif world.rank == 1:
        dist.recv(numbers, 0)


def _seconds(world: World, transfer: Callable[[], object]) -> float:
    """Median over repetitions of what the slowest rank takes, all at the same time."""
    times = []
    for _ in range(1 + _REPEATS):
        _settle(world)
        world.summed([0.0]).tolist()
        began = time.perf_counter()
        transfer()
        _settle(world)
        times.append(time.perf_counter() - began)
    slowest: float = max(world.gathered(statistics.median(times[1:])))
    return slowest


def _settle(world: World) -> None:
    if world.device.type == "cuda":
        torch.cuda.synchronize(world.device)
