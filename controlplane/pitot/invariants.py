"""What must hold of every answer, whoever gives it. Shares no code with the model."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import isclose, isfinite

_ROUNDING = 1e-3
"""Relative, of answers to one question that was asked in two ways: embeddings have 4 bytes."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was told of one run; seconds.

    Attributes:
        workload: What runs.
        platform: Where.
        beside: Its co-runners, in the order in which they were named.
        misses: Promised rates of times below and above the interval.
        lower: Bound.
        estimate: In the middle.
        upper: Bound.
        alone: The estimate of the same run without its co-runners.
    """

    workload: Hashable
    platform: Hashable
    beside: tuple[Hashable, ...]
    misses: tuple[float, float]
    lower: float
    estimate: float
    upper: float
    alone: float

    def __str__(self) -> str:
        """Which run it is of."""
        company = f" beside {', '.join(map(str, self.beside))}" if self.beside else ""
        return f"{self.workload} on {self.platform}{company}"


def violations(answers: Iterable[Answer]) -> Iterator[str]:
    """Every rule that the answers of one predictor break, a sentence each."""
    same = defaultdict(list)
    alone = defaultdict(list)
    for answer in answers:
        yield from _sound(answer)
        company = tuple(sorted(map(repr, answer.beside)))
        same[answer.workload, answer.platform, company].append(answer)
        alone[answer.workload, answer.platform].append(answer)
    for group in same.values():
        yield from _one_question(group)
    for group in alone.values():
        first = group[0]
        for other in group[1:]:
            if not isclose(first.alone, other.alone, rel_tol=_ROUNDING):
                yield (f"{other}: alone it is said to take {other.alone:g} s and {first.alone:g} s")


def _sound(answer: Answer) -> Iterator[str]:
    """Of one answer by itself."""
    for name in ("lower", "estimate", "upper", "alone"):
        value = getattr(answer, name)
        if not (isfinite(value) and value > 0.0):
            yield f"{answer}: {name} is {value:g} s, wanted positive and finite"
    if answer.estimate > answer.upper:
        yield f"{answer}: the upper bound {answer.upper:g} s is below {answer.estimate:g} s"
    if answer.estimate < answer.lower:
        yield f"{answer}: the lower bound {answer.lower:g} s is above {answer.estimate:g} s"
    if not answer.beside and not isclose(answer.estimate, answer.alone, rel_tol=_ROUNDING):
        yield (
            f"{answer}: nobody is beside it, and yet {answer.estimate:g} s is not the "
            f"{answer.alone:g} s that it takes alone"
        )


def _one_question(answers: list[Answer]) -> Iterator[str]:
    """Of one run, its co-runners named in any order, with any coverage."""
    first = answers[0]
    for other in answers[1:]:
        if not isclose(first.estimate, other.estimate, rel_tol=_ROUNDING):
            yield (
                f"{other}: it is said to take {other.estimate:g} s, and with its co-runners in "
                f"another order {first.estimate:g} s"
            )
    by_upper = sorted(answers, key=lambda answer: answer.misses[1], reverse=True)
    for less, more in pairwise(by_upper):
        slack = _ROUNDING * less.upper
        if more.upper < less.upper - slack or (
            more.misses[1] == less.misses[1] and more.upper > less.upper + slack
        ):
            yield (
                f"{more}: {more.upper:g} s is exceeded in {more.misses[1]:g} of runs and "
                f"{less.upper:g} s in {less.misses[1]:g}"
            )
    by_lower = sorted(answers, key=lambda answer: answer.misses[0], reverse=True)
    for less, more in pairwise(by_lower):
        slack = _ROUNDING * less.lower
        if more.lower > less.lower + slack or (
            more.misses[0] == less.misses[0] and more.lower < less.lower - slack
        ):
            yield (
                f"{more}: {more.lower:g} s is undercut in {more.misses[0]:g} of runs and "
                f"{less.lower:g} s in {less.misses[0]:g}"
            )
