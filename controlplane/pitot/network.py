"""The model of section 2.1: linear scaling, factorisation, and interference as it is meant.

    y(i, j, K) = a_j + c_i + w_i . p_j + sum_t (w_i . s_jt) leaky((sum_{k in K} w_k) . g_jt)

in natural logarithms of seconds, for each quantile head. The magnitude is that of the *co-runners*
on the *platform*; the released code takes another table there (``docs/systems/pitot.md``).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from controlplane.pitot import tower
from controlplane.pitot.run_times import NOBODY, Ids
from controlplane.pitot.tower import Floats, Passed

LEAK = np.float32(0.1)
"""Slope of the activation where the magnitude is negative."""

Parameters = dict[str, Floats]
"""By name; those of the towers begin with ``workload.`` and ``platform.``."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a model.

    Attributes:
        rank: Of the factorisation (r).
        interference: Rank of each platform's interference (s).
        learned: Features of each row that are learnt (q).
        heads: Quantiles that are learnt beside each other.
    """

    rank: int = 32
    interference: int = 2
    learned: int = 4
    heads: int = 1


@dataclass(frozen=True, slots=True)
class Embeddings:
    """What all rows of both tables became: all that prediction needs.

    Attributes:
        workload: (workloads, heads, rank), w.
        workload_scale: (workloads,), c.
        platform: (platforms, rank), p.
        platform_scale: (platforms,), a.
        susceptible: (platforms, interference, rank), s.
        magnitude: (platforms, interference, rank), g.
    """

    workload: Floats
    workload_scale: Floats
    platform: Floats
    platform_scale: Floats
    susceptible: Floats
    magnitude: Floats

    def of_head(self, head: int) -> Self:
        """With one head alone: what its quantile takes."""
        return replace(self, workload=self.workload[:, head : head + 1])

    def log_seconds(self, workload: Ids, platform: Ids, beside: Ids) -> Floats:
        """(n, heads) predicted logarithms of seconds.

        Args:
            workload: (n,) indices.
            platform: (n,) indices.
            beside: (n, k) indices of co-runners, or ``NOBODY``.
        """
        own = self.workload[workload]
        told: Floats = np.matmul(own, self.platform[platform][:, :, None])[:, :, 0]
        told += (self.workload_scale[workload] + self.platform_scale[platform])[:, None]
        disturbed = np.flatnonzero((beside != NOBODY).any(axis=1))
        if len(disturbed):
            there = platform[disturbed]
            magnitude = np.matmul(
                together(self.workload, beside[disturbed]),
                self.magnitude[there].transpose(0, 2, 1),
            )
            susceptible = np.matmul(own[disturbed], self.susceptible[there].transpose(0, 2, 1))
            told[disturbed] += (susceptible * activated(magnitude)).sum(axis=2)
        return told


def together(workload: Floats, beside: Ids) -> Floats:
    """(n, heads, rank) sum of the co-runners' embeddings."""
    total = np.zeros((len(beside), *workload.shape[1:]), dtype=np.float32)
    for column in beside.T:
        there = column != NOBODY
        total[there] += workload[column[there]]
    return total


def activated(magnitude: Floats) -> Floats:
    """Leaky ReLU."""
    found: Floats = np.where(magnitude > 0, magnitude, LEAK * magnitude)
    return found


@dataclass(frozen=True, slots=True)
class Tables:
    """Side information of all rows, standardised.

    Attributes:
        workloads: (workloads, features).
        platforms: (platforms, features).
    """

    workloads: Floats
    platforms: Floats


def begin(shape: Shape, tables: Tables, chance: np.random.Generator) -> Parameters:
    """Parameters to start from; the linear scaling is 0."""
    outputs = {
        "workload": shape.rank * shape.heads,
        "platform": shape.rank * (1 + 2 * shape.interference),
    }
    found: Parameters = {}
    for side, features in (("workload", tables.workloads), ("platform", tables.platforms)):
        parts = tower.begin(features.shape, outputs[side], shape.learned, chance)
        found |= {f"{side}.{name}": values for name, values in parts.items()}
        found[f"{side}.scale"] = np.zeros(len(features), dtype=np.float32)
    return found


def embedded(
    shape: Shape, parameters: Mapping[str, Floats], tables: Tables
) -> tuple[Embeddings, tuple[Passed, Passed]]:
    """Embeddings of all rows, and what their gradient needs."""
    workload, first = tower.embed(side_of(parameters, "workload"), tables.workloads)
    platform, second = tower.embed(side_of(parameters, "platform"), tables.platforms)
    rank, parts = shape.rank, platform.reshape(len(platform), -1, shape.rank)
    found = Embeddings(
        workload=workload.reshape(len(workload), shape.heads, rank),
        workload_scale=parameters["workload.scale"],
        platform=np.ascontiguousarray(parts[:, 0]),
        platform_scale=parameters["platform.scale"],
        susceptible=np.ascontiguousarray(parts[:, 1 : 1 + shape.interference]),
        magnitude=np.ascontiguousarray(parts[:, 1 + shape.interference :]),
    )
    return found, (first, second)


def side_of(parameters: Mapping[str, Floats], side: str) -> dict[str, Floats]:
    """The parameters of one tower."""
    return {name: parameters[f"{side}.{name}"] for name in tower.PARTS}
