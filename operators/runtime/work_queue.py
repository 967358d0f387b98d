"""Keys that want to be looked at: each at most once at a time, and not too often after failures.

What changed is not kept, only that something did: whoever looks at a key sees how things are now.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import structlog

K = TypeVar("K", bound=Hashable)

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 60.0

log = structlog.get_logger(__name__)


class WorkQueue(Generic[K]):
    """A queue of keys for some workers."""

    def __init__(self) -> None:
        self._waiting: deque[K] = deque()
        self._queued: set[K] = set()
        self._busy: set[K] = set()
        self._again: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._woken = asyncio.Event()

    def __len__(self) -> int:
        """Keys that wait to be looked at now."""
        return len(self._waiting) + len(self._again)

    @property
    def failing(self) -> int:
        """Keys that are tried again after a failure."""
        return len(self._failures)

    def add(self, key: K) -> None:
        """The key wants to be looked at; harmless if it waits already."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key in self._busy:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._waiting.append(key)
            self._woken.set()

    def add_after(self, key: K, seconds: float) -> None:
        """The same in a while; an earlier time that was asked for before stays."""
        loop = asyncio.get_running_loop()
        known = self._timers.get(key)
        if known is not None:
            if known.when() <= loop.time() + seconds:
                return
            known.cancel()
        self._timers[key] = loop.call_later(seconds, self._due, key)

    def _due(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def retry(self, key: K) -> None:
        """Looking at it failed: again in a while, which doubles each time."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        pause = FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 30)
        self.add_after(key, min(pause, LONGEST_PAUSE_SECONDS))

    def succeeded(self, key: K) -> None:
        """The next failure counts as the first."""
        self._failures.pop(key, None)

    async def run(self, look: Callable[[K], Awaitable[None]], workers: int) -> None:
        """Has ``workers`` look at keys, for ever; what ``look`` raises ends it."""
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._work(look))

    async def _work(self, look: Callable[[K], Awaitable[None]]) -> None:
        while True:
            while not self._waiting:
                self._woken.clear()
                await self._woken.wait()
            key = self._waiting.popleft()
            self._queued.discard(key)
            self._busy.add(key)
            try:
                await look(key)
            finally:
                self._busy.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)

    def close(self) -> None:
        """Forgets what was to be looked at later."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
