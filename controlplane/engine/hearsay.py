"""Whose word counts: an agent speaks for its own node, so for the units that are placed there."""

from collections.abc import Mapping

from controlplane.domain.event import (
    AttemptReport,
    CheckpointMissed,
    JobProgressed,
    PlanChanged,
    PlanObserved,
    PlanRefused,
    UnitExited,
    UnitStarted,
)
from controlplane.domain.ids import JobUid
from controlplane.domain.record import AttemptRecord, JobRecord
from controlplane.engine.observations import is_news


def is_hearsay(attempt: AttemptRecord, report: AttemptReport) -> bool:
    """Whether a node tells of a unit of this attempt that is not placed on it.

    Unit 0 binds the rendezvous, and its first rank writes the progress and what becomes of plans
    and checkpoints.
    Events that were stored by 0.1.0 name no node and are believed.
    """
    match report:
        case UnitStarted():
            unit = report.unit
        case UnitExited():
            unit = report.exit.unit
        case _:
            unit = 0
    known = attempt.unit(unit)
    return known is None or (bool(report.node) and known.node != report.node)


def is_worth_storing(jobs: Mapping[JobUid, JobRecord], report: AttemptReport) -> bool:
    """Whether a report can mean anything by what is placed now, or was.

    Exits of other attempts can: they end strays and purges. What became of a plan or a
    checkpoint of an earlier attempt cannot: that attempt is over. Nor can an observation that is
    not newer than those before, or one too many. Progress can of an earlier
    attempt from the node that it ran on, which may have been out of touch: the steps up to the
    checkpoint from which the next attempt went on are told by nobody else.
    """
    record = jobs.get(report.uid)
    attempt = record.attempt if record is not None else None
    if attempt is not None and attempt.number == report.attempt:
        if isinstance(report, PlanObserved) and not is_news(attempt, report):
            return False
        return not is_hearsay(attempt, report)
    if isinstance(report, PlanChanged | PlanRefused | PlanObserved | CheckpointMissed):
        return False
    if not isinstance(report, JobProgressed):
        return True
    return record is not None and (report.attempt, report.node) in record.progress_reporters
