"""``python -m simulator.forecasting.predicting``: what `headrace predict` starts. A question comes
on standard input, the answer goes to standard output, both JSON.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from controlplane.domain.clock import SECOND
from controlplane.domain.event import JobSubmitted
from controlplane.domain.forecast import JobForecast, Span
from controlplane.domain.ids import SequenceNumber
from controlplane.domain.policy import Policy
from controlplane.engine.state import ClusterState, SequencedEvent
from controlplane.live import live_policies
from simulator.forecasting.calibrating import Calibrated
from simulator.forecasting.playing import PLAYS, BudgetSpentError, Samples, said_of, sample
from simulator.snapshots import latest, read_snapshot
from simulator.what_if import forecast as played
from simulator.what_if.known_steps import SCALED, SCALING_EXPONENT
from simulator.what_if.question import Question as Changes
from simulator.what_if.question import changes_of

REFUSED, INTERRUPTED = 4, 130
"""What `headrace` ends with in these cases."""

_BUDGET_SECONDS = 120.0


class Question(BaseModel):
    """Which cluster, and which jobs would come.

    Attributes:
        snapshot: File that `headrace snapshot` wrote.
        manifests: The jobs, as canonical JSON.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    snapshot: Path
    manifests: tuple[str, ...]


def predicted(
    question: Question, state: ClusterState, *, plays: int = PLAYS, budget_seconds: float = 0.0
) -> dict[str, object]:
    """The answer as a document.

    Args:
        question: What is asked.
        state: The snapshot; it stays as it is.
        plays: How often it is played.
        budget_seconds: For how long at most; 0 for as long as it takes.

    Raises:
        ValueError: The question cannot be asked of this cluster, with every reason.
        BudgetSpentError: The cluster is too large for the time that there is.
    """
    policies: Mapping[str, Policy] = live_policies()
    asked = Changes(snapshot=question.snapshot, manifests=question.manifests)
    jobs = changes_of(asked, state, policies).jobs
    at = latest(state)
    numbers = range(state.last_sequence + 1, state.last_sequence + 1 + len(jobs))
    events = [
        SequencedEvent(SequenceNumber(number), JobSubmitted(job, at))
        for number, job in zip(numbers, jobs, strict=True)
    ]
    then = state.fold(events)
    began = time.monotonic()
    samples = sample(
        then,
        at,
        policies,
        plays=plays,
        spent=lambda: 0.0 < budget_seconds < time.monotonic() - began,
    )
    calibrated = Calibrated.by(state.forecast_outcomes)
    told = []
    for job in jobs:
        said = said_of(then, at, job.uid, samples.jobs.get(job.uid, ()))
        said = calibrated.correct(said) if said is not None else None
        told.append(_told(job.full_name, said, samples))
    return {"at": at / SECOND, "plays": samples.plays, "jobs": told}


def _told(name: str, said: JobForecast | None, samples: Samples) -> dict[str, object]:
    source = samples.steps.sources.get(name)
    how = "" if source is None else str(source)
    if source in SCALED:
        how += f", scaled by accelerators to the power of {SCALING_EXPONENT:g}"
    if said is None or said.end is None:
        return {"job": name, "steps": how, "outcomes": _ends(name, samples)}
    found = samples.jobs[said.uid]
    start = said.start or Span(said.made_at, said.made_at, said.made_at)
    return {
        "job": name,
        "start": _span(start),
        "end": _span(said.end),
        "coverage": said.coverage,
        "outcomesMissing": said.missing,
        "startOutcomesMissing": said.missing_starts,
        "length": _lengths(found),
        "first": _most(_first(each) for each in found),
        "last": _most(_last(each) for each in found),
        "type": said.accelerator_type,
        "steps": how,
    }


def _ends(name: str, samples: Samples) -> dict[str, int]:
    """How the plays left a job of which nothing is said."""
    every = (each for found in samples.jobs.values() for each in found if each.job == name)
    return dict(Counter(each.outcome for each in every))


def _span(span: Span) -> dict[str, float]:
    return {
        "low": span.low / SECOND,
        "median": span.median / SECOND,
        "high": span.high / SECOND,
    }


def _lengths(found: Sequence[played.JobForecast]) -> dict[str, float]:
    """From the first accelerators to the end, in seconds, as played."""
    took = sorted(
        each.end_seconds - each.start_seconds
        for each in found
        if each.end_seconds is not None and each.start_seconds is not None
    )
    return {"low": took[0], "median": took[len(took) // 2], "high": took[-1]} if took else {}


def _first(found: played.JobForecast) -> tuple[int, str]:
    return (found.held[0].accelerators, found.held[0].plan) if found.held else (0, "")


def _last(found: played.JobForecast) -> tuple[int, str]:
    return (found.held[-1].accelerators, found.held[-1].plan) if found.held else (0, "")


def _most(ways: Iterable[tuple[int, str]]) -> dict[str, object]:
    """What most plays come to, and what share of them."""
    counted = Counter(ways)
    ((accelerators, plan), times) = counted.most_common(1)[0]
    return {
        "accelerators": accelerators,
        "plan": plan,
        "share": round(times / counted.total(), 3),
    }


def main() -> int:
    """Answers one question. Returns the exit code."""
    try:
        question = Question.model_validate_json(sys.stdin.read())
        state = read_snapshot(question.snapshot)
        told = predicted(question, state, budget_seconds=_BUDGET_SECONDS)
    except OSError as error:
        sys.stderr.write(f"headrace: {error.filename}: {error.strerror}\n")
        return 1
    except (BudgetSpentError, ValueError) as error:
        lines = "".join(f"  {line}\n" for line in str(error).splitlines())
        sys.stderr.write(f"headrace: nothing was predicted:\n{lines}")
        return REFUSED
    except KeyboardInterrupt:
        return INTERRUPTED
    sys.stdout.write(json.dumps(told) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
