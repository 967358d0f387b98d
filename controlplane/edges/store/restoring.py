"""Reads the state back: the last checkpoint and what was logged after it."""

from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Connection, Engine, and_, delete, func, insert, or_, select

from controlplane.domain.clock import Instant
from controlplane.domain.codec import adapter
from controlplane.domain.event import CycleDecided
from controlplane.domain.ids import Attempt, SequenceNumber
from controlplane.edges.store.database import for_consistent_reading
from controlplane.edges.store.rows import to_event
from controlplane.edges.store.tables import CHECKPOINTS, EVENTS, LEASE, META
from controlplane.engine.state import SequencedEvent, in_replay_order

SEQUENCE_FLOOR = "sequence_floor"
"""Name in ``meta`` of the number above which events are numbered. A restored store raises it, so
that no number is given out again that someone got before the disaster.
"""

ATTEMPT_FLOOR = "attempt_floor"
"""The same for the attempts of jobs that were restored."""

RESTORED = "restored"
"""Name in ``meta`` that is there from a restore until a cycle was allowed to order something."""

_DECIDED = CycleDecided.__dataclass_fields__["kind"].default


def last_sequence(connection: Connection) -> int:
    """The highest number given so far; 0 in an empty store."""
    logged = connection.scalar(select(func.max(EVENTS.c.seq)))
    floor = connection.scalar(select(META.c.value).where(META.c.name == SEQUENCE_FLOOR))
    return max(logged or 0, int(floor or 0))


def expects_strangers(engine: Engine) -> bool:
    """See ``Store.expects_strangers``."""
    with engine.connect() as connection:
        mark = connection.scalar(select(META.c.value).where(META.c.name == RESTORED))
    return mark is not None


def expect_strangers_no_more(connection: Connection) -> None:
    """See ``GroupCommitWriter.expect_strangers_no_more``."""
    connection.execute(delete(META).where(META.c.name == RESTORED))


def attempt_floor(engine: Engine) -> tuple[SequenceNumber, Attempt]:
    """See ``Store.attempt_floor``."""
    with engine.connect() as connection:
        floors = select(META.c.name, META.c.value).where(
            META.c.name.in_((SEQUENCE_FLOOR, ATTEMPT_FLOOR))
        )
        found = {name: int(value) for name, value in connection.execute(floors)}
    return (
        SequenceNumber(found.get(SEQUENCE_FLOOR, 0)),
        Attempt(found.get(ATTEMPT_FLOOR, 0)),
    )


def last_instant(engine: Engine) -> Instant:
    """The latest time in the store; see ``Store.last_instant``."""
    newest = select(EVENTS.c.at_ns).order_by(EVENTS.c.seq.desc()).limit(1)
    with engine.connect() as connection:
        times = (
            connection.scalar(newest),
            connection.scalar(select(func.max(CHECKPOINTS.c.at_ns))),
            connection.scalar(select(func.max(LEASE.c.renewed_at_ns))),
        )
    return Instant(max(at or 0 for at in times))


def load(engine: Engine, kind: Any) -> tuple[Any, list[SequencedEvent]]:
    """See ``Store.load``."""
    codec: TypeAdapter[Any] = adapter(kind)
    newest = select(CHECKPOINTS).order_by(CHECKPOINTS.c.seq.desc()).limit(1)
    with for_consistent_reading(engine).connect() as connection, connection.begin():
        checkpoint = connection.execute(newest).mappings().first()
        decided_up_to = checkpoint["seq"] if checkpoint else 0
        folded_up_to = checkpoint["folded_up_to"] if checkpoint else 0
        later = (
            select(EVENTS)
            .where(
                EVENTS.c.seq > folded_up_to,
                or_(
                    EVENTS.c.kind != _DECIDED,
                    and_(EVENTS.c.kind == _DECIDED, EVENTS.c.seq > decided_up_to),
                ),
            )
            .order_by(EVENTS.c.seq)
        )
        stored = [to_event(row) for row in connection.execute(later).mappings()]
    state = codec.validate_json(checkpoint["state"]) if checkpoint else None
    positions = {
        item.sequence: item.event.folded_up_to
        for item in stored
        if isinstance(item.event, CycleDecided)
    }
    return state, in_replay_order(stored, positions)


def save_checkpoint(
    connection: Connection, sequence: SequenceNumber, at: Instant, state: str
) -> None:
    """Adds a checkpoint; see ``Store.save_checkpoint``."""
    connection.execute(CHECKPOINTS.delete().where(CHECKPOINTS.c.seq == sequence))
    connection.execute(
        insert(CHECKPOINTS),
        {
            "seq": sequence,
            "folded_up_to": _folded_up_to(connection, sequence),
            "at_ns": at,
            "state": state,
        },
    )


def _folded_up_to(connection: Connection, sequence: SequenceNumber) -> int:
    """Up to where a state whose last number is ``sequence`` holds what came through the door.

    When the last thing it folded was a decision, events may have come in between what that
    decision had seen and itself; those are not in the state.
    """
    last = (
        connection.execute(select(EVENTS).where(EVENTS.c.seq == sequence)).mappings().one_or_none()
    )
    if last is not None and last["kind"] == _DECIDED:
        decided = to_event(last).event
        if isinstance(decided, CycleDecided):
            return decided.folded_up_to
    return sequence
