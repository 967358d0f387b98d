"""Who decides. Each grant of the lease has a term higher than any before it.

The lease's age only keeps two control planes from taking turns. Safety does not hang on clocks:
whatever a decider writes is fenced by its term, in the transaction that writes it.
"""

from sqlalchemy import Connection, Engine, select, update

from controlplane.domain.clock import SECOND, Duration, Instant
from controlplane.domain.ids import TERM_LIMIT, Term
from controlplane.edges.store.database import for_writing
from controlplane.edges.store.errors import LeaseHeldError, StoreError
from controlplane.edges.store.tables import LEASE, LEASE_ID
from controlplane.engine.ports import TermLostError

LEASE_FRESH = Duration(15 * SECOND)
"""A lease that was renewed within this is its holder's; renew it a few times as often."""

# FOR UPDATE holds a successor, or our own lost connection's transaction, until we have committed.
_ROW = (
    select(LEASE.c.term, LEASE.c.holder, LEASE.c.renewed_at_ns)
    .where(LEASE.c.id == LEASE_ID)
    .with_for_update()
)
_TERM = select(LEASE.c.term).where(LEASE.c.id == LEASE_ID).with_for_update()


def acquire_term(engine: Engine, holder: str, now: Instant, at_least: Term) -> Term:
    """A new term for ``holder``; see ``Store.acquire_term``."""
    with for_writing(engine).begin() as connection:
        term, present, renewed_at_ns = connection.execute(_ROW).one()
        # A renewal further ahead of us than this is a wrong clock's, and tells nothing.
        age = abs(now - renewed_at_ns)
        if present and present != holder and age < LEASE_FRESH:
            raise LeaseHeldError(
                present,
                f"{present} decides on this store (term {term}) and was heard from "
                f"{age / SECOND:.1f} s ago; end it, or wait until it has been silent for "
                f"{LEASE_FRESH // SECOND} s",
            )
        granted = Term(max(term + 1, at_least))
        if granted >= TERM_LIMIT:
            # Agents would refuse it, and those that did not would never obey a sane one again.
            raise StoreError(
                f"the store is at term {term}, which no control plane gives: it is damaged; "
                "restore the last good backup"
            )
        connection.execute(
            update(LEASE)
            .where(LEASE.c.id == LEASE_ID)
            .values(term=granted, holder=holder, renewed_at_ns=now)
        )
    return granted


def renew(connection: Connection, now: Instant) -> None:
    """Keeps the lease fresh; inside a transaction that is fenced already."""
    connection.execute(update(LEASE).where(LEASE.c.id == LEASE_ID).values(renewed_at_ns=now))


def give_up(connection: Connection) -> None:
    """Lets anyone take the lease at once; inside a transaction that is fenced already."""
    connection.execute(
        update(LEASE).where(LEASE.c.id == LEASE_ID).values(holder="", renewed_at_ns=0)
    )


def fence(connection: Connection, term: Term) -> None:
    """Holds the lease row until the end of the transaction, if it is still of ``term``.

    Raises:
        TermLostError: It is of a higher term.
    """
    held = connection.scalar(_TERM)
    if held != term:
        raise TermLostError(
            f"term {term} is over: the store has given term {held} to another control plane"
        )
