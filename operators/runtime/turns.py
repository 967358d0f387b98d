"""What may wait, a few at a time over all of a cluster: who has waited longest goes first."""

import asyncio
import heapq
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from operators.runtime.api_server import pause

K = TypeVar("K", bound=Hashable)


class Turns(Generic[K]):
    """Gives a turn to one key after the other, at most so many a second."""

    def __init__(self, a_second: float, monotonic: Callable[[], float]) -> None:
        self._pause_seconds = 1 / a_second
        self._monotonic = monotonic
        self._waiting: list[tuple[float, int, K]] = []
        self._known: set[K] = set()
        self._asked = 0
        self._woken = asyncio.Event()

    def __len__(self) -> int:
        """Keys that wait."""
        return len(self._known)

    def want(self, key: K, not_before: float) -> None:
        """The key wants a turn; harmless if it waits already.

        Args:
            key: Whose turn.
            not_before: By the monotonic clock, in seconds; the earliest goes first.
        """
        if key in self._known:
            return
        self._known.add(key)
        self._asked += 1
        heapq.heappush(self._waiting, (not_before, self._asked, key))
        self._woken.set()

    def leave(self, key: K) -> None:
        """The key wants no turn any more."""
        self._known.discard(key)

    async def run(self, turn: Callable[[K], None]) -> None:
        """Calls ``turn`` for one key after the other, for ever."""
        while True:
            while not self._waiting:
                self._woken.clear()
                await self._woken.wait()
            early = self._waiting[0][0] - self._monotonic()
            if early > 0:
                await pause(min(early, 1.0))
                continue
            key = heapq.heappop(self._waiting)[2]
            if key in self._known:
                self._known.discard(key)
                turn(key)
                await pause(self._pause_seconds)
