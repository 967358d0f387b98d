"""Keeps the store from growing without bound.

What is left after pruning, whatever the cluster does: the last ``checkpoints`` states; the events
since the oldest of those; behind it at most ``events`` more, none older than ``age``, and no
outdated proposal or forecast among them; the last ``decisions`` rows of decisions; of each job in
the state ``losses`` rows of losses, and two more an attempt. A database file does not shrink by
that, but what was freed is used before the file grows.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, or_, select

from controlplane.domain.clock import SECOND, Duration, Instant, seconds
from controlplane.domain.ids import JobUid
from controlplane.domain.proposal import PROPOSAL_KEPT_SECONDS
from controlplane.edges.store.rows import storable
from controlplane.edges.store.tables import CHECKPOINTS, DECISIONS, EVENTS, LOSSES
from controlplane.edges.store.thinning import LongCurves

ROWS_AT_ONCE = 2_000
"""Rows removed in one transaction: appends wait meanwhile."""
_JOBS_AT_ONCE = 100
"""Jobs looked at in one transaction, whether or not anything of theirs goes."""


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept for history beyond what a restart needs.

    Attributes:
        checkpoints: States; at least 1.
        events: Events in all, also if all could go; at least 1.
        age: Events older than this go even if there are fewer.
        decisions: Rows of decisions.
        losses: Losses of a job, besides those where an attempt begins or ends; at least 2.
    """

    checkpoints: int = 3
    events: int = 200_000
    age: Duration = Duration(30 * 24 * 3600 * SECOND)
    decisions: int = 500_000
    losses: int = 5_000

    def __post_init__(self) -> None:
        if min(self.checkpoints, self.events) < 1 or min(self.age, self.decisions) < 0:
            raise ValueError(f"a store keeps at least one checkpoint and one event, not {self}")
        if self.losses < 2:
            raise ValueError(f"a curve has at least two points, not {self.losses}")


Step = Callable[[Connection], int | None]
"""Removes at most ``ROWS_AT_ONCE`` rows in a transaction of its own; says how many, or None when
it has done all.
"""


Jobs = Callable[[], Collection[JobUid]]
"""The jobs in the state, asked for again and again: they come and go while pruning goes on."""


def steps(
    retention: Retention, now: Instant, jobs: Jobs, long_jobs: Iterable[JobUid]
) -> tuple[Step, ...]:
    """What pruning does; each step is repeated until it has done all."""
    forgotten = _ForgottenLosses(jobs)
    curves = LongCurves.of(map(storable, long_jobs), retention.losses, ROWS_AT_ONCE)
    return (
        lambda connection: _prune_checkpoints(connection, retention) or None,
        lambda connection: _prune_events(connection, retention, now) or None,
        _OutdatedProposals(now).remove_some,
        lambda connection: _prune_decisions(connection, retention) or None,
        forgotten.remove_some,
        curves.remove_some,
    )


def _prune_checkpoints(connection: Connection, retention: Retention) -> int:
    newest = select(CHECKPOINTS.c.seq).order_by(CHECKPOINTS.c.seq.desc())
    oldest_kept = connection.scalar(newest.offset(retention.checkpoints - 1).limit(1))
    if oldest_kept is None:
        return 0
    return connection.execute(delete(CHECKPOINTS).where(CHECKPOINTS.c.seq < oldest_kept)).rowcount


def _not_needed_up_to(connection: Connection) -> int:
    """The last event that could go; 0 if all are needed."""
    needed_after = connection.scalar(select(func.min(CHECKPOINTS.c.folded_up_to)))
    if needed_after is None:
        return 0
    # The last event stays in any case, for the numbers go on from it.
    last = connection.scalar(select(func.max(EVENTS.c.seq))) or 0
    return int(min(needed_after, last - 1))


