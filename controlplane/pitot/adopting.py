"""Which predictor stays in use: the last good one, until another is better on recent runs.

A fit is measured on recent runs that it did not learn from, by what an interval of 90 % and its
estimate cost there: the mean of three pinball losses of the logarithm, which are least for the
true quantiles, so that neither too wide nor too narrow a bound can win. A fit that costs more than
the one in use is not adopted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controlplane.pitot.calibration import TooFewRunsError
from controlplane.pitot.encoding import CorruptParametersError, decode
from controlplane.pitot.predictor import Predictor, Question
from controlplane.pitot.run_times import Reals

MISSES = (0.05, 0.05)
"""Below and above the interval by which fits are compared."""
LEAST_RUNS = 20
"""Recent runs, for a comparison to say anything."""


@dataclass(frozen=True, slots=True)
class Score:
    """How a predictor did on runs.

    Attributes:
        loss: Mean of the pinball losses of both bounds and the estimate, in logarithms.
        error: Mean of |seconds / estimate - 1|.
        held: Share of runs inside the interval.
        runs: How many.
    """

    loss: float
    error: float
    held: float
    runs: int

    def __str__(self) -> str:
        """For a sentence."""
        return (
            f"loss {self.loss:.4g}, error {self.error:.1%}, {self.held:.1%} of "
            f"{self.runs} runs inside the interval of {1 - sum(MISSES):.0%}"
        )


@dataclass(frozen=True, slots=True)
class Adoption:
    """What came of a fit.

    Attributes:
        predictor: To be used from now on; none, where there never was a good one.
        adopted: Whether it is the new one.
        why: A sentence with the numbers that decided.
    """

    predictor: Predictor | None
    adopted: bool
    why: str


def score(predictor: Predictor, runs: Question, seconds: Sequence[float]) -> Score:
    """How a predictor does on runs that it did not learn from.

    Raises:
        UnknownNameError: A name was not learnt.
        TooFewRunsError: The pool of a degree that occurs is too small for the interval.
    """
    measured = np.asarray(seconds, dtype=np.float64)
    found = predictor.bounds(runs, MISSES)
    logs = np.log(measured)
    losses = [
        _pinball(logs - np.log(told), quantile)
        for told, quantile in (
            (found.lower, MISSES[0]),
            (found.estimate, 0.5),
            (found.upper, 1.0 - MISSES[1]),
        )
    ]
    inside = (found.lower <= measured) & (measured <= found.upper)
    error = np.abs(measured / found.estimate - 1.0)
    return Score(
        float(np.mean(losses)), float(np.mean(error)), float(np.mean(inside)), len(measured)
    )


def adopt(
    kept: Predictor | None, fresh: Predictor, runs: Question, seconds: Sequence[float]
) -> Adoption:
    """Takes a fit, unless the one in use does better on recent runs.

    Args:
        kept: In use; none at first.
        fresh: The new fit.
        runs: Recent ones that the new fit did not learn from. Those of which either of the two
            does not know all names are left out.
        seconds: (n,) what they took. Where one was not measured, nothing is compared.
    """
    measured = np.asarray(seconds, dtype=np.float64)
    wrong = np.flatnonzero(~(np.isfinite(measured) & (measured > 0.0)))
    if len(wrong):
        return Adoption(
            kept,
            adopted=False,
            why=f"not adopted: wanted recent run times above 0 s to compare on, found "
            f"{measured[wrong[0]]:g} s in row {wrong[0]}, and {len(wrong)} such in all; check them",
        )
    known = fresh.knows(runs)
    if kept is not None:
        known &= kept.knows(runs)
    count = int(np.count_nonzero(known))
    if count < LEAST_RUNS:
        return Adoption(
            kept,
            adopted=False,
            why=f"not adopted: wanted {LEAST_RUNS} recent runs of known workloads and platforms "
            f"to compare on, found {count} of {len(measured)}; more will come",
        )
    asked, took = _chosen(runs, known), measured[known]
    try:
        new = score(fresh, asked, took.tolist())
    except TooFewRunsError as error:
        return Adoption(kept, adopted=False, why=f"not adopted: {error}")
    if not np.isfinite(new.loss):
        return Adoption(
            kept, adopted=False, why=f"not adopted: wanted a finite loss, found {new.loss}"
        )
    if kept is None:
        return Adoption(fresh, adopted=True, why=f"adopted as the first: {new}")
    try:
        old = score(kept, asked, took.tolist())
    except TooFewRunsError as error:
        return Adoption(fresh, adopted=True, why=f"adopted: {new}; in use until now: {error}")
    if new.loss > old.loss:
        return Adoption(
            kept, adopted=False, why=f"not adopted, it does worse: {new}; in use: {old}"
        )
    return Adoption(fresh, adopted=True, why=f"adopted: {new}; in use until now: {old}")


def loaded(kept: Predictor | None, data: bytes) -> Adoption:
    """Reads stored parameters; what cannot be read leaves the last good ones in use."""
    try:
        return Adoption(decode(data), adopted=True, why="read")
    except CorruptParametersError as error:
        left = "nothing is predicted" if kept is None else "the last good ones stay in use"
        return Adoption(kept, adopted=False, why=f"{error}; {left}")


def _pinball(off: Reals, quantile: float) -> float:
    """Mean loss, given measured less told."""
    return float(np.mean(np.where(off > 0, quantile * off, (quantile - 1.0) * off)))


def _chosen(runs: Question, rows: np.ndarray) -> Question:
    chosen = np.flatnonzero(rows).tolist()
    return Question(
        [runs.workload[row] for row in chosen],
        [runs.platform[row] for row in chosen],
        [runs.beside[row] for row in chosen] if runs.beside else (),
    )
