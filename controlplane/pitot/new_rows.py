"""Workloads and platforms that came after learning: what a handful of runs says of them.

With all other rows frozen, a run's logarithm is linear in the state of one workload (its scale and
embedding), and in that of one platform but for the magnitudes in its activation, which side
information tells. So a row is fitted by a ridge, from what its side information lets expect.
Bounds are calibrated on rows that are known: each as if its group had never been seen, and as if
it had run so many times. Every row counts alike, however many runs it has, so a bound holds for
the share of *new rows'* runs that it says where a new row is like the known ones left out so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np

from controlplane.pitot.calibration import Pool, observations_for
from controlplane.pitot.network import Embeddings, activated, together
from controlplane.pitot.run_times import Reals, RunTimes
from controlplane.pitot.side_information import Belief, SideInformation
from controlplane.pitot.tower import Floats

Side = Literal["workload", "platform"]
COUNTS = (0, 1, 2, 4, 8, 16)
"""Numbers of runs for which margins are measured; one between takes those of the next lower."""
NOISE = 0.1
"""Deviation of a run's logarithm around the model: that of rows which were learnt."""


class TooFewRowsError(ValueError):
    """Too few known rows to bound a new one with the coverage that was asked for."""

    def __init__(self, side: Side, have: int, wanted: int, coverage: float) -> None:
        self.missing = wanted - have
        super().__init__(
            f"a bound that holds for {coverage:.4g} of the runs of a new {side} takes {wanted} "
            f"known {side}s to calibrate, {self.missing} more than the {have} that there are"
        )


@dataclass(frozen=True, slots=True)
class NewRow:
    """A workload or a platform that nothing was learnt of.

    Attributes:
        side: Which of the two.
        belief: Of its state: scale, embedding, and of a platform what makes runs susceptible.
        magnitude: (interference, rank) of a platform; of a workload nothing.
    """

    side: Side
    belief: Belief
    magnitude: Floats

    def after(self, at: Embeddings, runs: RunTimes, noise: float = NOISE) -> Self:
        """With more of its runs; its own column in them is not read."""
        factors, rest = factors_of(at, self, runs)
        return replace(self, belief=self.belief.after(factors, runs.log_seconds - rest, noise))

    def told(self, at: Embeddings, runs: RunTimes, noise: float = NOISE) -> tuple[Reals, Reals]:
        """(n,) expected logarithms of seconds and (n,) deviations of runs of this row."""
        factors, rest = factors_of(at, self, runs)
        mean, deviation = self.belief.told(factors, noise)
        return mean + rest, deviation


def factors_of(at: Embeddings, row: NewRow, runs: RunTimes) -> tuple[Reals, Reals]:
    """(n, d) factors of the row's state in each run, and (n,) what does not depend on it.

    Args:
        at: Of one head; all other rows.
        row: Whose runs they are.
        runs: Read but for the row's own column.
    """
    ones = np.ones((len(runs), 1))
    others = together(at.workload, runs.beside)
    if row.side == "workload":
        magnitudes = at.magnitude[runs.platform]
        strength = activated(np.matmul(others, magnitudes.transpose(0, 2, 1))[:, 0])
        susceptible = (strength[:, :, None] * at.susceptible[runs.platform]).sum(axis=1)
        factors = np.concatenate([ones, at.platform[runs.platform] + susceptible], axis=1)
        return factors.astype(np.float64), at.platform_scale[runs.platform].astype(np.float64)
    strength = activated(others[:, 0] @ row.magnitude.T)
    own = at.workload[runs.workload][:, 0]
    width = strength.shape[1] * own.shape[1]  # told, as -1 is not with no rows
    bent = (strength[:, :, None] * own[:, None, :]).reshape(len(runs), width)
    factors = np.concatenate([ones, own, bent], axis=1)
    return factors.astype(np.float64), at.workload_scale[runs.workload].astype(np.float64)


