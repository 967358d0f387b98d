"""Where the time of a step goes on this rank."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

FORWARD, GRADIENTS, OPTIMIZER = "forward", "gradients", "optimizer"


@dataclass(frozen=True, slots=True)
class StepParts:
    """Seconds of a step's parts.

    Attributes:
        forward: Forward passes and loss of all micro-batches.
        backward_communication: The rest of what makes gradients: backward passes, whatever of
            communication they do not hide, and the idle time of a pipeline.
        optimizer: The optimizer's update.
    """

    forward: float
    backward_communication: float
    optimizer: float


class Moment:
    """When a device has done what it was given so far.

    On a GPU an event in its stream, so that noting it waits for nothing.
    """

    def __init__(self, device: torch.device) -> None:
        self._at: Any = time.perf_counter()
        if device.type == "cuda":
            self._at = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            self._at.record()

    def wait(self) -> None:
        """Until it has come."""
        if not isinstance(self._at, float):
            self._at.synchronize()

    def since(self, earlier: "Moment") -> float:
        """Seconds from an earlier one to this, which is waited for."""
        if isinstance(self._at, float):
            return float(self._at - earlier._at)
        self._at.synchronize()
        return float(earlier._at.elapsed_time(self._at)) / 1000


class Stopwatch:
    """Measures the steps that it is asked to; costs next to nothing otherwise.

    Attributes:
        runs: Whether it measures.
    """

    def __init__(self, device: torch.device) -> None:
        self.runs = False
        self._device = device
        self._spans: defaultdict[str, list[tuple[Moment, Moment]]] = defaultdict(list)

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what happens inside for a part of the step."""
        if not self.runs:
            yield
            return
        start = Moment(self._device)
        yield
        self._spans[name].append((start, Moment(self._device)))

    def follow(self, run: nn.Module) -> None:
        """Count this module's forward passes, whoever calls it."""
        began: list[Moment] = []

        def enter(_module: nn.Module, _given: Any) -> None:
            if self.runs:
                began[:] = [Moment(self._device)]

        def leave(_module: nn.Module, _given: Any, _found: Any) -> None:
            if self.runs and began:
                self._spans[FORWARD].append((began.pop(), Moment(self._device)))

        # Around whatever torch's own wrappers do at the same places.
        run.register_forward_pre_hook(enter, prepend=True)
        run.register_forward_hook(leave)

    def read(self) -> tuple[float, float, float]:
        """Seconds of forward, gradients and optimizer since the last time; begins anew.

        On a GPU it waits until all of that is done.
        """
        found = (self._seconds(FORWARD), self._seconds(GRADIENTS), self._seconds(OPTIMIZER))
        self._spans.clear()
        return found

    def _seconds(self, name: str) -> float:
        return sum(end.since(start) for start, end in self._spans[name])


def parts_of(forward: float, gradients: float, optimizer: float) -> StepParts:
    """The parts of a step from what the slowest rank of each took."""
    return StepParts(forward, max(0.0, gradients - forward), optimizer)
