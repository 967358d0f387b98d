"""Run times of a world whose law is known, with up to four workloads on a platform."""

from dataclasses import dataclass

import numpy as np

from controlplane.pitot.network import Tables
from controlplane.pitot.run_times import NOBODY, RunTimes
from controlplane.pitot.tower import standardised

WORKLOADS, PLATFORMS = 24, 16


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
