"""The gradient of the model, by its embeddings and then by its parameters; for learning alone."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from controlplane.pitot import tower
from controlplane.pitot.network import LEAK, Embeddings, Parameters, activated, side_of, together
from controlplane.pitot.run_times import Ids
from controlplane.pitot.tower import Floats, Passed


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one degree of interference that a step learns from.

    Attributes:
        workload: (n,) indices.
        platform: (n,) indices.
        beside: (n, degree - 1) indices of co-runners.
        log_seconds: (n,) what was measured.
    """

    workload: Ids
    platform: Ids
    beside: Ids
    log_seconds: Floats


class Slopes:
    """Collects the gradient with respect to the embeddings, batch by batch."""

    def __init__(self, embeddings: Embeddings) -> None:
        self._at = embeddings
        self._workload = np.zeros_like(embeddings.workload)
        self._platform = np.zeros_like(embeddings.platform)
        self._susceptible = np.zeros_like(embeddings.susceptible)
        self._magnitude = np.zeros_like(embeddings.magnitude)
        self._scales = (
            np.zeros_like(embeddings.workload_scale),
            np.zeros_like(embeddings.platform_scale),
        )

    def add(self, batch: Batch, slope: Floats) -> None:
        """Adds a batch's part.

        Args:
            batch: The rows.
            slope: (n, heads) of the loss, by predicted logarithm.
        """
        at, rows = self._at, slope.shape[0]
        own, there = at.workload[batch.workload], at.platform[batch.platform]
        to_workload = _sums(batch.workload, len(at.workload))
        to_platform = _sums(batch.platform, len(at.platform))
        own_slope = slope[:, :, None] * there[:, None, :]
        self._platform += to_platform @ (slope[:, :, None] * own).sum(axis=1)
        total = slope.sum(axis=1)
        self._scales[0][:] += to_workload @ total
        self._scales[1][:] += to_platform @ total
        if batch.beside.shape[1]:
            others = together(at.workload, batch.beside)
            susceptible = at.susceptible[batch.platform]
            magnitudes = at.magnitude[batch.platform]
            strength = np.matmul(others, magnitudes.transpose(0, 2, 1))
            received = np.matmul(own, susceptible.transpose(0, 2, 1))
            by_received = slope[:, :, None] * activated(strength)
            by_strength = slope[:, :, None] * received * np.where(strength > 0, 1, LEAK)
            own_slope += np.matmul(by_received, susceptible)
            self._susceptible += _spread(
                to_platform, np.matmul(by_received.transpose(0, 2, 1), own)
            )
            self._magnitude += _spread(
                to_platform, np.matmul(by_strength.transpose(0, 2, 1), others)
            )
            to_others = np.matmul(by_strength, magnitudes).reshape(rows, -1)
            for column in batch.beside.T:
                found = _sums(column, len(at.workload)) @ to_others
                self._workload += found.reshape(self._workload.shape)
        self._workload += _spread(to_workload, own_slope)

    def gradient(
        self, parameters: Mapping[str, Floats], passed: tuple[Passed, Passed]
    ) -> Parameters:
        """By parameter."""
        platform = np.concatenate(
            [self._platform[:, None], self._susceptible, self._magnitude], axis=1
        )
        found: Parameters = {}
        for side, slopes, kept, scale in (
            ("workload", self._workload, passed[0], self._scales[0]),
            ("platform", platform, passed[1], self._scales[1]),
        ):
            own = tower.gradient(side_of(parameters, side), kept, slopes.reshape(len(slopes), -1))
            found |= {f"{side}.{name}": values for name, values in own.items()}
            found[f"{side}.scale"] = scale
        return found


def _sums(index: Ids, size: int) -> sparse.csr_matrix:
    """(size, n) that adds up rows by index; far faster than numpy's ``add.at``."""
    rows = len(index)
    ones = np.ones(rows, dtype=np.float32)
    return sparse.csr_matrix((ones, (index, np.arange(rows))), shape=(size, rows))


def _spread(sums: sparse.csr_matrix, values: Floats) -> Floats:
    """(size, ...) sums of (n, ...)."""
    found: Floats = sums @ values.reshape(len(values), -1)
    return found.reshape(-1, *values.shape[1:])
