"""Thins out the losses of long jobs: a curve of millions of points shows no more than thousands."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from sqlalchemy import Connection, delete, func, select

from controlplane.edges.store.tables import LOSSES

_JOBS_AT_ONCE = 100

Point = tuple[int, int]
"""A step, and the attempt that did it."""


@dataclass(slots=True)
class LongCurves:
    """Walks through jobs and leaves ``kept`` losses of each, evenly spread.

    What stays besides: the first and the last, and those on both sides of a change of attempts,
    so that a reconfiguration looks as it was. The spread is a power of two, and of its steps the
    first stays, so that a curve that grows is thinned to the same points as one that has grown.

    Attributes:
        kept: Losses that a job may have; at least 2.
        rows_at_once: Rows looked at in one transaction.
    """

    kept: int
    rows_at_once: int
    _uids: Iterator[str]
    _uid: str = ""
    _spread: int = 0
    _before: Point | None = None

    @classmethod
    def of(cls, jobs: Iterable[str], kept: int, rows_at_once: int) -> "LongCurves":
        """The curves of these jobs, none looked at yet."""
        return cls(kept, rows_at_once, iter(sorted(jobs)))

    def remove_some(self, connection: Connection) -> int | None:
        """Looks at some more; says how many rows it removed, or None when all are seen."""
        for _ in range(_JOBS_AT_ONCE):
            if self._uid:
                return self._thin(connection)
            uid = next(self._uids, None)
            if uid is None:
                return None
            spread = self._spread_of(connection, uid)
            if spread > 1:
                self._uid, self._spread, self._before = uid, spread, None
        return 0

    def _spread_of(self, connection: Connection, uid: str) -> int:
        """How many steps apart the job's losses may be; 1 if there are few enough."""
        of_job = LOSSES.c.uid == uid
        first = connection.scalar(select(func.min(LOSSES.c.step)).where(of_job))
        last = connection.scalar(select(func.max(LOSSES.c.step)).where(of_job))
        if first is None or last is None or last - first < self.kept:
            return 1  # Most jobs: told apart without counting.
        more = select(LOSSES.c.step).where(of_job).order_by(LOSSES.c.step).offset(self.kept)
        if connection.scalar(more.limit(1)) is None:
            return 1
        spread = 1
        while last // spread - first // spread + 1 > self.kept:
            spread *= 2
        return spread

    def _thin(self, connection: Connection) -> int:
        rows = select(LOSSES.c.step, LOSSES.c.attempt).where(LOSSES.c.uid == self._uid)
        if self._before is not None:
            rows = rows.where(LOSSES.c.step > self._before[0])
        # One more than is looked at: whether the last one may go depends on its neighbour.
        some = rows.order_by(LOSSES.c.step).limit(self.rows_at_once + 1)
        points = [(step, attempt) for step, attempt in connection.execute(some)]
        surplus = self._surplus(points)
        if surplus:
            gone = delete(LOSSES).where(LOSSES.c.uid == self._uid, LOSSES.c.step.in_(surplus))
            connection.execute(gone)
        if len(points) <= self.rows_at_once:
            self._uid = ""
        return len(surplus)

    def _surplus(self, points: Sequence[Point]) -> list[int]:
        """The steps that go; of the last point its neighbour is not known, so it stays."""
        surplus: list[int] = []
        for (step, attempt), (_, attempt_after) in pairwise(points):
            before = self._before
            if (
                before is not None
                and before[0] // self._spread == step // self._spread
                and before[1] == attempt == attempt_after
            ):
                surplus.append(step)
            self._before = (step, attempt)
        return surplus
