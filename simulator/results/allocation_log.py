"""The allocation log: who held which accelerators, when, under which plan, and how fast.

It is what really happened in the virtual cluster, in order. Each row tells what its job holds from
then on, so held and free accelerators, progress and completion times follow from it alone.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from controlplane.domain.clock import SECOND, Instant
from controlplane.domain.ids import JobUid, NodeId

COLUMNS = ("time_s", "job", "event", "accelerators", "plan", "steps_per_second", "step")


class Happened(StrEnum):
    """What a row tells."""

    NODE_ONLINE = "node-online"
    """A node can be used; its accelerators stand in the row."""
    NODE_LOST = "node-lost"
    """A node is gone, with all that ran there."""
    SUBMITTED = "submitted"
    STARTED = "started"
    """The job holds accelerators and does not train yet."""
    CHANGED = "changed"
    """Another plan or other accelerators, taken up in memory; it does not train yet."""
    TRAINS = "trains"
    STOPS = "stops"
    """It was told to stop, and holds its accelerators until it has."""
    RELEASED = "released"
    """It was stopped and holds nothing."""
    FAILED = "failed"
    """The attempt failed or was lost; the job holds nothing, and may start again."""
    FINISHED = "finished"


HOLDS_NOTHING = frozenset(
    {Happened.SUBMITTED, Happened.RELEASED, Happened.FAILED, Happened.FINISHED}
)


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        at: When.
        job: Whom it is about; empty for a node.
        event: What happened.
        held: Accelerators of each node that the job holds from now on; of a node, those it has.
        plan: Under which plan; empty while it holds nothing.
        steps_per_second: How fast it trains from now on; 0 while it does not.
        step: Steps done.
    """

    at: Instant
    job: JobUid
    event: Happened
    held: tuple[tuple[NodeId, int], ...] = ()
    plan: str = ""
    steps_per_second: float = 0.0
    step: float = 0.0

    @property
    def accelerators(self) -> int:
        """How many in all."""
        return sum(count for _, count in self.held)

    @property
    def shares(self) -> tuple[int, ...]:
        """How they lie, most first."""
        return tuple(sorted((count for _, count in self.held), reverse=True))

    def cells(self) -> Sequence[str]:
        """As ``COLUMNS`` say; times and steps are exact."""
        return (
            _decimal(self.at),
            self.job,
            self.event,
            " ".join(f"{node}:{count}" for node, count in self.held),
            self.plan,
            repr(self.steps_per_second) if self.steps_per_second else "0",
            repr(round(self.step, 9)),
        )


def _decimal(at: Instant) -> str:
    whole, rest = divmod(at, SECOND)
    return f"{whole}.{rest:09d}".rstrip("0").rstrip(".") if rest else str(whole)


@dataclass(frozen=True, slots=True)
class Stretch:
    """For how long a job held the same accelerators under the same plan at the same speed.

    Attributes:
        job: The job.
        start: From when.
        end: Until when.
        row: What it held, and how fast it was.
    """

    job: JobUid
    start: Instant
    end: Instant
    row: Row

    @property
    def accelerator_ns(self) -> int:
        """Time of accelerators that it took."""
        return (self.end - self.start) * self.row.accelerators


def stretches(rows: Sequence[Row], until: Instant) -> Iterator[Stretch]:
    """Every stretch in which a job held something, by when it ended.

    Args:
        rows: The log.
        until: When what is still held is cut off.
    """
    held: dict[JobUid, Row] = {}
    for row in rows:
        if not row.job:
            continue
        before = held.pop(row.job, None)
        if before is not None and row.at > before.at:
            yield Stretch(row.job, before.at, row.at, before)
        if row.held:
            held[row.job] = row
    for uid, row in held.items():
        if until > row.at:
            yield Stretch(uid, row.at, until, row)


def lost_ns(rows: Sequence[Row]) -> Counter[JobUid]:
    """Time of accelerators in which each job did steps that a failure took from it, as its last
    checkpoint did not hold them: they were, or would have to be, done again.

    Args:
        rows: The log.
    """
    lost: Counter[JobUid] = Counter()
    last: dict[JobUid, Row] = {}
    done: dict[JobUid, list[_Worked]] = {}
    for row in rows:
        before = last.get(row.job)
        last[row.job] = row
        if before is not None and before.steps_per_second and row.at > before.at:
            steps = before.steps_per_second * (row.at - before.at) / SECOND
            worked = _Worked(before.step + steps, steps, (row.at - before.at) * before.accelerators)
            done.setdefault(row.job, []).append(worked)
        if row.event is Happened.FAILED:
            lost[row.job] += _undone(done.get(row.job, []), row.step)
    return lost


@dataclass(frozen=True, slots=True)
class _Worked:
    """A stretch of training: the step at its end, how many it did, and in how much time."""

    step: float
    steps: float
    accelerator_ns: int

    def beyond(self, step: float) -> float:
        """Which part of it lies beyond a step."""
        return min(1.0, max(0.0, self.step - step) / self.steps)


def _undone(done: list[_Worked], step: float) -> int:
    """Takes back what was done beyond a step: the time that it took."""
    lost = 0
    while done and done[-1].step > step:
        worked = done.pop()
        part = worked.beyond(step)
        gone = round(worked.accelerator_ns * part)
        lost += gone
        if part < 1.0:
            steps = worked.steps * (1.0 - part)
            done.append(_Worked(step, steps, worked.accelerator_ns - gone))
    return lost


def offered_ns(rows: Sequence[Row], start: Instant, until: Instant) -> int:
    """Time of accelerators that nodes offered between two instants."""
    online: dict[JobUid | NodeId, Row] = {}
    total = 0
    for row in rows:
        if row.event is Happened.NODE_ONLINE:
            online[row.held[0][0]] = row
        elif row.event is Happened.NODE_LOST:
            before = online.pop(row.held[0][0], None)
            if before is not None:
                total += _overlap(before.at, row.at, start, until) * before.accelerators
    return total + sum(
        _overlap(row.at, until, start, until) * row.accelerators for row in online.values()
    )


def _overlap(start: int, end: int, low: int, high: int) -> int:
    return max(0, min(end, high) - max(start, low))
