"""The one door into a store that runs: commits events in groups and tells when they are durable.

Appends come from an asyncio loop and are committed by a thread of the writer's own, so that a
slow disk does not stop the loop. While one group is being committed the next one gathers on the
loop's side, so that the two threads meet once a group; it is as large as the load makes it, and
nothing waits for a group to fill. Every transaction checks
that the lease still has this writer's term. So there is one writer, and it may number events
itself.

A failed transaction fails its appends, and none of them is stored: where it cannot be known
whether a commit that failed was carried out, the next transaction first removes what was not
acknowledged.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import Any, cast

from sqlalchemy import Connection, Engine, delete, insert
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from controlplane.domain.clock import Instant
from controlplane.domain.codec import dump
from controlplane.domain.event import CycleDecided, Event, JobProgressed
from controlplane.domain.ids import JobUid, SequenceNumber, Term
from controlplane.edges.store import lease, pruning, sqlite_inserts
from controlplane.edges.store.database import for_writing, where
from controlplane.edges.store.errors import (
    StoreClosedError,
    StoreError,
    StoreUnavailableError,
    as_store_error,
)
from controlplane.edges.store.pruning import Retention
from controlplane.edges.store.restoring import (
    expect_strangers_no_more,
    last_sequence,
    save_checkpoint,
)
from controlplane.edges.store.rows import (
    Row,
    decision_rows,
    event_row,
    loss_rows,
    without_losses,
)
from controlplane.edges.store.tables import DECISIONS, EVENTS, upsert_losses
from controlplane.edges.store.tail import EventTail
from controlplane.engine.ports import TermLostError
from controlplane.engine.state import SequencedEvent

MOST_IN_A_GROUP = 500
"""Appends in one transaction at most, so that a burst does not hold back its first ones long."""

# Made once: a statement that is new each time costs 15 µs more, on every commit.
_INSERT_EVENTS = insert(EVENTS)
_INSERT_DECISIONS = insert(DECISIONS)


@dataclass(frozen=True, slots=True)
class _Append:
    """An event on its way. Its row is made where it is appended, so what cannot be written as
    JSON fails its own caller and no one else.
    """

    event: Event
    row: Row
    losses: tuple[Row, ...]
    done: "asyncio.Future[SequenceNumber]"
    told: Callable[[SequenceNumber | None], None] | None


@dataclass(frozen=True, slots=True)
class _Errand:
    """Something else to do in a fenced transaction of its own."""

    run: Callable[[Connection], Any]
    done: "asyncio.Future[Any]"


def _parts(asked: list[_Append | _Errand]) -> Iterator[list[_Append] | _Errand]:
    """The same in its order, with neighbouring appends in groups."""
    group: list[_Append] = []
    for each in asked:
        if isinstance(each, _Append):
            group.append(each)
        if group and (isinstance(each, _Errand) or len(group) == MOST_IN_A_GROUP):
            yield group
            group = []
        if isinstance(each, _Errand):
            yield each
    if group:
        yield group


def _fail(what: _Append | _Errand, error: Exception) -> None:
    if isinstance(what, _Append) and what.told is not None:
        what.told(None)
    if not what.done.done():
        what.done.set_exception(error)


def _number(group: list[_Append], first: int) -> list[Row]:
    """Numbers the group's rows from ``first``; the rows of decisions among them."""
    decisions: list[Row] = []
    for sequence, append in enumerate(group, first):
        append.row["seq"] = sequence
        if isinstance(append.event, CycleDecided):
            decisions.extend(decision_rows(sequence, append.event))
    return decisions


