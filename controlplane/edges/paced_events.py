"""An event source that leaves the process time for its callers between two cycles."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from controlplane.domain.clock import Clock, Instant, seconds
from controlplane.domain.event import JobSubmitted
from controlplane.engine.ports import EventSource
from controlplane.engine.state import SequencedEvent

_REST_FACTOR = 19.0
_REST_MOST_SECONDS = 0.5
_STREAM = 8
"""So many submissions in one rest, and nothing else, are a stream of them."""


class PacedEvents:
    """Lets a cycle rest a few times as long as it took.

    Events wake the loop, and a burst of submissions would make it decide once for each of them.
    So the first event of a burst is answered at once, the others together, and deciding never
    takes more than a fixed share of the time. While jobs stream in and nothing else happens, it
    rests for the whole of ``_REST_MOST_SECONDS``: each decision is a commit that the next
    submissions would wait for.
    """

    def __init__(
        self,
        events: EventSource,
        clock: Clock,
        monotonic: Callable[[], int],
        cycle_began: Callable[[], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._events = events
        self._clock = clock
        self._monotonic = monotonic
        self._cycle_began = cycle_began
        self._sleep = sleep
        self._began_ns: int | None = None
        self._stream = False

    async def take(self, deadline: Instant) -> Sequence[SequencedEvent]:
        """The source's events, after a rest; the first ones at once, whatever there is."""
        if self._began_ns is None:
            deadline = self._clock.now()
        else:
            took = (self._monotonic() - self._began_ns) / seconds(1)
            rest = _REST_MOST_SECONDS if self._stream else _REST_FACTOR * took
            await self._sleep(min(_REST_MOST_SECONDS, rest))
        batch = await self._events.take(deadline)
        self._stream = len(batch) >= _STREAM and all(
            isinstance(numbered.event, JobSubmitted) for numbered in batch
        )
        self._began_ns = self._monotonic()
        self._cycle_began()
        return batch
