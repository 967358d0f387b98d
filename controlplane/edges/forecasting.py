"""Predicts beside the loop when jobs start and end.

How that is found is not this process's business: the newest state goes to a process of its own,
which plays it forward (``PlayingProcess``), and what it answers goes through the door like any
event. It never holds up the loop. Nothing that goes wrong here is more than a line in the log and a
count: what was predicted before stays, and grows old for all to see.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

import structlog

from controlplane.domain.clock import SECOND, Instant
from controlplane.domain.event import (
    JobsForecast,
    JobSubmitted,
    JobUpdated,
    PolicyChanged,
    QueueChanged,
    UnitExited,
    UnitStarted,
)
from controlplane.domain.forecast import Forecasts
from controlplane.edges.grpc_server.door import Door
from controlplane.edges.grpc_server.errors import RefusedError
from controlplane.edges.grpc_server.feed import StateFeed
from controlplane.edges.store.errors import StoreError
from controlplane.engine.forecasts import overdue
from controlplane.engine.state import ClusterState, SequencedEvent

GATHER_SECONDS = 1.0
"""Jobs often come, start and end together: so long after the first the others are waited for."""
_RESTS = 4
"""So many times as long as it took nothing is predicted: at most a fifth of one core."""

_NEWS = (JobSubmitted, JobUpdated, UnitStarted, UnitExited, QueueChanged, PolicyChanged)

log = structlog.get_logger(__name__)


class PlaysStates(Protocol):
    """Plays a state forward, elsewhere."""

    async def play(self, state: ClusterState, at: Instant) -> Forecasts:
        """What is predicted of its jobs.

        Raises:
            ForecastFailedError: Nothing is, with why.
        """
        ...

    async def close(self) -> None:
        """Ends what was begun for it."""
        ...


class ForecastFailedError(Exception):
    """Nothing was predicted."""


class ForecastMetrics(Protocol):
    """Told what came of each attempt."""

    def forecast_made(self, forecasts: Forecasts) -> None:
        """Something was predicted."""

    def forecast_failed(self) -> None:
        """Nothing was predicted."""


class Forecaster:
    """Predicts as long as it runs."""

    def __init__(
        self,
        feed: StateFeed,
        door: Door,
        player: PlaysStates | None,
        metrics: ForecastMetrics,
        *,
        every_seconds: float,
        monotonic: Callable[[], int],
        rest: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Knows nothing of its own.

        Args:
            feed: Has the newest state.
            door: Takes what is predicted in.
            player: Plays states; None for no predictions.
            metrics: Told of each attempt.
            every_seconds: Nothing is predicted sooner than this after the last time, and while
                jobs are there, not much later.
            monotonic: Nanoseconds, to know what it took.
            rest: Waits for so many seconds.
        """
        self._feed = feed
        self._door = door
        self._player = player
        self._metrics = metrics
        self._every_seconds = every_seconds
        self._monotonic = monotonic
        self._rest = rest
        self._news = asyncio.Event()

    def look(self, events: Iterable[SequencedEvent]) -> None:
        """Events were folded; predicts anew if a job came, started or ended."""
        if any(isinstance(each.event, _NEWS) for each in events):
            self._news.set()

    @property
    def has_news(self) -> bool:
        """Whether something happened since the last prediction that it should know of."""
        return self._news.is_set()

    async def run(self) -> None:
        """Predicts when there is news, now and then without, and rests in between."""
        if self._player is None:
            await asyncio.Event().wait()
            return
        self._news.set()
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), self._every_seconds)
                await self._rest(GATHER_SECONDS)
                self._news.clear()
                began_ns = self._monotonic()
                await self.predict_once(self._player)
                took_seconds = (self._monotonic() - began_ns) / SECOND
                await self._rest(max(self._every_seconds, _RESTS * took_seconds) - GATHER_SECONDS)
        finally:
            await self._player.close()

    async def _tell_overdue(self) -> None:
        """Tells of jobs that train on past what was predicted."""
        state, now = self._feed.state, self._door.now()
        late = tuple(overdue(state.forecasts, state.jobs, now))
        for each in late:
            log.warning("a job is overdue", job=each.uid, nodes=each.nodes, why=each.reason.message)
        if late:
            with contextlib.suppress(RefusedError, StoreError):
                await self._door.append_and_fold(*late)

    async def predict_once(self, player: PlaysStates) -> None:
        """Predicts of the newest state, if there are jobs in it that have not ended."""
        await self._tell_overdue()
        state = self._feed.state
        if all(record.finished_at is not None for record in state.jobs.values()):
            return
        try:
            made = await player.play(state, self._door.now())
            if made.jobs:
                await self._door.append_and_fold(JobsForecast(made, self._door.now()))
        except Exception as error:
            why = str(error) if isinstance(error, ForecastFailedError) else repr(error)
            log.warning("nothing could be predicted", why=why)
            self._metrics.forecast_failed()
        else:
            log.debug("predicted", jobs=len(made.jobs), plays=made.plays, took=made.took_seconds)
            self._metrics.forecast_made(made)
