"""Learns a model from observed run times: Adam with a falling rate, on numpy alone.

The original takes 20,000 steps of 512 rows of each degree at one rate (section 2.4). With
standardised features and a rate that falls as a cosine a quarter of the steps does better
(``docs/systems/pitot.md``). Quantile heads differ in the last layer of the workloads' tower only,
so they begin as copies of a median that was learnt alone, and then learn on together.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from controlplane.pitot import network
from controlplane.pitot.linear_scaling import linear_scaling
from controlplane.pitot.network import Parameters, Shape, Tables
from controlplane.pitot.run_times import RunTimes
from controlplane.pitot.slopes import Batch, Slopes
from controlplane.pitot.tower import Floats

Progress = Callable[[int, int], None]
"""Told steps done, and of how many."""

_FIRST_MOMENT, _SECOND_MOMENT, _TINY = 0.9, 0.999, 1e-10
_WARM_UP_STEPS = 100


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to learn.

    Attributes:
        steps: With one head.
        quantile_steps: With all heads, after that.
        rows: Of each degree of interference, drawn with replacement for each step.
        rate: The highest learning rate; reached after 100 steps, 0 at the end.
        quantile_rate: The same of the steps with all heads.
        decay: Of the towers, in proportion to the rate; not of the linear scaling, so that times
            in another unit are learnt as well. With 1e-4, as the original has, what heads tell of
            runs that were learnt from is exceeded in 1 % and of others in 6 %.
        interfered: Weight of runs with co-runners beside those without, shared out among their
            degrees (beta).
        seed: Of what is drawn.
    """

    steps: int = 3200
    quantile_steps: int = 1600
    rows: int = 1024
    rate: float = 3e-3
    quantile_rate: float = 3e-3
    decay: float = 0.1
    interfered: float = 0.5
    seed: int = 42


@dataclass(frozen=True, slots=True)
class Learnt:
    """A model.

    Attributes:
        shape: Its sizes.
        parameters: By name.
        quantiles: That of each head; empty for one head that was learnt by squared errors.
    """

    shape: Shape
    parameters: Parameters
    quantiles: tuple[float, ...] = ()


def learn(
    runs: RunTimes,
    tables: Tables,
    *,
    shape: Shape | None = None,
    recipe: Recipe | None = None,
    quantiles: Sequence[float] = (),
    progress: Progress | None = None,
) -> Learnt:
    """Learns from observations.

    Args:
        runs: What was observed; checked (``run_times.check``).
        tables: Side information of all workloads and platforms.
        shape: Sizes; the number of heads is that of the quantiles.
        recipe: How.
        quantiles: Between 0 and 1, ascending; without any, the mean of the logarithm is learnt.
        progress: Told now and then.
    """
    recipe, shape = recipe or Recipe(), replace(shape or Shape(), heads=1)
    chance = np.random.default_rng(recipe.seed)
    parameters = network.begin(shape, tables, chance)
    workload, platform = linear_scaling(runs, len(tables.workloads), len(tables.platforms))
    parameters["workload.scale"] = workload.astype(np.float32)
    parameters["platform.scale"] = platform.astype(np.float32)
    total = recipe.steps + (recipe.quantile_steps if quantiles else 0)
    batches = _batches(runs, recipe, chance)
    descent = _Descent(shape, tables, recipe.rate, recipe.steps, recipe.decay)
    for step in range(recipe.steps):
        descent.step(parameters, next(batches), _squared)
        if progress is not None:
            progress(step + 1, total)
    if not quantiles:
        return Learnt(shape, parameters)
    shape = replace(shape, heads=len(quantiles))
    for name in ("workload.weight3", "workload.bias3"):
        parameters[name] = np.tile(parameters[name], len(quantiles))
    pinball = _Pinball(np.asarray(quantiles, dtype=np.float32))
    descent = _Descent(shape, tables, recipe.quantile_rate, recipe.quantile_steps, recipe.decay)
    for step in range(recipe.quantile_steps):
        descent.step(parameters, next(batches), pinball)
        if progress is not None:
            progress(recipe.steps + step + 1, total)
    return Learnt(shape, parameters, tuple(quantiles))


