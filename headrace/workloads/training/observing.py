"""What a training job tells of its plan in passing, for whoever predicts how fast plans are.

A line is a row of a profile, as `headrace.api.profile_rows` has it, without what the control plane
knows better: the model's name and the placement. How many lines there are grows with the logarithm
of the steps, because they are kept: one when a plan's first steps are known, the next ones when it
has done twice as many each time.
"""

import statistics
from collections import Counter, deque
from dataclasses import replace
from math import prod
from typing import Any

from headrace.api.profile_rows import Asked, PlanRow, Status, with_rates
from headrace.workloads.control import ControlFolder
from headrace.workloads.machine import Memory, this_machine
from headrace.workloads.training.families.build import FamilyBlueprint
from headrace.workloads.training.planned import PlannedModel
from headrace.workloads.training.stopwatch import parts_of

EVERY = 10
"""One step in so many is taken apart."""

_SETTLED = 2
"""First steps under a plan, which allocate and compile, are not looked at."""

_FEWEST = 5
"""Fewer steps say nothing of the spread."""

_STEPS_KEPT = 1000
"""Of longer times between two lines the last steps count, and of those taken apart as many tenths;
more would only take memory."""

_Parts = tuple[float, float, float]


class Observer:
    """Takes every tenth step apart. Its figures are read one step later, when they are there.

    Args:
        control: Where lines go.
        asked: What is trained; the number of accelerators is the plan's.
        memory: Of this rank.
    """

    def __init__(self, control: ControlFolder, asked: Asked, memory: Memory) -> None:
        self._control, self._asked, self._memory = control, asked, memory
        self._model: PlannedModel | None = None
        self._done = 0
        self._taken_apart = 0
        self._seconds: deque[float] = deque(maxlen=_STEPS_KEPT)
        self._parts: deque[_Parts] = deque(maxlen=_STEPS_KEPT // EVERY)
        self._measured: int | None = None
        # Under each plan in this attempt, so that going to and fro tells no more than staying.
        self._known: Counter[str] = Counter()
        self._due: dict[str, int] = {}

    def before(self, model: PlannedModel, step: int) -> None:
        """Ahead of a step: measure it if it is its turn. All ranks decide alike."""
        if model is not self._model:
            self._model, self._done, self._taken_apart, self._measured = model, 0, 0, None
            self._seconds.clear()
            self._parts.clear()
            self._memory.begin()
        model.stopwatch.runs = self._done >= _SETTLED + _FEWEST and step % EVERY == 0
        if model.stopwatch.runs:
            self._measured = step

    def look(self) -> None:
        """Within a step, once all ranks have its gradients: read the step before, and tell."""
        model, step = self._model, self._measured
        if model is None or step is None or model.stopwatch.runs:
            return
        self._measured = None
        self._parts.append(model.stopwatch.read())
        self._taken_apart += 1
        self._known[str(model.plan)] += 1
        # All ranks count alike since they took up the plan, also those that have just come.
        if self._taken_apart & (self._taken_apart - 1) == 0:
            self._tell(model, step)

    def _tell(self, model: PlannedModel, step: int) -> None:
        medians = [statistics.median(each) for each in zip(*self._parts, strict=True)]
        peaks = self._memory.peaks()
        told = model.world.highest([*medians, *peaks.values()])
        plan, seconds = str(model.plan), tuple(self._seconds)
        self._parts.clear()
        self._seconds.clear()
        if model.world.rank != 0 or self._known[plan] < self._due.get(plan, 1):
            return
        self._due[plan] = 2 * self._known[plan]
        highest = dict(zip(peaks, map(int, told[3:]), strict=True))
        self._control.observed(step, self._row(model, seconds, told[:3], highest))

    def _row(
        self,
        model: PlannedModel,
        seconds: tuple[float, ...],
        medians: list[float],
        peaks: dict[str, Any],
    ) -> PlanRow:
        parts = parts_of(*medians)
        lower, median, upper = statistics.quantiles(seconds, n=4, method="inclusive")
        blueprint = model.blueprint
        shape = blueprint.shape if isinstance(blueprint, FamilyBlueprint) else None
        row = PlanRow(
            asked=replace(self._asked, accelerators=model.plan.ranks),
            plan=str(model.plan),
            status=Status.MEASURED,
            # A script's model is whole on every rank.
            parameters=shape.parameters if shape else sum(map(prod, model.shapes.values())),
            steps=len(seconds),
            iteration=round(median, 6),
            iteration_lower=round(lower, 6),
            iteration_upper=round(upper, 6),
            forward=round(parts.forward, 6),
            backward_communication=round(parts.backward_communication, 6),
            optimizer=round(parts.optimizer, 6),
            # Copies alone would have to be made, and training waits for them.
            offload=None if model.plan.offload else 0.0,
            machine=this_machine(model.world.device),
            **peaks,
        )
        return with_rates(row, shape) if shape else row

    def after(self, seconds: float) -> None:
        """Behind a step, which took so long."""
        assert self._model is not None
        self._done += 1
        if self._done > _SETTLED:
            self._seconds.append(seconds)
