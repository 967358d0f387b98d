"""The end of the event log that grows: where the live loop gets its events."""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress

from controlplane.domain.clock import FOREVER, SECOND, Clock, Instant
from controlplane.engine.state import SequencedEvent


class EventTail:
    """Durable events in sequence order, from the writer to the loop; an ``EventSource``.

    Lives on one asyncio loop. ``take`` hands out everything there is, and the writer puts events
    in before it acknowledges a later decision. So when a decision numbered n has been logged, the
    next ``take`` holds every event below n that was not taken before; the state's last sequence
    number says with that, without a gap, how far it has folded.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: list[SequencedEvent] = []
        self._arrived = asyncio.Event()

    def put(self, events: Iterable[SequencedEvent]) -> None:
        """Adds durable events; their numbers are higher than any before."""
        self._waiting.extend(events)
        if self._waiting:
            self._arrived.set()

    def __len__(self) -> int:
        return len(self._waiting)

    async def take(self, deadline: Instant) -> Sequence[SequencedEvent]:
        """Everything new, at once if there is something; else waits, at most to ``deadline``."""
        if not self._waiting:
            left = None if deadline >= FOREVER else (deadline - self._clock.now()) / SECOND
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._arrived.wait()
        taken, self._waiting = self._waiting, []
        self._arrived.clear()
        return taken
