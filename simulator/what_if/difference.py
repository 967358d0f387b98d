"""Two forecasts of the same jobs, one against the other: who gains, who is hurt, by how much."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from statistics import fmean

from simulator.what_if.forecast import Forecast, JobForecast

_THE_SAME_SECONDS = 1.0
"""What differs by less is not worth a word."""

_NAMED = 3
"""So many of those that gain, or are hurt, are named."""

_RANKS = {"Succeeded": 2, "Endless": 1, "Waits": 0, "Failed": 0}
"""Better outcomes have higher numbers."""


class Effect(StrEnum):
    """What a change does to a job."""

    GAINS = "gains"
    HURT = "hurt"
    SAME = "same"


@dataclass(frozen=True, slots=True)
class JobDifference:
    """One job, without the change and with it.

    Attributes:
        before: Without.
        after: With.
        change_seconds: By how much later it ends, or starts if no end of it is known; None where
            one of the two never comes.
        effect: Whether that is good for it.
    """

    before: JobForecast
    after: JobForecast
    change_seconds: float | None
    effect: Effect

    @property
    def weight(self) -> float:
        """How much it changes; infinitely if it ends in one case only."""
        if self.change_seconds is not None:
            return abs(self.change_seconds)
        return 0.0 if self.effect is Effect.SAME else float("inf")


def differences(before: Forecast, after: Forecast) -> list[JobDifference]:
    """Every job that both know, those that change most first."""
    both = (uid for uid in before.jobs if uid in after.jobs)
    found = [_difference(before.jobs[uid], after.jobs[uid]) for uid in both]
    return sorted(found, key=lambda each: (-each.weight, each.before.job))


def _difference(before: JobForecast, after: JobForecast) -> JobDifference:
    ranks = _RANKS[before.outcome], _RANKS[after.outcome]
    change: float | None = None
    if before.end_seconds is not None and after.end_seconds is not None:
        change = after.end_seconds - before.end_seconds
    elif before.outcome == after.outcome == "Endless":
        change = (after.start_seconds or 0.0) - (before.start_seconds or 0.0)
    if change is not None:
        change = round(change, 3)
    if ranks[0] != ranks[1]:
        return JobDifference(
            before, after, change, Effect.GAINS if ranks[1] > ranks[0] else Effect.HURT
        )
    if change is None or abs(change) < _THE_SAME_SECONDS:
        return JobDifference(before, after, change, Effect.SAME)
    return JobDifference(before, after, change, Effect.GAINS if change < 0 else Effect.HURT)


def answer(
    before: Forecast,
    after: Forecast | None,
    *,
    at: str,
    changes: Sequence[str],
    assumed: Sequence[str],
) -> dict[str, object]:
    """The whole answer as a document.

    Args:
        before: Without the changes.
        after: With them; None if nothing changes.
        at: The snapshot's instant, for people.
        changes: The changes, a clause each.
        assumed: What was assumed, a clause each.
    """
    every = differences(before, after) if after is not None else []
    there = [each.before for each in every] or list(before.jobs.values())
    told: dict[str, object] = {
        "at": at,
        "policy": {"before": before.policy, "after": (after or before).policy},
        "changes": list(changes),
        "jobs": [_told(each) for each in every]
        or [{"job": each.job, "before": asdict(each)} for each in there],
        "submitted": [
            asdict(each)
            for uid, each in (after.jobs.items() if after is not None else ())
            if uid not in before.jobs
        ],
        "sums": _sums(every) if after is not None else {"before": _sum(there)},
        "assumed": list(assumed),
        "trouble": list(_trouble(before, after)),
        "decisions_sha256": {
            "before": before.decisions_sha256,
            "after": (after or before).decisions_sha256,
        },
    }
    return told


def _told(each: JobDifference) -> dict[str, object]:
    return {
        "job": each.before.job,
        "before": asdict(each.before),
        "after": asdict(each.after),
        "change_seconds": each.change_seconds,
        "effect": str(each.effect),
    }


def _sums(every: Sequence[JobDifference]) -> dict[str, object]:
    """Of the jobs that succeed in both cases; what is hurt and what gains, of all."""
    both = [
        each
        for each in every
        if each.before.outcome == "Succeeded" and each.after.outcome == "Succeeded"
    ]
    return {
        "before": _sum([each.before for each in both]),
        "after": _sum([each.after for each in both]),
        "hurt": _affected(every, Effect.HURT),
        "gain": _affected(every, Effect.GAINS),
        "same": sum(each.effect is Effect.SAME for each in every),
    }


def _sum(jobs: Sequence[JobForecast]) -> dict[str, object]:
    done = [each for each in jobs if each.completion_seconds is not None]
    completions = [each.completion_seconds for each in done if each.completion_seconds is not None]
    return {
        "jobs": len(done),
        "average_completion_seconds": round(fmean(completions), 3) if completions else None,
        "accelerator_hours": round(sum(each.accelerator_hours for each in done), 6),
        "last_end_seconds": max((each.end_seconds or 0.0 for each in done), default=None),
    }


def _affected(every: Iterable[JobDifference], effect: Effect) -> dict[str, object]:
    some = [each for each in every if each.effect is effect]
    timed = [each for each in some if each.change_seconds is not None]
    # As `differences` gives them, those that change most come first.
    return {
        "jobs": len(some),
        "seconds": round(sum(abs(each.change_seconds or 0.0) for each in timed), 3),
        "most": [{"job": e.before.job, "seconds": e.weight} for e in timed[:_NAMED]],
        "without_end_in_one_case": [e.before.job for e in some if e.change_seconds is None],
    }


def _trouble(before: Forecast, after: Forecast | None) -> Iterable[str]:
    for each in (before, after):
        if each is not None:
            case = "with the change" if each is after else "without the change"
            yield from (f"{case}: {sentence}" for sentence in each.refused[:3])
