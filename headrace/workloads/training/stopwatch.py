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


class Stopwatch:
    """Measures the steps that it is asked to; costs next to nothing otherwise.

    On a GPU events are put into the stream, so that measuring waits for nothing.

    Attributes:
        runs: Whether it measures.
    """

    def __init__(self, device: torch.device) -> None:
        self.runs = False
        self._on_gpu = device.type == "cuda"
        self._spans: defaultdict[str, list[tuple[Any, Any]]] = defaultdict(list)

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what happens inside for a part of the step."""
        if not self.runs:
            yield
            return
        start = self._now()
        yield
        self._spans[name].append((start, self._now()))

    def follow(self, run: nn.Module) -> None:
        """Count this module's forward passes, whoever calls it."""
        began: list[Any] = []

        def enter(_module: nn.Module, _given: Any) -> None:
            if self.runs:
                began[:] = [self._now()]

        def leave(_module: nn.Module, _given: Any, _found: Any) -> None:
            if self.runs and began:
                self._spans[FORWARD].append((began.pop(), self._now()))

        # Around whatever torch's own wrappers do at the same places.
        run.register_forward_pre_hook(enter, prepend=True)
        run.register_forward_hook(leave)

    def _now(self) -> Any:
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def read(self) -> tuple[float, float, float]:
        """Seconds of forward, gradients and optimizer since the last time; begins anew.

        On a GPU it waits until all of that is done.
        """
        found = (self._seconds(FORWARD), self._seconds(GRADIENTS), self._seconds(OPTIMIZER))
        self._spans.clear()
        return found

    def _seconds(self, name: str) -> float:
        spans = self._spans[name]
        if self._on_gpu:
            for _, end in spans:
                end.synchronize()
            return float(sum(start.elapsed_time(end) for start, end in spans)) / 1000
        return float(sum(end - start for start, end in spans))


def parts_of(forward: float, gradients: float, optimizer: float) -> StepParts:
    """The parts of a step from what the slowest rank of each took."""
    return StepParts(forward, max(0.0, gradients - forward), optimizer)
