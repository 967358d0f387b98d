"""An event source that leaves the process time for its callers between two cycles."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from controlplane.domain.clock import Clock, Instant, after, seconds
from controlplane.domain.event import JobSubmitted, UnitExited
from controlplane.engine.ports import EventSource
from controlplane.engine.state import SequencedEvent

_REST_FACTOR = 19.0
_REST_FACTOR_OF_ENDS = 1.0
_REST_MOST_SECONDS = 0.5
_STREAM = 8
"""So many submissions in one rest, and nothing else, are a stream of them."""


class PacedEvents:
    """Lets a cycle rest a few times as long as it took.

    Events wake the loop, and a burst of submissions would make it decide once for each of them.
    So the first event of a burst is answered at once, the others together, and deciding never
    takes more than a fixed share of the time. While jobs stream in and nothing else happens, it
    rests for the whole of ``_REST_MOST_SECONDS``: each decision is a commit that the next
    submissions would wait for. Where something ends, accelerators stand still until the next cycle:
    that cuts a rest short, to as long as the cycle took.
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
        batch: Sequence[SequencedEvent] = ()
        if self._began_ns is None:
            deadline = self._clock.now()
        else:
            took = (self._monotonic() - self._began_ns) / seconds(1)
            batch = await self._rested(took)
        batch = batch or await self._events.take(deadline)
        self._stream = len(batch) >= _STREAM and all(
            isinstance(numbered.event, JobSubmitted) for numbered in batch
        )
        self._began_ns = self._monotonic()
        self._cycle_began()
        return batch

    async def _rested(self, took: float) -> Sequence[SequencedEvent]:
        """What happens in a rest after a cycle that took so many seconds, to its end or until
        something ended.
        """
        shortest = min(_REST_MOST_SECONDS, _REST_FACTOR_OF_ENDS * took)
        longest = min(_REST_MOST_SECONDS, _REST_FACTOR * took)
        if self._stream:
            longest = _REST_MOST_SECONDS
        over = after(self._clock.now(), seconds(longest))
        await self._sleep(shortest)
        gathered: list[SequencedEvent] = []
        ended = False
        while not ended and self._clock.now() < over:
            batch = await self._events.take(over)
            ended = any(isinstance(numbered.event, UnitExited) for numbered in batch)
            gathered.extend(batch)
        return gathered
