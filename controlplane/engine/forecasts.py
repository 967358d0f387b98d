"""What is predicted of jobs becomes part of the state, and with their ends what came true. Pure."""

from collections.abc import Iterable, Iterator, Mapping

from controlplane.domain.changing import changed
from controlplane.domain.clock import SECOND, Instant
from controlplane.domain.event import (
    CycleDecided,
    Event,
    JobOverdue,
    JobsForecast,
    JobUpdated,
    NodeLost,
)
from controlplane.domain.forecast import (
    COUNTED_WITHIN,
    ForecastOutcome,
    JobForecast,
    KnownForecasts,
    Span,
)
from controlplane.domain.ids import JobUid, NodeId
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import JobRecord, NodeRecord
from controlplane.engine.observations import model_of

OUTCOMES_KEPT = 2_000
"""Those that came true longest ago make room for new ones: each takes some 700 bytes."""

Known = dict[JobUid, KnownForecasts]
Outcomes = tuple[ForecastOutcome, ...]


def told(known: Known, jobs: Mapping[JobUid, JobRecord], said: JobsForecast) -> None:
    """Puts what is predicted in the place of what was. Of jobs that are gone or changed since, it
    is of no use; and what is older than what is known came late.
    """
    for each in said.forecasts.jobs:
        record, before = jobs.get(each.uid), known.get(each.uid)
        if record is None or _is_settled(record) or record.job.generation != each.generation:
            continue
        if before is not None and before.newest.made_at > each.made_at:
            continue
        known[each.uid] = KnownForecasts(
            newest=each,
            at_submission=before.at_submission if before else _at_submission(record, each),
            at_start=(before.at_start if before else None) or _at_start(record, each),
            overdue_at=before.overdue_at if before else None,
        )


def overdue_told(known: Known, said: JobOverdue) -> None:
    """A job trains on past what was predicted; told once, it is not told again."""
    kept = known.get(said.uid)
    if kept is not None:
        known[said.uid] = changed(kept, overdue_at=said.at)


def overdue(
    known: Mapping[JobUid, KnownForecasts], jobs: Mapping[JobUid, JobRecord], at: Instant
) -> Iterator[JobOverdue]:
    """Jobs of which it should be told that they train on past the upper end of what was predicted.

    Only what is calibrated is a promise, and only a job that trains can be late by its own doing.

    Args:
        known: What was predicted.
        jobs: As they are.
        at: The present instant.
    """
    for uid, kept in known.items():
        record, said = jobs.get(uid), kept.counted
        if kept.overdue_at is not None or record is None or said is None:
            continue
        attempt, end = record.attempt, said.end
        if end is None or said.missing or end.high >= at or attempt is None or not attempt.trained:
            continue
        reason = Reason(ReasonCode.OVERDUE_FORECAST, _evidence(record, said, end, jobs, at))
        nodes = tuple(sorted(attempt.placement.nodes))
        yield JobOverdue(uid, attempt.number, reason, nodes, at)


def _evidence(
    record: JobRecord,
    said: JobForecast,
    end: Span,
    jobs: Mapping[JobUid, JobRecord],
    at: Instant,
) -> str:
    """What was predicted, how far it is, and how its steps compare with those of its equals."""
    when = "at its start" if said.started else "at its submission"
    within, past = ((b - a) / SECOND for a, b in ((said.made_at, end.high), (end.high, at)))
    progress = record.progress
    told = (
        f"it was to end within {within:.0f} s ({said.coverage:.0%}), as predicted {when}, and "
        f"trains on {past:.0f} s past that, at step {progress.step} of {record.job.spec.steps}; a "
        f"step takes {progress.step_seconds:.3g} s"
    )
    others = sorted(
        each.progress.step_seconds
        for each in jobs.values()
        if each is not record and each.progress.step_seconds > 0 and _is_alike(each, record)
    )
    if others:
        middle = others[len(others) // 2]
        told += f", and {middle:.3g} s in {len(others)} jobs of its model and size"
    if record.failures:
        told += f", {record.failures} failures"
    if record.reconfigurations:
        told += f", {record.reconfigurations} changes of plan or place"
    return told


def _is_alike(other: JobRecord, record: JobRecord) -> bool:
    """Whether both train the same batch of the same model on as many accelerators."""
    own, another = record.attempt, other.attempt
    return (
        own is not None
        and another is not None
        and own.placement.accelerator_count == another.placement.accelerator_count
        and model_of(other.job.spec.manifest_json) == model_of(record.job.spec.manifest_json)
        and other.job.spec.global_batch_size == record.job.spec.global_batch_size
    )


def _at_submission(record: JobRecord, first: JobForecast) -> JobForecast | None:
    soon = first.made_at - record.job.submitted_at <= COUNTED_WITHIN
    return first if soon and not first.started else None


def _at_start(record: JobRecord, found: JobForecast) -> JobForecast | None:
    started_at = record.first_started_at
    soon = started_at is not None and found.made_at - started_at <= COUNTED_WITHIN
    return found if soon and found.started else None


def followed(
    known: Known,
    outcomes: Outcomes,
    jobs: Mapping[JobUid, JobRecord],
    nodes: Mapping[NodeId, NodeRecord],
    event: Event,
) -> Outcomes:
    """The outcomes after an event that was folded; what is not to come any more is forgotten.

    A job that somebody withdrew or changed makes no outcome: what was predicted was another one.
    """
    fresh: list[ForecastOutcome] = []
    for uid in _about(event, known):
        record, kept = jobs.get(uid), known.get(uid)
        if kept is None:
            continue
        if record is None or record.withdrawn:
            del known[uid]
        elif record.finished_at is not None:
            del known[uid]
            fresh += _outcomes(kept, record, record.finished_at, nodes)
        elif record.job.generation != kept.newest.generation:
            del known[uid]
    return (*outcomes, *fresh)[-OUTCOMES_KEPT:] if fresh else outcomes


def _about(event: Event, known: Known) -> Iterable[JobUid]:
    """The jobs that may have ended, gone or become others."""
    match event:
        case CycleDecided(actions=actions):
            return [action.uid for action in actions]
        case NodeLost():
            return list(known)
        case JobUpdated(job=job):
            return (job.uid,)
    uid = getattr(event, "uid", None)
    return () if uid is None else (uid,)


def _outcomes(
    kept: KnownForecasts, record: JobRecord, at: Instant, nodes: Mapping[NodeId, NodeRecord]
) -> Iterator[ForecastOutcome]:
    for each in (kept.at_submission, kept.at_start):
        if each is not None:
            yield ForecastOutcome(
                forecast=each,
                job=record.job.full_name,
                queue=record.job.spec.queue,
                accelerator_type=_type_of(record, nodes) or kept.newest.accelerator_type,
                started_at=record.first_started_at,
                ended_at=at,
                stage=record.stage,
            )


def _type_of(record: JobRecord, nodes: Mapping[NodeId, NodeRecord]) -> str:
    """Of the first accelerators on the node of its last attempt; empty if that node is gone."""
    if not record.progress_reporters:
        return ""
    node = nodes.get(record.progress_reporters[-1][1])
    return node.node.accelerators[0].type if node is not None and node.node.accelerators else ""


def _is_settled(record: JobRecord) -> bool:
    return record.finished_at is not None or record.withdrawn
