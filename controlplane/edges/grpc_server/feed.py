"""The loop's states on their way out: one publisher, many watchers, none of whom can hold it up.

A watcher is told *which* jobs changed since it last looked, not every state in between, so a slow
one costs a set of uids and misses nothing that is still true.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from controlplane.domain.changing import changed
from controlplane.domain.clock import SECOND
from controlplane.domain.ids import JobUid, NodeId, SequenceNumber
from controlplane.domain.reason import Reason
from controlplane.domain.record import JobRecord
from controlplane.engine.state import ClusterState

_GONE_KEPT = 10_000
HOLDERS_TOLD_SECONDS = 30
"""Watchers hear at most this often of others who hold what a waiting job lacks."""
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Gone:
    """A job that was forgotten, and by which version."""

    version: int
    uid: JobUid
    namespace: str
    name: str
    queue: str


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs between two published states.

    Attributes:
        before: The state published before.
        after: The state published now.
        jobs: Jobs that are new or changed.
        gone: Jobs that were forgotten.
        nodes: Nodes that are new, changed or removed.
    """

    before: ClusterState
    after: ClusterState
    jobs: tuple[JobUid, ...]
    gone: tuple[JobRecord, ...]
    nodes: tuple[NodeId, ...]


@dataclass(eq=False)
class Watcher:
    """One reader's unseen changes."""

    changed: dict[JobUid, None] = field(default_factory=dict)
    gone: dict[JobUid, Gone] = field(default_factory=dict)
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    ended: str = ""

    async def wait(self) -> None:
        """Returns when something changed."""
        await self.woken.wait()
        self.woken.clear()

    def take(self) -> tuple[list[JobUid], list[Gone]]:
        """Everything unseen, which is then seen."""
        changed, gone = list(self.changed), list(self.gone.values())
        self.changed.clear()
        self.gone.clear()
        return changed, gone


