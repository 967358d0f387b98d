"""Small worlds for the store's tests: events, a clock that is set, and a running store."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from controlplane.domain.action import Action, StopAttempt
from controlplane.domain.clock import SECOND, Instant
from controlplane.domain.event import CycleDecided, JobProgressed, JobWithdrawn, UnitStarted
from controlplane.domain.ids import Attempt, JobUid, SequenceNumber, Term
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import Progress
from controlplane.edges.store.decisions import StoredDecisions
from controlplane.edges.store.store import Store
from controlplane.edges.store.tail import EventTail
from controlplane.edges.store.writer import GroupCommitWriter
from controlplane.engine.state import SequencedEvent

T0 = Instant(1_800_000_000 * SECOND)
LONG = Instant(T0 + 60 * SECOND)


@dataclass(slots=True)
class SetClock:
    """Tells the time that it was set to."""

    at: Instant = T0

    def now(self) -> Instant:
        return self.at


def started(uid: str = "a", unit: int = 0, at: int = T0) -> UnitStarted:
    return UnitStarted(JobUid(uid), Attempt(1), unit, at=Instant(at))


def withdrawn(uid: str) -> JobWithdrawn:
    return JobWithdrawn(JobUid(uid), at=T0)


def progressed(uid: str, *losses: tuple[int, float], attempt: int = 1) -> JobProgressed:
    progress = Progress(step=losses[-1][0] if losses else 0, at=T0)
    return JobProgressed(JobUid(uid), Attempt(attempt), progress, losses, at=T0)


def decided(term: int, folded_up_to: int, *actions: Action, **reasons: Reason) -> CycleDecided:
    return CycleDecided(
        Term(term),
        SequenceNumber(folded_up_to),
        actions,
        tuple((JobUid(uid), reason) for uid, reason in reasons.items()),
        at=T0,
    )


def why(message: str) -> Reason:
    return Reason(ReasonCode.BEHIND_EARLIER_JOB, message, wanted=4, available=1)


def stop(uid: str, message: str = "") -> StopAttempt:
    return StopAttempt(JobUid(uid), Attempt(1), why(message))


def numbers(events: list[SequencedEvent]) -> list[int]:
    return [item.sequence for item in events]


@dataclass(slots=True)
class Running:
    """A control plane's side of an open store."""

    store: Store
    term: Term
    writer: GroupCommitWriter
    tail: EventTail
    clock: SetClock = field(default_factory=SetClock)

    @property
    def decisions(self) -> StoredDecisions:
        return StoredDecisions(self.writer)

    async def append_units(self, count: int, uid: str = "a") -> None:
        for unit in range(count):
            await self.writer.append(started(uid, unit))


@asynccontextmanager
async def running(url: str, holder: str = "one", now: Instant = T0) -> AsyncIterator[Running]:
    store = Store.open(url)
    try:
        term = store.acquire_term(holder, now)
        clock = SetClock(now)
        tail = EventTail(clock)
        writer = store.start_writer(term, tail)
        try:
            yield Running(store, term, writer, tail, clock)
        finally:
            await writer.close()
    finally:
        store.close()


NewUrl = Callable[[], str]
