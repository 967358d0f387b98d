"""What people ask the log. Read only, on connections of their own; never in the writer's way."""

from collections.abc import Collection

from sqlalchemy import Engine, select

from controlplane.domain.event import JobSubmitted
from controlplane.domain.ids import JobUid, SequenceNumber
from controlplane.edges.store.rows import (
    StoredDecision,
    StoredLoss,
    storable,
    to_decision,
    to_event,
    to_loss,
)
from controlplane.edges.store.tables import DECISIONS, EVENTS, LOSSES
from controlplane.engine.state import SequencedEvent


def events(
    engine: Engine, uid: JobUid | None, after: SequenceNumber, limit: int
) -> list[SequencedEvent]:
    """See ``Store.events``."""
    wanted = select(EVENTS).where(EVENTS.c.seq > after).order_by(EVENTS.c.seq).limit(limit)
    if uid is not None:
        wanted = wanted.where(EVENTS.c.uid == storable(uid))
    with engine.connect() as connection:
        return [to_event(row) for row in connection.execute(wanted).mappings()]


def names(engine: Engine, uids: Collection[JobUid]) -> dict[JobUid, str]:
    """See ``Store.names``."""
    wanted = select(EVENTS).where(
        EVENTS.c.uid.in_([storable(uid) for uid in uids]), EVENTS.c.kind == "JobSubmitted"
    )
    with engine.connect() as connection:
        found = [to_event(row).event for row in connection.execute(wanted).mappings()]
    return {event.job.uid: event.job.name for event in found if isinstance(event, JobSubmitted)}


def decisions(engine: Engine, uid: JobUid, limit: int) -> list[StoredDecision]:
    """See ``Store.decisions``."""
    wanted = (
        select(DECISIONS)
        .where(DECISIONS.c.uid == storable(uid))
        .order_by(DECISIONS.c.seq.desc(), DECISIONS.c.place.desc())
        .limit(limit)
    )
    with engine.connect() as connection:
        newest_first = [to_decision(row) for row in connection.execute(wanted).mappings()]
    return newest_first[::-1]


def decisions_after(
    engine: Engine, uid: JobUid, after: SequenceNumber, limit: int
) -> list[StoredDecision]:
    """See ``Store.decisions_after``."""
    later = (DECISIONS.c.uid == storable(uid), DECISIONS.c.seq > after)
    in_order = (DECISIONS.c.seq, DECISIONS.c.place)
    beyond = select(DECISIONS.c.seq).where(*later).order_by(*in_order).offset(limit).limit(1)
    wanted = select(DECISIONS).where(*later).order_by(*in_order)
    with engine.connect() as connection:
        end = connection.scalar(beyond)
        if end is not None:
            wanted = wanted.where(DECISIONS.c.seq <= end)
        return [to_decision(row) for row in connection.execute(wanted).mappings()]


def losses(engine: Engine, uid: JobUid, after_step: int, limit: int) -> list[StoredLoss]:
    """See ``Store.losses``."""
    wanted = (
        select(LOSSES)
        .where(LOSSES.c.uid == storable(uid), LOSSES.c.step > after_step)
        .order_by(LOSSES.c.step)
        .limit(limit)
    )
    with engine.connect() as connection:
        return [to_loss(row) for row in connection.execute(wanted).mappings()]
