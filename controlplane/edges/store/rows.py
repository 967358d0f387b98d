"""Events as rows, and rows as events."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import RowMapping

from controlplane.domain.action import Action
from controlplane.domain.clock import Instant
from controlplane.domain.codec import dump, dump_event, load, load_event
from controlplane.domain.event import (
    CycleDecided,
    Event,
    JobProgressed,
    JobSubmitted,
    JobUpdated,
    NodeRegistered,
)
from controlplane.domain.ids import Attempt, JobUid, SequenceNumber, Term
from controlplane.domain.reason import Reason
from controlplane.engine.state import SequencedEvent

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class StoredDecision:
    """What one decision says of one job.

    Attributes:
        sequence: Place of the whole decision in the event log.
        action: What was ordered; None where only the reason changed.
        reason: Why.
    """

    sequence: SequenceNumber
    uid: JobUid
    at: Instant
    term: Term
    action: Action | None
    reason: Reason | None


@dataclass(frozen=True, slots=True)
class StoredLoss:
    """The training loss of one step, of the last attempt that did it; NaN if it was none."""

    step: int
    loss: float
    attempt: Attempt
    at: Instant


def without_losses(event: Event) -> Event:
    """The event as it is logged and folded; its losses are rows of their own."""
    if isinstance(event, JobProgressed) and event.losses:
        return replace(event, losses=())
    return event


def event_row(event: Event) -> Row:
    """The event's row, still without its number."""
    if isinstance(event, JobSubmitted | JobUpdated):
        uid, node = str(event.job.uid), ""
    elif isinstance(event, NodeRegistered):
        uid, node = "", str(event.node.id)
    else:
        uid, node = getattr(event, "uid", ""), getattr(event, "node", "")
    return {
        "at_ns": event.at,
        "kind": event.kind,
        "uid": storable(uid),
        "node": storable(node),
        "body": dump_event(event),
    }


def loss_rows(event: JobProgressed) -> Iterator[Row]:
    """The rows of an event's losses."""
    for step, loss in event.losses:
        yield {
            "uid": storable(event.uid),
            "step": step,
            "attempt": event.attempt,
            "loss": None if math.isnan(loss) else loss,
            "at_ns": event.at,
        }


def decision_rows(sequence: int, decided: CycleDecided) -> Iterator[Row]:
    """One row an action, and one a changed reason that no action of its job gives."""
    told: set[tuple[JobUid, Reason]] = set()
    lines: list[tuple[JobUid, Action | None, Reason | None]] = []
    for action in decided.actions:
        reason: Reason | None = getattr(action, "reason", None)
        lines.append((action.uid, action, reason))
        if reason is not None:
            told.add((action.uid, reason))
    lines.extend((uid, None, why) for uid, why in decided.reasons if (uid, why) not in told)
    for place, (uid, order, why) in enumerate(lines):
        yield {
            "seq": sequence,
            "place": place,
            "uid": storable(uid),
            "at_ns": decided.at,
            "term": decided.term,
            "action": "" if order is None else dump(order, Action),
            "reason": "" if why is None else dump(why, Reason),
        }


def to_event(row: RowMapping) -> SequencedEvent:
    """The event that stands in a row."""
    return SequencedEvent(SequenceNumber(row["seq"]), load_event(row["body"]))


def to_decision(row: RowMapping) -> StoredDecision:
    """The decision that stands in a row."""
    return StoredDecision(
        sequence=SequenceNumber(row["seq"]),
        uid=JobUid(row["uid"]),
        at=Instant(row["at_ns"]),
        term=Term(row["term"]),
        action=load(row["action"], Action) if row["action"] else None,
        reason=load(row["reason"], Reason) if row["reason"] else None,
    )


def to_loss(row: RowMapping) -> StoredLoss:
    """The loss that stands in a row."""
    loss = row["loss"]
    return StoredLoss(
        step=row["step"],
        loss=math.nan if loss is None else loss,
        attempt=Attempt(row["attempt"]),
        at=Instant(row["at_ns"]),
    )


def storable(name: str) -> str:
    """A name as a column can hold it: PostgreSQL stores no NUL."""
    return name.replace("\x00", "\ufffd") if "\x00" in name else name