def _prune_events(connection: Connection, retention: Retention, now: Instant) -> int:
    newest = select(EVENTS.c.seq).order_by(EVENTS.c.seq.desc())
    surplus = connection.scalar(newest.offset(retention.events).limit(1)) or 0
    some = (
        select(EVENTS.c.seq, EVENTS.c.at_ns)
        .where(EVENTS.c.seq <= _not_needed_up_to(connection))
        .order_by(EVENTS.c.seq)
        .limit(ROWS_AT_ONCE)
        .subquery()
    )
    up_to = connection.scalar(
        select(func.max(some.c.seq)).where(
            or_(some.c.seq <= surplus, some.c.at_ns < now - retention.age)
        )
    )
    if up_to is None:
        return 0
    return connection.execute(delete(EVENTS).where(EVENTS.c.seq <= up_to)).rowcount


@dataclass(slots=True)
class _OutdatedProposals:
    """Walks through the events that are kept for history only, and removes proposals that nobody
    remembers any more. They are by far the largest events, and what was taken of them stands in
    decisions.
    """

    now: Instant
    after: int = 0

    def remove_some(self, connection: Connection) -> int | None:
        """Looks at as many events as are looked at in one transaction."""
        since = EVENTS.c.seq > self.after
        some = (
            select(EVENTS.c.seq)
            .where(since, EVENTS.c.seq <= _not_needed_up_to(connection))
            .order_by(EVENTS.c.seq)
            .limit(ROWS_AT_ONCE)
            .subquery()
        )
        up_to = connection.scalar(select(func.max(some.c.seq)))
        if up_to is None:
            return None
        outdated = EVENTS.c.at_ns < self.now - seconds(PROPOSAL_KEPT_SECONDS)
        # Forecasts that are counted are part of the state; the log need not keep them all as well.
        bulky = EVENTS.c.kind.in_(("ProposalFound", "JobsForecast"))
        gone = delete(EVENTS).where(since, EVENTS.c.seq <= up_to, bulky, outdated)
        self.after = up_to
        return connection.execute(gone).rowcount


def _prune_decisions(connection: Connection, retention: Retention) -> int:
    newest = select(DECISIONS.c.seq).order_by(DECISIONS.c.seq.desc())
    kept_from = connection.scalar(newest.offset(retention.decisions).limit(1))
    oldest = connection.scalar(select(func.min(DECISIONS.c.seq)))
    if kept_from is None or oldest is None:
        return 0
    batch = select(DECISIONS.c.seq).order_by(DECISIONS.c.seq).offset(ROWS_AT_ONCE).limit(1)
    # A decision goes or stays whole: so up to one of them is left beyond the limit.
    before = min(kept_from, max(connection.scalar(batch) or kept_from, oldest + 1))
    return connection.execute(delete(DECISIONS).where(DECISIONS.c.seq < before)).rowcount


@dataclass(slots=True)
class _ForgottenLosses:
    """Walks through the uids that have losses, in order, and removes those not in ``jobs``."""

    jobs: Jobs
    after: str = ""

    def remove_some(self, connection: Connection) -> int | None:
        """Removes losses of the next forgotten job, as many as fit in one transaction."""
        jobs = self.jobs()
        for _ in range(_JOBS_AT_ONCE):
            uid = self._next(connection)
            if uid is None:
                return None
            if uid not in jobs:
                return self._remove(connection, uid)
            self.after = uid
        return 0

    def _remove(self, connection: Connection, uid: str) -> int:
        of_job = LOSSES.c.uid == uid
        steps = select(LOSSES.c.step).where(of_job).order_by(LOSSES.c.step).limit(ROWS_AT_ONCE)
        gone = delete(LOSSES).where(of_job, LOSSES.c.step.in_(steps.scalar_subquery()))
        return connection.execute(gone).rowcount

    def _next(self, connection: Connection) -> str | None:
        # A distinct over the whole table would read every loss; this reads one row a job.
        found: str | None = connection.scalar(
            select(func.min(LOSSES.c.uid)).where(LOSSES.c.uid > self.after)
        )
        return found
