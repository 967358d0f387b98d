"""Connections to either database, set up so that committed means on the disk."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from controlplane.edges.store.errors import StoreError

LOCK_WAIT_SECONDS = 5
"""How long a transaction waits for someone else's lock before it gives up."""

_CONNECT_SECONDS = 5
_WRITES = "headrace_writes"


def connect(url: str) -> Engine:
    """An engine for ``url``; nothing is connected yet.

    Raises:
        StoreError: The URL is of no kind that can be used.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StoreError(
            f"{url!r} is not a database URL; wanted sqlite:///path/to/file or "
            "postgresql://user@host/database"
        ) from error
    match parsed.get_backend_name():
        case "sqlite":
            return _sqlite(parsed)
        case "postgresql":
            return _postgresql(parsed)
        case other:
            raise StoreError(
                f"a store cannot live in {other}; wanted sqlite:///path/to/file or "
                "postgresql://user@host/database"
            )


def where(engine: Engine) -> str:
    """How messages name the database; never with its password."""
    return f"the store {engine.url.render_as_string(hide_password=True)}"


def for_writing(engine: Engine) -> Engine:
    """The same database; transactions take SQLite's write lock at their beginning.

    One that starts as a reader can fail when it turns writer, however long it would wait.
    """
    return engine.execution_options(**{_WRITES: True})


def for_consistent_reading(engine: Engine) -> Engine:
    """The same database; all that one transaction reads is of one moment."""
    if engine.dialect.name == "postgresql":
        return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    return engine


def lock_against_others(connection: Connection) -> None:
    """Until the end of the transaction, nobody else can create or migrate tables."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(7237131)"))


def _sqlite(url: URL) -> Engine:
    if not url.database or url.database == ":memory:":
        raise StoreError(
            "a store in memory would forget what it acknowledged; wanted sqlite:///path/to/file"
        )
    folder = Path(url.database).absolute().parent
    if not folder.is_dir():
        raise StoreError(f"the folder {folder} of the store does not exist; create it first")
    # Manifests carry variables. What lies beside the database takes its mode from it.
    with suppress(OSError):  # then SQLite says why it cannot be
        Path(url.database).touch(mode=0o600)
    engine = create_engine(
        url.set(drivername="sqlite+pysqlite"),
        connect_args={"timeout": LOCK_WAIT_SECONDS, "check_same_thread": False},
    )

    def connected(dbapi: Any, _record: object) -> None:
        dbapi.isolation_level = None  # Transactions begin where SQLAlchemy says, below.
        mode = dbapi.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        if mode != "wal":
            raise StoreError(
                f"SQLite cannot keep a write-ahead log beside {url.database} (it uses "
                f"{mode!r}); put the store on a local disk"
            )
        dbapi.execute("PRAGMA synchronous=FULL")

    def begun(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begun)
    return engine


def _postgresql(url: URL) -> Engine:
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": _CONNECT_SECONDS,
            # A server that went away without a word is noticed within seconds, not hours.
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 10_000,
            "application_name": "headrace",
        },
    )

    def connected(dbapi: Any, _record: object) -> None:
        with dbapi.cursor() as cursor:
            cursor.execute("SET synchronous_commit = on")
            cursor.execute(f"SET lock_timeout = '{LOCK_WAIT_SECONDS}s'")
            # Else a decider that hangs in mid-transaction would keep its successor out.
            cursor.execute("SET idle_in_transaction_session_timeout = '2min'")
        dbapi.commit()

    event.listen(engine, "connect", connected)
    return engine