Loss = Callable[[Floats, Floats], Floats]
"""(n, heads) slope of the loss, given (n, heads) predicted and (n,) measured logarithms."""


def _squared(predicted: Floats, measured: Floats) -> Floats:
    return 2 * (predicted - measured[:, None])


@dataclass(frozen=True, slots=True)
class _Pinball:
    """Mean over heads of the loss whose least value is at each head's quantile."""

    quantiles: Floats

    def __call__(self, predicted: Floats, measured: Floats) -> Floats:
        above = predicted > measured[:, None]
        slope: Floats = (above - self.quantiles) / np.float32(len(self.quantiles))
        return slope


def _batches(
    runs: RunTimes, recipe: Recipe, chance: np.random.Generator
) -> Iterator[list[tuple[Batch, float]]]:
    """For each step a batch of each degree that there is, with its weight."""
    logs = runs.log_seconds.astype(np.float32)
    degrees = [np.flatnonzero(runs.degree == degree) for degree in range(1, 5)]
    present = [(beside, rows) for beside, rows in enumerate(degrees) if len(rows)]
    disturbed = sum(1 for beside, _ in present if beside)
    weights = [recipe.interfered / disturbed if beside else 1.0 for beside, _ in present]
    # Co-runners come first and nobody behind, so that a batch has only as many columns as it needs.
    ordered = -np.sort(-runs.beside, axis=1)
    while True:
        found = []
        for (beside, rows), weight in zip(present, weights, strict=True):
            drawn = rows[chance.integers(0, len(rows), recipe.rows)]
            batch = Batch(
                runs.workload[drawn], runs.platform[drawn], ordered[drawn, :beside], logs[drawn]
            )
            found.append((batch, weight / sum(weights)))
        yield found


class _Descent:
    """Adam, with weight decay of its own and a rate that falls as a cosine."""

    def __init__(self, shape: Shape, tables: Tables, rate: float, steps: int, decay: float) -> None:
        self._shape, self._tables = shape, tables
        self._rate, self._steps, self._decay = rate, steps, decay
        self._first: Parameters = {}
        self._second: Parameters = {}
        self._done = 0

    def step(
        self, parameters: Parameters, batches: Sequence[tuple[Batch, float]], loss: Loss
    ) -> None:
        """Changes the parameters in place."""
        embeddings, passed = network.embedded(self._shape, parameters, self._tables)
        slopes = Slopes(embeddings)
        for batch, weight in batches:
            predicted = embeddings.log_seconds(batch.workload, batch.platform, batch.beside)
            slope = loss(predicted, batch.log_seconds)
            slopes.add(batch, slope * np.float32(weight / len(batch.log_seconds)))
        self._move(parameters, slopes.gradient(parameters, passed))

    def _move(self, parameters: Parameters, gradient: Parameters) -> None:
        warm = min(1.0, (self._done + 1) / _WARM_UP_STEPS)
        rate = self._rate * warm * 0.5 * (1 + np.cos(np.pi * self._done / self._steps))
        self._done += 1
        for name, slope in gradient.items():
            first = self._first.get(name, 0) * _FIRST_MOMENT + slope * (1 - _FIRST_MOMENT)
            second = self._second.get(name, 0) * _SECOND_MOMENT + slope**2 * (1 - _SECOND_MOMENT)
            self._first[name], self._second[name] = first, second
            root = np.sqrt(second / (1 - _SECOND_MOMENT**self._done)) + _TINY
            towards = first / (1 - _FIRST_MOMENT**self._done) / root
            decay = 0.0 if name.endswith(".scale") else self._decay
            moved = parameters[name] - rate * (towards + decay * parameters[name])
            parameters[name] = moved.astype(np.float32)
