"""The tables, and the only places where the two databases need different words.

Times are nanoseconds since 1970 UTC, like ``domain.clock.Instant``. Values are JSON text that
``domain.codec`` writes; columns beside them repeat what is searched for. The migrations create
what stands here; a test compares the two.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.dml import Insert
from sqlalchemy.types import TypeEngine

METADATA = MetaData()

# SQLite makes only a column of exactly INTEGER the table's own key; others cost a second index.
_KEY: TypeEngine[int] = BigInteger().with_variant(Integer(), "sqlite")

META = Table(
    "meta",
    METADATA,
    Column("name", String, primary_key=True),
    Column("value", String, nullable=False),
)
"""``schema_version`` of the stored values; ``sequence_floor`` and ``attempt_floor``, above which
numbers are given out after a restore; ``restored`` from a restore until something was ordered.
"""

EVENTS = Table(
    "events",
    METADATA,
    Column("seq", _KEY, primary_key=True, autoincrement=False),
    Column("at_ns", BigInteger, nullable=False),
    Column("kind", String, nullable=False),
    Column("uid", String, nullable=False),
    Column("node", String, nullable=False),
    Column("body", Text, nullable=False),
    Index("events_by_uid", "uid", "seq"),
)
"""The log. ``uid`` and ``node`` are empty where an event is not about one."""

DECISIONS = Table(
    "decisions",
    METADATA,
    Column("seq", BigInteger, nullable=False),
    Column("place", Integer, nullable=False),
    Column("uid", String, nullable=False),
    Column("at_ns", BigInteger, nullable=False),
    Column("term", BigInteger, nullable=False),
    Column("action", Text, nullable=False),
    Column("reason", Text, nullable=False),
    PrimaryKeyConstraint("seq", "place"),
    Index("decisions_by_uid", "uid", "seq"),
)
"""What each CycleDecided says of each job, to list and explain; rows can be derived again.

``action`` and ``reason`` are JSON, empty where there is none. ``place`` counts within a decision,
because one cycle may order two things of a job.
"""

CHECKPOINTS = Table(
    "checkpoints",
    METADATA,
    Column("seq", _KEY, primary_key=True, autoincrement=False),
    Column("folded_up_to", BigInteger, nullable=False),
    Column("at_ns", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
)
"""States. One holds the decisions up to ``seq`` and the other events up to ``folded_up_to``."""

LOSSES = Table(
    "losses",
    METADATA,
    Column("uid", String, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("attempt", BigInteger, nullable=False),
    Column("loss", Double, nullable=True),
    Column("at_ns", BigInteger, nullable=False),
    PrimaryKeyConstraint("uid", "step"),
)
"""Training losses. NULL is NaN, which SQLite cannot store. A step done again overwrites."""

LEASE = Table(
    "lease",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("term", BigInteger, nullable=False),
    Column("holder", String, nullable=False),
    Column("renewed_at_ns", BigInteger, nullable=False),
)
"""One row, id 1: who decides, and in which term."""

LEASE_ID = 1


def upsert_losses(dialect: Dialect) -> Insert:
    """Insert losses; a step that is there already is overwritten unless by an older attempt."""
    maker: Any = postgresql.insert if dialect.name == "postgresql" else sqlite.insert
    statement = maker(LOSSES)
    new = statement.excluded
    upsert: Insert = statement.on_conflict_do_update(
        index_elements=["uid", "step"],
        set_={"attempt": new.attempt, "loss": new.loss, "at_ns": new.at_ns},
        where=new.attempt >= LOSSES.c.attempt,
    )
    return upsert
