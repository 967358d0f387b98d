"""What a training job tells of its plan in passing, for whoever predicts how fast plans are."""

import resource
import statistics

import torch

from headrace.workloads.control import ControlFolder
from headrace.workloads.training.planned import PlannedModel
from headrace.workloads.training.stopwatch import parts_of
from headrace.workloads.training.world import World

EVERY = 10
"""One step in so many is taken apart."""

_SETTLED = 2
"""First steps under a plan, which allocate and compile, are not looked at."""


class Observer:
    """Takes every tenth step apart. Its figures are read one step later, when they are there."""

    def __init__(self, control: ControlFolder) -> None:
        self._control = control
        self._model: PlannedModel | None = None
        self._done = 0
        self._seconds: list[float] = []
        self._measured: int | None = None

    def before(self, model: PlannedModel, step: int) -> None:
        """Ahead of a step: measure it if it is its turn. All ranks decide alike."""
        if model is not self._model:
            self._model, self._done, self._measured = model, 0, None
            self._seconds.clear()
            if model.world.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(model.world.device)
        model.stopwatch.runs = self._done >= _SETTLED and step % EVERY == 0
        if model.stopwatch.runs:
            self._measured = step

    def look(self) -> None:
        """Within a step, once all ranks have its gradients: tell of the step before."""
        model, step = self._model, self._measured
        if model is None or step is None or model.stopwatch.runs:
            return
        self._measured = None
        told = model.world.highest([*model.stopwatch.read(), _peak_bytes(model.world)])
        parts = parts_of(*told[:3])
        if model.world.rank == 0:
            self._control.observed(
                {
                    "step": step,
                    "plan": str(model.plan),
                    "iteration": round(statistics.median(self._seconds), 6),
                    "steps": len(self._seconds),
                    "forward": round(parts.forward, 6),
                    "backward_communication": round(parts.backward_communication, 6),
                    "optimizer": round(parts.optimizer, 6),
                    "peak_allocated": int(told[3]),
                }
            )
        self._seconds.clear()

    def after(self, seconds: float) -> None:
        """Behind a step, which took so long."""
        assert self._model is not None
        self._done += 1
        if self._done > _SETTLED:
            self._seconds.append(seconds)


def _peak_bytes(world: World) -> int:
    """Of the allocator under this plan; of the process since its start on a CPU."""
    if world.device.type == "cuda":
        return torch.cuda.max_memory_allocated(world.device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
