"""The store's memory for the services: its blocking questions are asked from threads."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence

from controlplane.domain.action import ChangePlan, StartAttempt
from controlplane.domain.clock import Clock
from controlplane.domain.ids import Attempt, JobUid, NodeId, SequenceNumber
from controlplane.domain.placement import LaunchUnit
from controlplane.edges.store.errors import StoreUnavailableError
from controlplane.edges.store.rows import StoredDecision, StoredLoss
from controlplane.edges.store.store import Store
from controlplane.engine.state import SequencedEvent

_DEPTHS = (64, 1_000, 20_000)
"""How many of a job's newest decisions to read: mostly few are enough."""


class History:
    """What the store remembers. Every call may raise ``StoreError``."""

    def __init__(self, clock: Clock) -> None:
        self._opened: Store | None = None
        self._clock = clock

    def open(self, store: Store) -> None:
        """From now on there is something to remember."""
        self._opened = store

    @property
    def _store(self) -> Store:
        if self._opened is None:
            raise StoreUnavailableError("the store is not open yet")
        return self._opened

    async def events(
        self, uid: JobUid | None, after: SequenceNumber, limit: int
    ) -> Sequence[SequencedEvent]:
        """Events after a number, oldest first: of one job (without decisions), or all."""
        return await asyncio.to_thread(self._store.events, uid, after, limit)

    async def names(self, uids: Collection[JobUid]) -> Mapping[JobUid, str]:
        """What jobs were called, also those that are forgotten; as far as the log goes back."""
        return await asyncio.to_thread(self._store.names, uids) if uids else {}

    async def decisions(self, uid: JobUid, limit: int) -> Sequence[StoredDecision]:
        """The newest decisions about one job, oldest first."""
        return await asyncio.to_thread(self._store.decisions, uid, limit)

    async def decisions_after(
        self, uid: JobUid, after: SequenceNumber, limit: int
    ) -> Sequence[StoredDecision]:
        """The decisions about one job after a number, oldest first: ``limit`` of them, and more
        only if there are more.
        """
        return await asyncio.to_thread(self._store.decisions_after, uid, after, limit)

    async def node_of(self, uid: JobUid, attempt: Attempt, unit: int) -> NodeId | None:
        """Where a unit of an attempt was started; None if that is not known any more."""

        def there(decision: StoredDecision) -> NodeId | None:
            nodes = (known.node for known in _ordered(decision, attempt) if known.index == unit)
            return next(nodes, None)

        for depth in _DEPTHS:
            found = await self.decisions(uid, depth)
            node = next((name for name in map(there, found) if name is not None), None)
            if node is not None or len(found) < depth:
                return node
        return None

    async def losses(self, uid: JobUid, after_step: int, limit: int) -> Sequence[StoredLoss]:
        """Training losses by step."""
        return await asyncio.to_thread(self._store.losses, uid, after_step, limit)

    async def backup(self) -> AsyncIterator[bytes]:
        """A consistent copy of the store, in pieces."""
        pieces = self._store.backup(self._clock.now())
        try:
            while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                yield piece
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                # Ends the read transaction also for a caller who went away in the middle.
                await asyncio.shield(asyncio.to_thread(close))


def _ordered(decision: StoredDecision, attempt: Attempt) -> Sequence[LaunchUnit]:
    """The units of an attempt that a decision names."""
    match decision.action:
        case StartAttempt(attempt=number, placement=placement) if number == attempt:
            return placement.units
        case ChangePlan(attempt=number, units=units) if number == attempt:
            return units
    return ()
