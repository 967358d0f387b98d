"""Searches beside the loop for something better than what rounds decide at once.

Whether a search can gain enough, the search itself and what becomes of its answer are the policy's
(``SearchingPolicy``), and pure; here is when and where: one at a time, in a thread, from the newest
state. What is found goes through the door like any event, as a proposal, and the loop's next round
checks it against the state that it meets. Nothing that goes wrong here is more than a line in the
log: rounds go on without.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping

import structlog

from controlplane.domain.clock import SECOND
from controlplane.domain.event import ProposalFound
from controlplane.domain.policy import Policy, RememberingPolicy, SearchingPolicy
from controlplane.edges.grpc_server.door import Door
from controlplane.edges.grpc_server.feed import StateFeed
from controlplane.engine.loop import CycleReport
from controlplane.engine.refusals import asked_about
from controlplane.engine.searching import searches_after

_REST_AT_LEAST_SECONDS = 1.0
_RESTS = 9
"""So many times as long as a search took nothing is searched: at most a tenth of one core."""

log = structlog.get_logger(__name__)


class Searcher:
    """Searches as long as it runs."""

    def __init__(
        self,
        feed: StateFeed,
        door: Door,
        policies: Mapping[str, Policy],
        monotonic: Callable[[], int],
        rest: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Knows nothing of its own.

        Args:
            feed: Has the newest state.
            door: Takes proposals in.
            policies: By name; the settings choose.
            monotonic: Nanoseconds, to know what a search took.
            rest: Waits for so many seconds.
        """
        self._feed = feed
        self._door = door
        self._policies = policies
        self._apart: dict[str, Policy] = {}
        self._monotonic = monotonic
        self._rest = rest
        self._news = asyncio.Event()

    def look(self, report: CycleReport) -> None:
        """A round was decided; searches if it may be too far from the best."""
        if searches_after(report, self._policies) is not None:
            self._news.set()

    async def run(self) -> None:
        """Searches whenever a round may be too far from the best, and rests in between."""
        stopped = threading.Event()
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                began_ns = self._monotonic()
                try:
                    await self.search_once(stopped.is_set)
                except Exception as error:
                    why = f"{type(error).__name__}: {error}"
                    log.warning("nothing could be searched", why=why)
                took_seconds = (self._monotonic() - began_ns) / SECOND
                await self._rest(max(_REST_AT_LEAST_SECONDS, _RESTS * took_seconds))
        finally:
            # The thread ends soon then, and with it the process need not wait for it.
            stopped.set()

    async def search_once(self, stopped: Callable[[], bool]) -> None:
        """Searches the newest state, and proposes what it finds.

        Args:
            stopped: Whether nobody waits for it any more.
        """
        state = self._feed.state
        policy = self._own(state.settings.policy)
        if policy is None:
            return
        snapshot = asked_about(state.snapshot(self._door.now()))
        made_of = state.last_sequence
        began_ns = self._monotonic()
        found = await asyncio.to_thread(policy.search, snapshot, made_of, stopped)
        took_seconds = round((self._monotonic() - began_ns) / SECOND, 3)
        if found is None:
            log.debug("a longer search found nothing better", made_of=made_of, took=took_seconds)
            return
        if found.is_outdated(self._door.now()):
            log.warning("a longer search took too long", made_of=made_of, took=took_seconds)
            return
        known = self._feed.state.proposal
        if known is not None and found.repeats(known):
            log.debug("a longer search found the same again", made_of=made_of, took=took_seconds)
            return
        log.info(
            "a longer search proposes",
            made_of=made_of,
            jobs=len(found.targets),
            gain=round(found.gain, 5),
            work_units=found.work_units,
            took=took_seconds,
        )
        await self._door.append_and_fold(ProposalFound(found, self._door.now()))

    def _own(self, name: str) -> SearchingPolicy | None:
        """The policy of that name, as one that shares nothing with the loop's; None if it searches
        nothing.
        """
        policy = self._apart.get(name) or self._policies.get(name)
        if name not in self._apart and isinstance(policy, RememberingPolicy):
            policy = policy.apart()
        if policy is not None:
            self._apart[name] = policy
        return policy if isinstance(policy, SearchingPolicy) else None
