"""One plan: warm up, measure steps, take them apart."""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from headrace.api.plan import ExecutionPlan
from headrace.workloads.machine import Memory
from headrace.workloads.training.planned import PlannedModel
from headrace.workloads.training.sharding import local
from headrace.workloads.training.stopwatch import parts_of
from headrace.workloads.training.world import World

FEWEST_STEPS = 3
"""Fewer say nothing of the spread."""

_PARTED_STEPS = 3
_RATE = 1e-5

_Parts = tuple[float, float, float]
"""Seconds as a stopwatch reads them."""


class TimeIsOverError(Exception):
    """Too little was measured when the time was over."""


@dataclass(frozen=True, slots=True)
class Length:
    """How long a plan is measured.

    Attributes:
        warmup: Steps that do not count.
        steps: Steps that count.
        seconds: With these over, the fewest steps are enough. A plan whose first step takes half
            of them is taken apart while it is timed, instead of in steps of its own.
    """

    warmup: int
    steps: int
    seconds: float


class Measuring:
    """Steps of one model under whatever plan, with data that lies ready.

    Args:
        world: The ranks.
        batch: Inputs and targets of a whole global batch.
        is_over: Whether the time of the whole run is over; rank 0 is asked.
        has_moved: Is told after every step.
    """

    def __init__(
        self,
        world: World,
        batch: tuple[Tensor, Tensor],
        is_over: Callable[[], bool],
        has_moved: Callable[[], None],
    ) -> None:
        self._world = world
        self._batch = batch
        self._is_over = is_over
        self._has_moved = has_moved
        self.memory = Memory(world.device)

    def of(self, model: PlannedModel, length: Length) -> dict[str, Any]:
        """Figures of the plan, by the names of a row, and ``first_step``; equal on all ranks.

        Raises:
            TimeIsOverError: Before enough steps were measured.
        """
        world = self._world
        inputs, targets = (model.mine(part).to(world.device) for part in self._batch)

        def step(is_enough: bool = False) -> tuple[float, bool]:
            began = time.perf_counter()
            loss = model.gradients(inputs, targets) if model.is_member else torch.zeros(())
            _, enough = world.summed([loss.to(world.device), is_enough]).tolist()
            if model.is_member:
                model.update(_RATE)
            self._has_moved()
            return time.perf_counter() - began, enough > 0

        first, _ = step()
        self.memory.reset()  # of what is left of the change to this plan
        if max(world.gathered(first)) > length.seconds / 2:
            length = replace(length, warmup=1)
            times, parts = self._timed(model, step, length, self._is_over, takes_apart=True)
        else:
            times, _ = self._timed(model, step, length, self._is_over, takes_apart=False)
            more = Length(1, _PARTED_STEPS, math.inf)
            _, parts = self._timed(model, step, more, lambda: False, takes_apart=True)
        lower, median, upper = statistics.quantiles(times, n=4, method="inclusive")
        peaks = self.memory.peaks()
        offload = _transfers(model) if model.is_member else 0.0
        told = world.gathered({**peaks, "offload": offload})
        return {
            "steps": len(times),
            "iteration": median,
            "iteration_lower": lower,
            "iteration_upper": upper,
            "first_step": first,
            **self._slowest(parts),
            **{name: max(each[name] for each in told) for name in told[0]},
        }

    def _timed(
        self,
        model: PlannedModel,
        step: Callable[[bool], tuple[float, bool]],
        length: Length,
        is_over: Callable[[], bool],
        *,
        takes_apart: bool,
    ) -> tuple[list[float], list[_Parts]]:
        """Seconds of steps one after the other, without waiting between them; or else their parts
        too, and the device is waited for.
        """
        began = time.monotonic()
        times: list[float] = []
        parts: list[_Parts] = []
        self._settle()
        model.stopwatch.runs = takes_apart
        for number in range(length.warmup - 1 + length.steps):
            spent = time.monotonic() - began > length.seconds
            wish = self._world.rank == 0 and (spent or is_over())
            start = time.perf_counter()
            seconds, enough = step(wish)
            if takes_apart:
                self._settle()
                seconds = time.perf_counter() - start
                parts.append(model.stopwatch.read())
            if number >= length.warmup - 1 or enough:
                times.append(seconds)
            if enough and len(times) >= FEWEST_STEPS:
                break
            if enough and self._world.gathered(is_over())[0]:
                raise TimeIsOverError
        self._settle()
        model.stopwatch.runs = False
        return times, parts

    def _slowest(self, found: list[_Parts]) -> dict[str, float]:
        """The median of each part, of the rank where it is largest."""
        medians = [statistics.median(each) for each in zip(*found, strict=True)]
        slowest = [max(each) for each in zip(*self._world.gathered(medians), strict=True)]
        return asdict(parts_of(*slowest))

    def _settle(self) -> None:
        if self._world.device.type == "cuda":
            torch.cuda.synchronize(self._world.device)


def _transfers(model: PlannedModel) -> float:
    """Seconds of a step's copies between host and device, of this rank and with nothing beside."""
    plan, device = model.plan, model.world.device
    if not plan.offload or device.type != "cuda":
        return 0.0
    weights = [local(each) for each in model.distributed().values()]
    largest = max(weight.numel() for weight in weights)
    there = torch.empty(largest, device=device)
    here = torch.empty(largest, pin_memory=True)

    def seconds(copy: Callable[[Tensor], object]) -> float:
        torch.cuda.synchronize(device)
        began = time.perf_counter()
        for weight in weights:
            copy(weight)
        torch.cuda.synchronize(device)
        return time.perf_counter() - began

    up = seconds(lambda it: there[: it.numel()].copy_(it.reshape(-1), non_blocking=True))
    down = seconds(lambda it: here[: it.numel()].copy_(there[: it.numel()], non_blocking=True))
    return up * _passes(plan) + down * plan.accumulation_steps


def _passes(plan: ExecutionPlan) -> int:
    """How often a step needs the weights: ZeRO-3 lets go of them before the backward pass."""
    return plan.accumulation_steps * (2 if plan.zero_stage == 3 else 1)