class StateFeed:
    """The last published state, and who wants to know of the next."""

    def __init__(self, state: ClusterState, monotonic: Callable[[], int]) -> None:
        """Starts with ``state``, which nobody has been told of.

        Args:
            state: The present one.
            monotonic: Nanoseconds, for what watchers are told only every so often.
        """
        self.state = state
        self._monotonic = monotonic
        self.folded = state.last_sequence
        """Every event up to this one is part of the state. The state's own ``last_sequence`` may
        be that of a decision with younger events before it still on their way."""
        self._floor = int(state.last_sequence)
        self._changed_at: dict[JobUid, int] = dict.fromkeys(state.jobs, self._floor)
        self._gone: deque[Gone] = deque(maxlen=_GONE_KEPT)
        self._watchers: set[Watcher] = set()
        self._folded_waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._listeners: list[Callable[[Changes], None]] = []
        self._said: Mapping[JobUid, Reason] = {}
        self._watched: Mapping[JobUid, Reason] = {}
        """What watchers were last told of who holds what is lacking, and who comes first."""
        self._watched_ns = self._monotonic()

    @property
    def version(self) -> int:
        """Version of the published state."""
        return int(self.state.last_sequence)

    def listen(self, listener: Callable[[Changes], None]) -> None:
        """Calls ``listener`` with every publication, before watchers wake."""
        self._listeners.append(listener)

    def publish(
        self,
        state: ClusterState,
        folded: SequenceNumber | None = None,
        said: Mapping[JobUid, Reason] | None = None,
    ) -> None:
        """Makes ``state`` the present one.

        Args:
            state: The state after a cycle.
            folded: Number of the last event that came out of the log; None for none new.
            said: What the cycle's policy said of each job; None if it was not asked.
        """
        changes = changes_between(self.state, state)
        self.state = state
        if said is not None:
            self._said = said
        if folded is not None:
            self.folded = max(self.folded, folded)
        version = self.version
        for uid in changes.jobs:
            self._changed_at[uid] = version
        gone: list[Gone] = []
        for record in changes.gone:
            self._changed_at.pop(record.uid, None)
            if len(self._gone) == _GONE_KEPT:
                self._floor = max(self._floor, self._gone[0].version + 1)
            job = record.job
            gone.append(Gone(version, job.uid, job.namespace, job.name, job.spec.queue))
            self._gone.append(gone[-1])
        for listener in self._listeners:
            listener(changes)
        foretold = _differing(changes.before.forecasts, state.forecasts)
        others = [*self._of_others(), *(uid for uid in foretold if uid in state.jobs)]
        self._changed_at.update(dict.fromkeys(others, version))
        self._tell((*changes.jobs, *others), gone)

    def _of_others(self) -> list[JobUid]:
        """Waiting jobs of which a watcher's picture is out of date although they did not change.

        Who holds what they lack changes with every start and finish, for thousands at once: so
        whoever watches is told at most every ``HOLDERS_TOLD_SECONDS``.
        """
        now_ns = self._monotonic()
        if now_ns - self._watched_ns < HOLDERS_TOLD_SECONDS * SECOND:
            return []
        before, self._watched, self._watched_ns = self._watched, self._said, now_ns
        jobs = self.state.jobs
        return [
            uid
            for uid, why in self._said.items()
            if uid in jobs and (known := before.get(uid)) is not why and known != why
        ]

    def replace(self, state: ClusterState) -> None:
        """Starts over from a state that was restored. What changed before it is for the log to
        tell.
        """
        self.publish(state, state.last_sequence, {})
        self._floor = self.version
        self._gone.clear()

    def as_of_now(self, record: JobRecord) -> JobRecord:
        """The record with its reason as the last cycle saw it.

        Who holds what a waiting job lacks is not logged whenever it changes (``Reason.repeats``),
        so the record has it as it was when the job was told.
        """
        said = self._said.get(record.uid)
        if said is None or record.attempt is not None or not said.repeats(record.reason):
            return record
        return changed(record, reason=said)

    def _tell(self, jobs: Sequence[JobUid], gone: Sequence[Gone]) -> None:
        if jobs or gone:
            for watcher in self._watchers:
                watcher.changed.update(dict.fromkeys(jobs))
                for job in gone:
                    watcher.changed.pop(job.uid, None)
                    watcher.gone[job.uid] = job
                watcher.woken.set()
        if self._folded_waiters:
            waiting = self._folded_waiters
            self._folded_waiters = []
            for number, future in waiting:
                if future.done():
                    continue
                if number <= self.folded:
                    future.set_result(None)
                else:
                    self._folded_waiters.append((number, future))

    async def until_folded(self, number: SequenceNumber, timeout_seconds: float) -> bool:
        """Waits until the event is part of the state; False if that takes too long."""
        if number <= self.folded:
            return True
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._folded_waiters.append((number, future))
        try:
            async with asyncio.timeout(timeout_seconds):
                await future
        except TimeoutError:
            return False
        return True

    def watch(self) -> Watcher:
        """A new reader, who has seen nothing yet."""
        watcher = Watcher()
        self._watchers.add(watcher)
        return watcher

    def unwatch(self, watcher: Watcher) -> None:
        """The reader went away."""
        self._watchers.discard(watcher)

    def end_watchers(self, why: str) -> None:
        """Tells every reader to go, because the process stops."""
        for watcher in self._watchers:
            watcher.ended = why
            watcher.woken.set()

    def since(self, version: int) -> tuple[list[JobUid], list[Gone]] | None:
        """What changed since ``version``; None if that is too long ago to be known.

        A state may be published twice under one version, so what changed *at* it is told again.
        """
        if version < self._floor or version > self.version:
            return None
        changed = [uid for uid, at in self._changed_at.items() if at >= version]
        return changed, [gone for gone in self._gone if gone.version >= version]


def changes_between(before: ClusterState, after: ClusterState) -> Changes:
    """What differs; unchanged records are the same objects, so this compares identities only."""
    jobs = _differing(before.jobs, after.jobs)
    gone = tuple(record for uid, record in before.jobs.items() if uid not in after.jobs)
    nodes = _differing(before.nodes, after.nodes)
    removed = tuple(name for name in before.nodes if name not in after.nodes)
    return Changes(before, after, jobs, gone, (*nodes, *removed))


def _differing(before: dict[_Key, _Value], after: dict[_Key, _Value]) -> tuple[_Key, ...]:
    if before is after:
        return ()
    return tuple(key for key, value in after.items() if before.get(key) is not value)
