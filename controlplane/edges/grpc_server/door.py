"""The door: whatever changes the state passes here and is durable before it is acknowledged."""

import asyncio

from controlplane.domain.clock import Clock, Instant
from controlplane.domain.event import Event
from controlplane.domain.ids import SequenceNumber
from controlplane.edges.grpc_server.errors import unavailable
from controlplane.edges.grpc_server.feed import StateFeed
from controlplane.edges.grpc_server.ports import EventLog, Told

_FOLD_WAIT_SECONDS = 2.0


class Door:
    """Appends events and stamps them. Opened when a reign begins, closed when it ends."""

    def __init__(self, clock: Clock, feed: StateFeed) -> None:
        self._log: EventLog | None = None
        self._clock = clock
        self._feed = feed
        self._closed = "the control plane starts"

    @property
    def closed(self) -> str:
        """Why nothing is let in now; empty when the door is open."""
        return self._closed

    def open(self, log: EventLog) -> None:
        """Lets events in."""
        self._log = log
        self._closed = ""

    def close(self, why: str) -> None:
        """Lets nothing in; callers are told why."""
        self._log = None
        self._closed = why

    def now(self) -> Instant:
        """The instant to stamp an event with."""
        return self._clock.now()

    def begin(self, event: Event, told: Told | None = None) -> "asyncio.Future[SequenceNumber]":
        """Sets an event on its way; resolves to its number when it is durable.

        Args:
            event: What happened.
            told: Told of the event's fate, also when nobody waits for it any more; not if this
                raises.

        Raises:
            RefusedError: UNAVAILABLE: the door is closed.
        """
        if self._log is None:
            raise unavailable(f"{self._closed}; try again")
        return self._log.append(event, told)

    async def append(self, *events: Event) -> SequenceNumber:
        """Returns the last event's number when all are durable, in this order.

        A caller that is cancelled meanwhile leaves the events on their way: they may become
        durable, which the caller finds out by asking again.

        Raises:
            RefusedError: UNAVAILABLE: the door is closed.
            StoreError: They are not all stored.
        """
        on_their_way = [self.begin(event) for event in events]
        if len(on_their_way) == 1:
            return await on_their_way[0]
        results = await asyncio.gather(*on_their_way, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return SequenceNumber(max(r for r in results if not isinstance(r, BaseException)))

    async def append_and_fold(self, *events: Event) -> SequenceNumber:
        """The same, and waits (not for ever) until the loop has seen it, so that the caller's
        next question is answered by a state that knows it.
        """
        number = await self.append(*events)
        await self._feed.until_folded(number, _FOLD_WAIT_SECONDS)
        return number
