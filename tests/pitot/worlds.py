"""Run times of a world whose law is known, with up to four workloads on a platform."""

from dataclasses import dataclass

import numpy as np

from controlplane.pitot import network
from controlplane.pitot.calibration import calibrate
from controlplane.pitot.network import Shape, Tables, embedded
from controlplane.pitot.predictor import Predictor
from controlplane.pitot.run_times import NOBODY, RunTimes
from controlplane.pitot.tower import standardised

WORKLOADS, PLATFORMS = 24, 16
QUANTILES = (0.1, 0.5, 0.9)
WORKLOAD_NAMES = tuple(f"sort-{index}" for index in range(WORKLOADS))
PLATFORM_NAMES = tuple(f"board-{index}" for index in range(PLATFORMS))


@dataclass(frozen=True)
class World:
    """Side information, and runs that follow from it but for noise."""

    tables: Tables
    runs: RunTimes


def a_world(seed: int, runs: int = 6000, noise: float = 0.05) -> World:
    """Times that are a product, bent by two hidden traits, and longer beside busy workloads."""
    chance = np.random.default_rng(seed)
    work, speed = chance.normal(size=(WORKLOADS, 4)), chance.normal(size=(PLATFORMS, 4))
    workload = chance.integers(0, WORKLOADS, runs)
    platform = chance.integers(0, PLATFORMS, runs)
    beside = chance.integers(0, WORKLOADS, (runs, 3))
    beside[np.arange(3)[None, :] >= chance.integers(0, 4, runs)[:, None]] = NOBODY
    logs = 2.0 * work[workload, 0] - speed[platform, 0]
    logs += 0.3 * (work[workload, 1:3] * speed[platform, 1:3]).sum(axis=1)
    busy = np.where(beside == NOBODY, 0.0, np.abs(work[beside, 3])).sum(axis=1)
    logs += 0.2 * busy * np.exp(0.3 * speed[platform, 3])
    logs += chance.normal(scale=noise, size=runs)
    tables = Tables(standardised(work), standardised(speed))
    return World(tables, RunTimes(workload, platform, beside, np.exp(logs)))


def a_predictor(seed: int) -> tuple[Predictor, RunTimes]:
    """Embeddings that nobody trained, calibrated on half of 1200 runs: bounds hold all the same."""
    world, shape = a_world(seed, runs=1200), Shape(rank=4, learned=1, heads=3)
    parameters = network.begin(shape, world.tables, np.random.default_rng(seed))
    at, _ = embedded(shape, parameters, world.tables)
    parts = [world.runs.rows(np.arange(600)), world.runs.rows(np.arange(600, 1200))]
    told = [at.log_seconds(runs.workload, runs.platform, runs.beside) for runs in parts]
    found = calibrate(QUANTILES, (parts[0], told[0]), (parts[1], told[1]), misses=(0.05, 0.1))
    return Predictor(WORKLOAD_NAMES, PLATFORM_NAMES, at, found), world.runs