class GroupCommitWriter:
    """Appends events under one term, for one asyncio loop.

    Attributes:
        term: The term that it writes in.
    """

    def __init__(self, engine: Engine, term: Term, tail: EventTail) -> None:
        """Starts the writer on the running asyncio loop. Use ``Store.start_writer``."""
        self.term = term
        self._engine = for_writing(engine)
        self._tail = tail
        self._loop = asyncio.get_running_loop()
        self._gathered: list[_Append | _Errand] = []
        self._handed_over = 0
        self._will_hand_over = False
        self._asked: SimpleQueue[list[_Append | _Errand] | None] = SimpleQueue()
        self._is_sqlite = engine.dialect.name == "sqlite"
        self._upsert_losses = upsert_losses(engine.dialect)
        self._connection: Connection | None = None
        self._last: int | None = None
        self._in_doubt = False
        self._lost: TermLostError | None = None
        self._closed = False
        self._problem = ""
        # A daemon, so that a process which fails before ``close`` can end. What is cut short
        # then was not acknowledged.
        self._thread = Thread(target=self._work, name="store-writer", daemon=True)
        self._thread.start()

    @property
    def problem(self) -> str:
        """Why the last transaction failed, in a sentence; empty when it did not."""
        return self._problem

    def append(
        self, event: Event, told: Callable[[SequenceNumber | None], None] | None = None
    ) -> "asyncio.Future[SequenceNumber]":
        """Resolves to the event's number when it is durable.

        It may be abandoned (cancelled): the event is stored all the same, or not, like one whose
        acknowledgement was lost. ``told`` gets the number then too, or None for one that is not
        stored, before whoever waits goes on.

        Raises (from the future):
            StoreUnavailableError: It is not stored; try again, also after another such answer.
            TermLostError: Another control plane decides now.
            StoreClosedError: The writer was closed.
        """
        losses: tuple[Row, ...] = ()
        if isinstance(event, JobProgressed) and event.losses:
            losses = tuple(loss_rows(event))
            event = without_losses(event)
        done: asyncio.Future[SequenceNumber] = self._loop.create_future()
        self._ask(_Append(event, event_row(event), losses, done, told))
        return done

    async def save_checkpoint(
        self, state: object, kind: Any, sequence: SequenceNumber, at: Instant
    ) -> None:
        """Remembers a state, so that a restart need not fold what came before.

        Args:
            state: The state.
            kind: Its type, for the codec; what ``Store.load`` is asked for later.
            sequence: The last number that was folded into it (``ClusterState.last_sequence``).
            at: Now.
        """
        # Written down beside the loop and before the transaction: appends wait for that one.
        text = await asyncio.to_thread(dump, state, kind)
        await self._run(lambda connection: save_checkpoint(connection, sequence, at, text))

    async def prune(
        self, retention: Retention, now: Instant, jobs: pruning.Jobs, long_jobs: Iterable[JobUid]
    ) -> int:
        """Removes what is kept no longer. Appends go on: there are many short transactions.

        Args:
            retention: What is kept.
            now: Now.
            jobs: Gives those in the state.
            long_jobs: Those that may have more losses than are kept.

        Returns:
            How many rows are gone.
        """
        removed = 0
        for step in pruning.steps(retention, now, jobs, long_jobs):
            while (some := await self._run(step)) is not None:
                removed += some
        return removed

    async def renew_lease(self, now: Instant) -> None:
        """Says that this control plane is alive, so that no other one takes over.

        Raises:
            TermLostError: One did.
        """
        await self._run(lambda connection: lease.renew(connection, now))

    async def expect_strangers_no_more(self) -> None:
        """After a restore: whoever was about has had the time to speak, and work was ordered."""
        await self._run(expect_strangers_no_more)

    async def give_up_lease(self) -> None:
        """Lets a successor take over at once. Nothing may be appended after this."""
        await self._run(lease.give_up)

    def _run(self, errand: Callable[[Connection], Any]) -> "asyncio.Future[Any]":
        """Runs ``errand`` in a fenced transaction, in its turn among the appends."""
        done: asyncio.Future[Any] = self._loop.create_future()
        self._ask(_Errand(errand, done))
        return done

    async def close(self) -> None:
        """Commits what was appended before, then ends the thread."""
        if not self._closed:
            self._closed = True
            self._hand_over()
            self._asked.put(None)
        await asyncio.to_thread(self._thread.join)

    def _ask(self, what: _Append | _Errand) -> None:
        if self._closed:
            _fail(what, StoreClosedError("this control plane is ending; ask the next one"))
        elif self._lost is not None:
            _fail(what, self._lost)
        else:
            self._gathered.append(what)
            if not self._handed_over and not self._will_hand_over:
                # Together with what else is asked in this round of the loop.
                self._will_hand_over = True
                self._loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        """Gives the thread all that has gathered."""
        self._will_hand_over = False
        if self._gathered:
            gathered, self._gathered = self._gathered, []
            self._handed_over += len(gathered)
            self._asked.put(gathered)

    def _done_with(self, count: int) -> None:
        """So many are answered; when all are, the thread can have the next ones."""
        self._handed_over -= count
        if not self._handed_over:
            self._hand_over()

    # Below: on the writer's thread.

    def _work(self) -> None:
        try:
            while (asked := self._asked.get()) is not None:
                for part in _parts(asked):
                    if isinstance(part, _Errand):
                        self._carry_out(part)
                    else:
                        self._commit(part)
        finally:
            self._disconnect()

    def _commit(self, group: list[_Append]) -> None:
        try:
            first = self._append_at_once(group)
        except (StoreUnavailableError, TermLostError) as error:
            self._tell(self._failed, group, error)
        except Exception as error:
            if len(group) > 1:  # One of them is not to the database's taste; find it.
                for append in group:
                    self._commit([append])
                return
            self._tell(self._failed, group, error)
        else:
            self._last = first + len(group) - 1
            self._tell(self._acknowledge, group, first)

    def _carry_out(self, errand: _Errand) -> None:
        try:
            result = self._transact(errand.run)
        except Exception as error:
            self._tell(self._failed, [errand], error)
        else:
            self._tell(self._answer, errand, result)

    def _transact(self, body: Callable[[Connection], Any]) -> Any:
        """Runs ``body`` in one fenced transaction; returns when it is durable."""

        def fenced(connection: Connection) -> Any:
            with connection.begin():
                lease.fence(connection, self.term)
                if self._last is None:
                    self._last = last_sequence(connection)
                if self._in_doubt:
                    self._remove_unacknowledged(connection)
                return body(connection)

        return self._guarded(fenced)

    def _guarded(self, act: Callable[[Connection], Any]) -> Any:
        """Runs ``act``, which begins and commits by itself; knows what its failure means."""
        if self._lost is not None:
            raise self._lost
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
            result = act(self._connection)
        except TermLostError as error:
            self._lost = error
            raise
        except SQLAlchemyError as error:
            self._forget_connection()
            told = as_store_error(error, where(self._engine))
            self._problem = str(told)
            raise told from error
        except Exception as error:
            self._forget_connection()
            self._problem = str(error)
            raise
        self._in_doubt = False
        self._problem = ""
        return result

    def _forget_connection(self) -> None:
        """After a failure it cannot be known what the connection did, or whether it still works."""
        self._in_doubt = True
        self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with suppress(SQLAlchemyError, StoreError):
                connection.invalidate()
                connection.close()

    def _remove_unacknowledged(self, connection: Connection) -> None:
        connection.execute(delete(EVENTS).where(EVENTS.c.seq > self._last))
        connection.execute(delete(DECISIONS).where(DECISIONS.c.seq > self._last))

    def _append_at_once(self, group: list[_Append]) -> int:
        """Commits the group's rows; returns the first number."""
        plain = self._is_sqlite and not any(append.losses for append in group)
        if not plain or self._last is None or self._in_doubt:
            return cast("int", self._transact(lambda connection: self._insert(connection, group)))
        first = self._last + 1
        decisions = _number(group, first)

        def hurried(connection: Connection) -> None:
            driver = cast("sqlite3.Connection", connection.connection.driver_connection)
            try:
                sqlite_inserts.append(driver, self.term, [a.row for a in group], decisions)
            except sqlite3.Error as error:
                raise DBAPIError.instance("INSERT", None, error, sqlite3.Error) from error

        self._guarded(hurried)
        return first

    def _insert(self, connection: Connection, group: list[_Append]) -> int:
        """Inserts the group's rows; returns the first number."""
        first = cast("int", self._last) + 1
        decisions = _number(group, first)
        losses: dict[tuple[str, int], Row] = {}
        for append in group:
            for row in append.losses:
                # PostgreSQL refuses to write one row twice in a statement.
                before = losses.setdefault((row["uid"], row["step"]), row)
                if row["attempt"] >= before["attempt"]:
                    losses[row["uid"], row["step"]] = row
        connection.execute(_INSERT_EVENTS, [append.row for append in group])
        if decisions:
            connection.execute(_INSERT_DECISIONS, decisions)
        if losses:
            connection.execute(self._upsert_losses, list(losses.values()))
        return first

    def _tell(self, how: Callable[..., None], *what: Any) -> None:
        with suppress(RuntimeError):  # The loop is closed: nobody waits any more.
            self._loop.call_soon_threadsafe(how, *what)

    # Below: back on the asyncio loop.

    def _acknowledge(self, group: list[_Append], first: int) -> None:
        # The tail first: whoever waits for a decision's number must find all before it there.
        self._tail.put(
            SequencedEvent(SequenceNumber(sequence), append.event)
            for sequence, append in enumerate(group, first)
            if not isinstance(append.event, CycleDecided)
        )
        for sequence, append in enumerate(group, first):
            number = SequenceNumber(sequence)
            if append.told is not None:
                append.told(number)
            if not append.done.done():
                append.done.set_result(number)
        self._done_with(len(group))

    def _failed(self, group: list[_Append] | list[_Errand], error: Exception) -> None:
        for asked in group:
            _fail(asked, error)
        self._done_with(len(group))

    def _answer(self, errand: _Errand, result: Any) -> None:
        if not errand.done.done():
            errand.done.set_result(result)
        self._done_with(1)