def joined(at: Embeddings, row: NewRow) -> Embeddings:
    """With one row more, the last of its table: so that others meet it, as company or as place."""
    state, rank = row.belief.mean.astype(np.float32), at.platform.shape[1]
    if row.side == "workload":
        return replace(
            at,
            workload=np.concatenate([at.workload, state[None, None, 1:]]),
            workload_scale=np.append(at.workload_scale, state[0]),
        )
    susceptible = state[1 + rank :].reshape(1, -1, rank)
    return replace(
        at,
        platform=np.concatenate([at.platform, state[None, 1 : 1 + rank]]),
        platform_scale=np.append(at.platform_scale, state[0]),
        susceptible=np.concatenate([at.susceptible, susceptible]),
        magnitude=np.concatenate([at.magnitude, row.magnitude[None]]),
    )


@dataclass(frozen=True, slots=True)
class Newcomers:
    """All it takes to meet new rows of one table.

    Attributes:
        side: Which table.
        known: (n,) indices of the rows that something was learnt of.
        groups: (n,) names of what comes together.
        states: The ridge to their states.
        magnitudes: The ridge to a platform's magnitudes; of workloads nothing.
    """

    side: Side
    known: np.ndarray
    groups: tuple[str, ...]
    states: SideInformation
    magnitudes: SideInformation | None

    @classmethod
    def of(
        cls,
        at: Embeddings,
        side: Side,
        features: Floats,
        known: np.ndarray,
        groups: Sequence[str],
    ) -> Self:
        """From what was learnt.

        Args:
            at: Of one head.
            side: Which table.
            features: (rows, features) of that table, standardised.
            known: (n,) indices of its rows that runs were learnt from.
            groups: (rows,) names of what comes together: the device of a platform, say.

        Raises:
            ValueError: All known rows are of one group.
        """
        names = tuple(groups[row] for row in known)
        seen, rank = features[known], at.platform.shape[1]
        if side == "workload":
            states = np.column_stack([at.workload_scale, at.workload[:, 0]])[known]
            others = np.column_stack([np.ones(len(at.platform)), at.platform])
            ridge = SideInformation.of(seen, _reals(states), names, _moment(others, 1 + rank))
            return cls(side, known, names, ridge, None)
        flat = at.susceptible.reshape(len(at.platform), -1)
        states = np.column_stack([at.platform_scale, at.platform, flat])[known]
        others = np.column_stack([np.ones(len(at.workload)), at.workload[:, 0]])
        moment = _moment(others, states.shape[1])
        strengths = _reals(at.magnitude.reshape(len(at.platform), -1)[known])
        magnitudes = SideInformation.of(seen, strengths, names, np.eye(strengths.shape[1]))
        ridge = SideInformation.of(seen, _reals(states), names, moment)
        return cls(side, known, names, ridge, magnitudes)

    def begin(self, features: Floats) -> NewRow:
        """Before it ever ran, given its (features,), standardised as the known ones were."""
        magnitude = np.empty(0)
        if self.magnitudes is not None:
            magnitude = self.magnitudes.begin(features).mean
        return self._row(self.states.begin(features), magnitude)

    def begin_as_new(self, row: int) -> NewRow:
        """The known row of that place, as if its group had never been seen."""
        magnitude = np.empty(0)
        if self.magnitudes is not None:
            magnitude = self.magnitudes.without[row]
        return self._row(self.states.begin_as_new(row, self.groups), magnitude)

    def _row(self, belief: Belief, magnitude: Reals) -> NewRow:
        """With magnitudes by part, whose length is that of what makes susceptible."""
        rank = _rank(len(belief.mean), len(magnitude))
        return NewRow(self.side, belief, magnitude.reshape(-1, rank).astype(np.float32))


