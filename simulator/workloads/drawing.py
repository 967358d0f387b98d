"""Fits jobs of other traces to the measured models: a model, a number and a plan that it has."""

from dataclasses import dataclass, field
from math import log

from controlplane.domain.chance import draw
from controlplane.domain.step_times import Way
from simulator.measured_table import MeasuredTable
from simulator.workloads.trace_jobs import TraceJob, requested


@dataclass(frozen=True, slots=True)
class Drawing:
    """How what a trace leaves open is drawn.

    Attributes:
        table: The measured models.
        seed: What chance is drawn from.
        accelerators_max: Most accelerators that a job may ask for.
        random_plans: Whether a job asks for any plan of its size (Rubick's *Base*), or for the
            fastest (*BP*).
    """

    table: MeasuredTable
    seed: int
    accelerators_max: int = 64
    random_plans: bool = True
    _known: dict[str, list[Way]] = field(default_factory=dict, compare=False, repr=False)

    def model(self, name: str) -> str:
        """A model for the job of that name: each is as likely, if it fits at all."""
        models = [m for m in self.table.models if self._requests(m)]
        return models[int(draw(self.seed, "model", name) * len(models))]

    def job(
        self, name: str, at_seconds: float, model: str, accelerators: int, run_seconds: float
    ) -> TraceJob:
        """A job of that model that asks for about as many accelerators, for as many GPU-hours.

        The nearest number that was measured is taken, by ratio; of equals the smaller. The running
        time is adjusted to keep the GPU-hours, and becomes steps by the measured step time.
        """
        ways = self._requests(model)
        if not ways:
            raise ValueError(
                f"{model} was measured on no {self.accelerators_max} accelerators or fewer"
            )
        sizes = sorted({way.accelerators for way in ways})
        size = min(sizes, key=lambda each: (abs(log(each / accelerators)), each))
        fit = [way for way in ways if way.accelerators == size]
        chosen = int(draw(self.seed, "plan", name) * len(fit)) if self.random_plans else 0
        way = fit[chosen]
        seconds = run_seconds * accelerators / size
        steps = max(1, round(seconds / way.seconds))
        return TraceJob(name, at_seconds, model, size, way.plan, steps, steps * way.seconds)

    def _requests(self, model: str) -> list[Way]:
        """What a job of the model can ask for: each plan, on the fewest nodes."""
        found = self._known.get(model)
        if found is None:
            asked = (requested(self.table, model, plan) for plan in self.table.plans(model))
            fit = [way for way in asked if way and way.accelerators <= self.accelerators_max]
            found = self._known[model] = sorted(fit, key=lambda way: (way.seconds, str(way.plan)))
        return found
