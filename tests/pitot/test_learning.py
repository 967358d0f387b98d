"""The model has the paper's form, its gradient is right, and it learns a law that is known."""

import subprocess
import sys

import numpy as np
import pytest

from controlplane.pitot import network
from controlplane.pitot.linear_scaling import linear_scaling
from controlplane.pitot.network import Embeddings, Parameters, Shape, embedded
from controlplane.pitot.run_times import NOBODY, RunTimes
from controlplane.pitot.slopes import Batch, Slopes
from controlplane.pitot.training import Recipe, learn
from tests.architecture.source_tree import ROOT
from tests.pitot.worlds import PLATFORMS, WORKLOADS, World, a_world

SMALL = Shape(rank=5, interference=2, learned=2, heads=3)


def embeddings(seed: int) -> Embeddings:
    world = a_world(seed, runs=10)
    chance = np.random.default_rng(seed)
    return embedded(SMALL, network.begin(SMALL, world.tables, chance), world.tables)[0]


def predicted(given: Embeddings, runs: RunTimes) -> np.ndarray:
    return given.log_seconds(runs.workload, runs.platform, runs.beside)


def test_it_is_the_equation_of_the_paper() -> None:
    at, runs = embeddings(3), a_world(3, runs=50).runs
    found = predicted(at, runs)
    for row in range(50):
        i, j = runs.workload[row], runs.platform[row]
        others = [k for k in runs.beside[row] if k != NOBODY]
        for head in range(3):
            w = at.workload[:, head]
            wanted = at.platform_scale[j] + at.workload_scale[i] + w[i] @ at.platform[j]
            for t in range(2):
                strength = sum(w[k] @ at.magnitude[j, t] for k in others)
                bent = strength if strength > 0 else 0.1 * strength
                wanted += (w[i] @ at.susceptible[j, t]) * bent
            assert found[row, head] == pytest.approx(wanted, rel=1e-4, abs=1e-4)


def test_without_others_there_is_no_interference_and_their_order_means_nothing() -> None:
    at, runs = embeddings(4), a_world(4, runs=200).runs
    alone = at.log_seconds(runs.workload, runs.platform, np.full((200, 3), NOBODY))
    assert np.array_equal(
        alone, at.log_seconds(runs.workload, runs.platform, np.empty((200, 0), dtype=np.int64))
    )
    turned = at.log_seconds(runs.workload, runs.platform, runs.beside[:, ::-1])
    assert np.allclose(turned, predicted(at, runs), atol=1e-5)
    assert not np.allclose(alone, turned, atol=1e-3)


def _loss(parameters: Parameters, world: World, wanted: np.ndarray) -> float:
    at, _ = embedded(SMALL, parameters, world.tables)
    off = predicted(at, world.runs) - wanted[:, None]
    return float(np.sum(off.astype(np.float64) ** 2))


def test_the_gradient_is_that_of_the_loss() -> None:
    world = a_world(5, runs=40)
    chance = np.random.default_rng(5)
    parameters = network.begin(SMALL, world.tables, chance)
    wanted = world.runs.log_seconds.astype(np.float32)
    at, passed = embedded(SMALL, parameters, world.tables)
    slopes = Slopes(at)
    runs = world.runs
    for degree in (1, 2, 3, 4):
        rows = np.flatnonzero(runs.degree == degree)
        beside = -np.sort(-runs.beside[rows], axis=1)[:, : degree - 1]
        batch = Batch(runs.workload[rows], runs.platform[rows], beside, wanted[rows])
        off = predicted(at, runs.rows(rows)) - wanted[rows][:, None]
        slopes.add(batch, 2 * off)
    gradient = slopes.gradient(parameters, passed)
    assert gradient.keys() == parameters.keys()
    for name, slope in gradient.items():
        # Along the gradient itself, where the difference is largest beside rounding.
        length = float(np.linalg.norm(slope))
        step = np.float32(1e-3 / max(length, 1e-9))
        ahead = {**parameters, name: parameters[name] + step * slope}
        behind = {**parameters, name: parameters[name] - step * slope}
        told = (_loss(ahead, world, wanted) - _loss(behind, world, wanted)) / (2 * float(step))
        assert told == pytest.approx(length**2, rel=0.05), name


def test_it_learns_what_one_to_four_workloads_do_to_each_other() -> None:
    world = a_world(6)
    learnt, unseen = world.runs.rows(np.arange(5000)), world.runs.rows(np.arange(5000, 6000))
    recipe = Recipe(steps=600, quantile_steps=150, rows=256)
    model = learn(learnt, world.tables, recipe=recipe, quantiles=(0.1, 0.5, 0.9))
    at, _ = embedded(model.shape, model.parameters, world.tables)
    off = np.abs(predicted(at, unseen)[:, 1] - unseen.log_seconds)
    workload, platform = linear_scaling(learnt, WORKLOADS, PLATFORMS)
    plain = np.abs(workload[unseen.workload] + platform[unseen.platform] - unseen.log_seconds)
    for degree in (1, 2, 3, 4):
        rows = unseen.degree == degree
        assert off[rows].mean() < 0.12
        assert off[rows].mean() < 0.4 * plain[rows].mean()
    below = (unseen.log_seconds[:, None] < predicted(at, unseen)).mean(axis=0)
    assert below == pytest.approx([0.1, 0.5, 0.9], abs=0.12)


def test_the_same_seed_learns_the_same() -> None:
    world = a_world(7, runs=500)
    recipe = Recipe(steps=20, quantile_steps=5, rows=64)
    first, second = (learn(world.runs, world.tables, recipe=recipe) for _ in range(2))
    for name, values in first.parameters.items():
        assert np.array_equal(values, second.parameters[name])


def test_times_in_another_unit_are_learnt_as_well() -> None:
    world = a_world(9, runs=2000)
    runs, recipe = world.runs, Recipe(steps=150, rows=64)
    longer = RunTimes(runs.workload, runs.platform, runs.beside, runs.seconds * 1e6)
    told = []
    for each in (runs, longer):
        model = learn(each, world.tables, recipe=recipe)
        at, _ = embedded(model.shape, model.parameters, world.tables)
        told.append(predicted(at, runs))
    assert told[1] - told[0] == pytest.approx(np.log(1e6), abs=1e-4)


def test_predicting_takes_numpy_alone() -> None:
    told = "import sys, controlplane.pitot.network, controlplane.pitot.calibration; "
    told += "sys.exit(any(name in sys.modules for name in ('scipy', 'torch', 'pandas')))"
    assert subprocess.run([sys.executable, "-c", told], cwd=ROOT, check=False).returncode == 0
