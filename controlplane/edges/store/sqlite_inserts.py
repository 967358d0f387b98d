"""Appending to SQLite in as few statements as can be.

Python's driver lets go of the interpreter's lock in every statement, and for every row of an
``executemany``, and while the gRPC side is busy each of these costs a wait until that side pauses.
So a group is one statement: all its rows, the check of the term, and, where nothing else has to be
written with it, the commit as well.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any

from sqlalchemy import Table

from controlplane.domain.ids import Term
from controlplane.edges.store.rows import Row
from controlplane.edges.store.tables import DECISIONS, EVENTS, LEASE, LEASE_ID
from controlplane.engine.ports import TermLostError

_ROWS_AT_ONCE = 500
"""A statement may have 32,766 values; the widest row here has seven."""

_TERM = f"SELECT term FROM {LEASE.name} WHERE id = {LEASE_ID}"  # noqa: S608 - names of ours


def append(
    connection: sqlite3.Connection, term: Term, events: Sequence[Row], decisions: Sequence[Row]
) -> None:
    """Returns when all rows are durable. The connection is in no transaction, before and after.

    After an error the connection is not to be used again, which takes back what was begun.

    Raises:
        TermLostError: The lease is of a higher term; nothing was written.
        sqlite3.Error: The driver's story.
    """
    if decisions:
        connection.execute("BEGIN IMMEDIATE")
    statement, values = _insert(EVENTS, events, fenced=True)
    written = connection.execute(statement, (*values, term)).rowcount
    if written != len(events):
        held = connection.execute(_TERM).fetchone()
        connection.rollback()
        raise TermLostError(
            f"term {term} is over: the store has given term {held[0]} to another control plane"
        )
    if decisions:
        for some in _chunks(decisions):
            connection.execute(*_insert(DECISIONS, some, fenced=False))
        connection.execute("COMMIT")


def _chunks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    for begin in range(0, len(rows), _ROWS_AT_ONCE):
        yield rows[begin : begin + _ROWS_AT_ONCE]


def _insert(table: Table, rows: Sequence[Row], *, fenced: bool) -> tuple[str, list[Any]]:
    statement, columns = _statement(table, len(rows), fenced)
    return statement, list(chain.from_iterable([row[name] for name in columns] for row in rows))


@cache
def _statement(table: Table, rows: int, fenced: bool) -> tuple[str, tuple[str, ...]]:
    """The text for so many rows, and the columns in the order of its values."""
    columns = tuple(column.name for column in table.columns)
    places = ",".join(["(" + ",".join("?" * len(columns)) + ")"] * rows)
    into = f"INSERT INTO {table.name} ({', '.join(columns)}) "
    if not fenced:
        return f"{into}VALUES {places}", columns
    # SQLite takes the write lock before it reads here, so no other term can come in between.
    return f"{into}SELECT * FROM (VALUES {places}) WHERE ({_TERM}) = ?", columns  # noqa: S608
