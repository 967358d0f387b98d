"""A predictor as one value: names, embeddings, calibration; asked by name, it tells seconds."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np

from controlplane.pitot.bounds import Bounds, two_sided_bounds
from controlplane.pitot.calibration import Calibration
from controlplane.pitot.network import Embeddings
from controlplane.pitot.run_times import MOST_CO_RUNNERS, NOBODY, Ids, RunTimes

MOST_FAULTS = 3
"""That one sentence tells; the others are counted."""


class UnknownNameError(KeyError):
    """Something is asked about that nothing was learnt of."""

    def __str__(self) -> str:
        """The sentence, without the quotes of a key."""
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class Question:
    """Runs by name.

    Attributes:
        workload: (n,) names.
        platform: (n,) names.
        beside: (n,) names of each run's co-runners, at most three; left out, all run alone.
    """

    workload: Sequence[str]
    platform: Sequence[str]
    beside: Sequence[Sequence[str]] = ()


@dataclass(frozen=True, slots=True)
class Predictor:
    """All that prediction needs.

    Attributes:
        workloads: Names, by index.
        platforms: Names, by index.
        at: What was learnt of them.
        calibration: Its pools, of the same heads.
    """

    workloads: tuple[str, ...]
    platforms: tuple[str, ...]
    at: Embeddings
    calibration: Calibration

    def indices(self, question: Question) -> tuple[Ids, Ids, Ids]:
        """(n,) workloads, (n,) platforms and (n, 3) co-runners.

        Raises:
            UnknownNameError: A name was not learnt; says which, and what it is like.
            ValueError: The columns are not of one length, or a run has too many co-runners.
        """
        rows = len(question.workload)
        beside = question.beside or [()] * rows
        if not len(question.platform) == len(beside) == rows:
            raise ValueError(
                f"wanted as many platforms and lists of co-runners as workloads, found "
                f"{len(question.platform)} and {len(beside)} for {rows}"
            )
        most = max((len(each) for each in beside), default=0)
        if most > MOST_CO_RUNNERS:
            raise ValueError(
                f"wanted at most {MOST_CO_RUNNERS} co-runners of a run, found {most}; what more "
                "do to each other was never learnt"
            )
        workloads = {name: index for index, name in enumerate(self.workloads)}
        platforms = {name: index for index, name in enumerate(self.platforms)}
        self._refuse_strangers(question, beside, (set(workloads), set(platforms)))
        others = np.full((rows, MOST_CO_RUNNERS), NOBODY, dtype=np.int64)
        for row, names in enumerate(beside):
            others[row, : len(names)] = [workloads[name] for name in names]
        return (
            np.array([workloads[name] for name in question.workload], dtype=np.int64),
            np.array([platforms[name] for name in question.platform], dtype=np.int64),
            others,
        )

    def knows(self, question: Question) -> np.ndarray:
        """(n,) whether all names of a run were learnt."""
        workloads, platforms = set(self.workloads), set(self.platforms)
        beside = question.beside or [()] * len(question.workload)
        known = [
            own in workloads and there in platforms and workloads.issuperset(others)
            for own, there, others in zip(question.workload, question.platform, beside, strict=True)
        ]
        return np.array(known, dtype=np.bool_)

    def bounds(self, question: Question, misses: tuple[float, float]) -> Bounds:
        """An interval for each run, in seconds.

        Args:
            question: Which runs.
            misses: Rates of times below the interval and above it.

        Raises:
            UnknownNameError: A name was not learnt.
            TooFewRunsError: The pool of a degree that occurs is too small for such rates.
        """
        return two_sided_bounds(self.at, self.calibration, self.indices(question), misses)

    def alone(self, question: Question) -> np.ndarray:
        """(n,) estimates of the same runs without their co-runners, in seconds."""
        workload, platform, _ = self.indices(question)
        nobody = np.empty((len(workload), 0), dtype=np.int64)
        one = self.at.of_head(self.calibration.median)
        return np.exp(one.log_seconds(workload, platform, nobody)[:, 0].astype(np.float64))

    def observed(self, question: Question, seconds: Sequence[float]) -> RunTimes:
        """What runs took, by index.

        Raises:
            UnknownNameError: A name was not learnt.
            RunTimeError: There are not as many times as runs.
        """
        workload, platform, beside = self.indices(question)
        return RunTimes.of(workload, platform, seconds, beside)

    def _refuse_strangers(
        self,
        question: Question,
        beside: Sequence[Sequence[str]],
        known: tuple[set[str], set[str]],
    ) -> None:
        workloads, platforms = known
        faults = []
        for row, (own, there, others) in enumerate(
            zip(question.workload, question.platform, beside, strict=True)
        ):
            faults += [
                _stranger(row, what, name, names)
                for what, name, names in (
                    ("workload", own, workloads),
                    ("platform", there, platforms),
                    *(("co-runner", name, workloads) for name in others),
                )
                if name not in names
            ]
        if faults:
            more = f"; and {len(faults) - MOST_FAULTS} more" * (len(faults) > MOST_FAULTS)
            raise UnknownNameError(
                f"{'; '.join(faults[:MOST_FAULTS])}{more}; a new one is predicted from its side "
                "information, and from its first runs on"
            )


def _stranger(row: int, what: str, name: str, names: set[str]) -> str:
    like = get_close_matches(name, sorted(names), n=1)
    meant = f", did you mean {like[0]!r}?" if like else ""
    return f"row {row}: no {what} {name!r} among the {len(names)} that were learnt{meant}"