@dataclass(frozen=True, slots=True)
class NewRowMargins:
    """How many deviations off the known rows were when they were met as new ones.

    Attributes:
        side: Which table.
        pools: By number of runs seen and degree; each row's residuals weigh 1 together.
        rows: How many known rows each pool has.
        noise: With which they were measured.
    """

    side: Side
    pools: Mapping[tuple[int, int], Pool]
    rows: Mapping[tuple[int, int], int]
    noise: float

    def bounds(
        self, at: Embeddings, row: NewRow, runs: RunTimes, misses: tuple[float, float]
    ) -> tuple[Reals, Reals, Reals]:
        """(n,) lower bounds, estimates and upper bounds of a new row's runs; seconds.

        Args:
            at: Of one head; all other rows.
            row: The new one, after the runs that were seen of it.
            runs: What is asked; its seconds and the row's own column are not read.
            misses: Rates of times below the interval and above it.

        Raises:
            TooFewRowsError: Too few rows are known for such rates.
        """
        mean, deviation = row.told(at, runs, self.noise)
        lower, upper = mean.copy(), mean.copy()
        for degree in np.unique(runs.degree).tolist():
            asked = runs.degree == degree
            pool = self._pool(row.belief.runs, degree, min(misses))
            lower[asked] += deviation[asked] * min(0.0, pool.lower_margin(0, misses[0]))
            upper[asked] += deviation[asked] * max(0.0, pool.upper_margin(0, misses[1]))
        return np.exp(lower), np.exp(mean), np.exp(upper)

    def _pool(self, runs: int, degree: int, miss: float) -> Pool:
        seen = max(count for count in COUNTS if count <= runs)
        have, wanted = self.rows.get((seen, degree), 0), observations_for(miss)
        if have < wanted:
            raise TooFewRowsError(self.side, have, wanted, 1.0 - miss)
        return self.pools[seen, degree]


def calibrate_new_rows(
    at: Embeddings,
    newcomers: Newcomers,
    runs: RunTimes,
    *,
    noise: float = NOISE,
    seed: int = 0,
) -> NewRowMargins:
    """Meets each known row as a new one, after each number of runs.

    Args:
        at: Of one head.
        newcomers: The known rows.
        runs: Nothing was learnt from them. Of each row some, drawn, are those that were seen, and
            the others are what they are measured on.
        noise: Deviation of a run's logarithm around the model.
        seed: Of what is drawn.
    """
    chance = np.random.default_rng(seed)
    column = runs.workload if newcomers.side == "workload" else runs.platform
    found: dict[tuple[int, int], list[Reals]] = {}
    for place, known in enumerate(newcomers.known):
        mine = chance.permutation(np.flatnonzero(column == known))
        begun = newcomers.begin_as_new(place)
        for count in COUNTS:
            if len(mine) <= count:
                break
            row, rest = begun.after(at, runs.rows(mine[:count]), noise), runs.rows(mine[count:])
            mean, deviation = row.told(at, rest, noise)
            off = (rest.log_seconds - mean) / deviation
            for degree in np.unique(rest.degree).tolist():
                found.setdefault((count, degree), []).append(off[rest.degree == degree])
    pools = {
        key: Pool(
            key[1],
            np.concatenate(offs)[:, None],
            np.concatenate([np.full(len(off), 1.0 / len(off)) for off in offs]),
        )
        for key, offs in found.items()
    }
    return NewRowMargins(
        newcomers.side, pools, {key: len(offs) for key, offs in found.items()}, noise
    )


def _reals(values: Floats) -> Reals:
    return np.asarray(values, dtype=np.float64)


def _moment(others: Floats, size: int) -> Reals:
    """(size, size) second moment of the factors of runs alone; no others count beyond it."""
    values, found = _reals(others), np.zeros((size, size))
    found[: values.shape[1], : values.shape[1]] = values.T @ values / len(values)
    return found


def _rank(state: int, magnitudes: int) -> int:
    """A platform's state is a scale, an embedding, and as much as there are magnitudes."""
    return state - 1 - magnitudes
