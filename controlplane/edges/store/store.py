"""The store as the rest of the control plane sees it."""

from collections.abc import Collection, Iterator
from typing import TypeVar

from sqlalchemy import Engine

from controlplane.domain.clock import Instant
from controlplane.domain.ids import Attempt, JobUid, SequenceNumber, Term
from controlplane.edges.store import backup, lease, queries, restoring, schema
from controlplane.edges.store.database import connect, where
from controlplane.edges.store.errors import told_as_store_errors
from controlplane.edges.store.rows import StoredDecision, StoredLoss
from controlplane.edges.store.tail import EventTail
from controlplane.edges.store.writer import GroupCommitWriter
from controlplane.engine.state import SequencedEvent

S = TypeVar("S")

_NO_TERM = Term(0)
_START = SequenceNumber(0)


class Store:
    """An open database. Its methods block; call them from a thread where that matters.

    A control plane takes a term before it loads the state: what a predecessor may still have
    appended before the term was taken is then in the state. Nor does its writer, which renews the
    lease meanwhile, append anything before the state is loaded.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._where = where(engine)

    @classmethod
    def open(cls, url: str) -> "Store":
        """Opens the database at ``url``; creates the tables, or brings older ones up to date.

        Args:
            url: ``sqlite:///path/to/file`` or ``postgresql://user:password@host/database``.

        Raises:
            StoreTooNewError: A newer Headrace wrote it.
            StoreUnavailableError: It cannot be reached now.
            StoreError: It cannot be used.
        """
        engine = connect(url)
        try:
            with told_as_store_errors(where(engine)):
                schema.migrate(engine)
        except BaseException:
            engine.dispose()
            raise
        return cls(engine)

    @property
    def name(self) -> str:
        """How to call this store in a sentence; without its password."""
        return self._where

    def close(self) -> None:
        """Closes all connections. Close the writer first."""
        self._engine.dispose()

    def acquire_term(self, holder: str, now: Instant, at_least: Term = _NO_TERM) -> Term:
        """Takes the lease; the answer is a term higher than any before.

        Args:
            holder: Who asks, for people. The same holder gets in at once, for it is one that
                was started again; so give each control plane a name of its own.
            now: Now.
            at_least: The answer is not below this; for agents that have seen higher terms than
                the store remembers.

        Raises:
            LeaseHeldError: Another holder's lease is fresh.
            StoreError: The store's term is none that a control plane can have given.
        """
        with told_as_store_errors(self._where):
            return lease.acquire_term(self._engine, holder, now, at_least)

    def last_instant(self) -> Instant:
        """The latest time that was stored; the clock shall not start before it."""
        with told_as_store_errors(self._where):
            return restoring.last_instant(self._engine)

    def expects_strangers(self) -> bool:
        """Whether it was restored and nothing could be ordered since: then nodes and attempts may
        be about that it has never heard of.
        """
        with told_as_store_errors(self._where):
            return restoring.expects_strangers(self._engine)

    def attempt_floor(self) -> tuple[SequenceNumber, Attempt]:
        """The last number that can be from before the last restore, and the attempt up to which
        the jobs of that time may have been started in the future that was lost. Zeros in a store
        that was never restored.
        """
        with told_as_store_errors(self._where):
            return restoring.attempt_floor(self._engine)

    def load(self, kind: type[S]) -> tuple[S | None, list[SequencedEvent]]:
        """The last checkpoint, and what to fold into it, in the order in which it was folded.

        Args:
            kind: Type of the state.
        """
        with told_as_store_errors(self._where):
            state, events = restoring.load(self._engine, kind)
        return state, events

    def start_writer(self, term: Term, tail: EventTail) -> GroupCommitWriter:
        """The one door for writing in this term; on the running asyncio loop.

        Args:
            term: From ``acquire_term``.
            tail: Gets every event that becomes durable, except decisions, which the loop folds
                itself.
        """
        return GroupCommitWriter(self._engine, term, tail)

    def events(
        self,
        uid: JobUid | None = None,
        after: SequenceNumber = _START,
        limit: int = 100,
    ) -> list[SequencedEvent]:
        """A page of the log in sequence order: of one job, or of all with None."""
        with told_as_store_errors(self._where):
            return queries.events(self._engine, uid, after, limit)

    def names(self, uids: Collection[JobUid]) -> dict[JobUid, str]:
        """What jobs were called, as far as the log goes back to their submission."""
        with told_as_store_errors(self._where):
            return queries.names(self._engine, uids)

    def decisions(self, uid: JobUid, limit: int = 20) -> list[StoredDecision]:
        """The last decisions about a job, oldest first."""
        with told_as_store_errors(self._where):
            return queries.decisions(self._engine, uid, limit)

    def decisions_after(
        self, uid: JobUid, after: SequenceNumber, limit: int
    ) -> list[StoredDecision]:
        """The first decisions about a job after a number, oldest first. If there are more than
        ``limit``, the one beyond comes too, and all that carry its number: none is told in part.
        """
        with told_as_store_errors(self._where):
            return queries.decisions_after(self._engine, uid, after, limit)

    def losses(self, uid: JobUid, after_step: int = -1, limit: int = 10_000) -> list[StoredLoss]:
        """A page of a job's losses, by step."""
        with told_as_store_errors(self._where):
            return queries.losses(self._engine, uid, after_step, limit)

    def backup(self, at: Instant) -> Iterator[bytes]:
        """A copy of one moment, while everything goes on; ``backup.restore`` reads it.

        It holds a read transaction until it is exhausted or closed.
        """
        return backup.backup(self._engine, at)
