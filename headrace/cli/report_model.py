"""From the event log to a history: who held which accelerator, when, under which plan, and why.

Pure: the same facts give the same history. `report_fold` reads the log into these values,
`report_page` draws them.
"""

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from headrace.cli.report_facts import LossFact


@dataclass(frozen=True, slots=True)
class Block:
    """One accelerator held by one attempt under one plan.

    Attributes:
        node: Node of the accelerator.
        accelerator: The accelerator.
        uid: Job that held it.
        attempt: Attempt of that job.
        unit: Launch unit of that attempt.
        plan: Short form of the plan.
        start_ns: When the start was decided, or the plan taken up. A unit that joins later holds
            it from the order on, before the plan that it comes for is taken up.
        end_ns: When its release was known, or the plan was left; the history's end while ``open``.
        open: Whether it is still held.
        outcome: How the unit ended, e.g. ``Stopped``, or went on; empty while open.
        order: Positions in the replayed log at which it was taken and released.
        part: Part of the attempt in which the unit trained, or was to train.
        leaving_ns: When it was asked to leave, while others of its attempt train on; else None.
    """

    node: str
    accelerator: str
    uid: str
    attempt: int
    unit: int
    plan: str
    start_ns: int
    end_ns: int
    open: bool
    outcome: str
    order: tuple[int, int]
    part: int = 1
    leaving_ns: int | None = None


@dataclass(frozen=True, slots=True)
class LiveChange:
    """How the ranks of an attempt went over to another plan, and perhaps became more or fewer.

    Attributes:
        step: Last step before it.
        stood_still_ns: How long nothing was trained, as the ranks measured it.
        why: Sentence on why they were asked to.
    """

    step: int
    stood_still_ns: int
    why: str


@dataclass(frozen=True, slots=True)
class AttemptSpan:
    """What an attempt did under one plan on one set of accelerators: all of it, or a part.

    Attributes:
        uid: The job.
        number: Attempt number.
        plan: Short form of the plan.
        accelerators: How many trained under it.
        start_ns: When the start was decided, or the plan taken up.
        part: Position within the attempt, from 1.
        came_by: How it followed the part before; None for the first one.
        first_step_ns: When its own first step was reported; None if it never trained.
        stop_ns: When a planned stop of the attempt was decided, or since the part's start if that
            was before; None without one.
        end_ns: When the last unit was released, or the plan left; None while it lasts.
        outcomes: How its units ended, without repetition, sorted. Those that left or never joined
            do not count.
        stopped_at_steps: Steps that its units gave when they stopped or left as planned, sorted.
        why: Sentence on why it ended, where it did not go as planned.
        stop_why: Sentence on why it was stopped.
    """

    uid: str
    number: int
    plan: str
    accelerators: int
    start_ns: int
    part: int = 1
    came_by: LiveChange | None = None
    first_step_ns: int | None = None
    stop_ns: int | None = None
    end_ns: int | None = None
    outcomes: tuple[str, ...] = ()
    stopped_at_steps: tuple[int, ...] = ()
    why: str = ""
    stop_why: str = ""

    @property
    def place(self) -> tuple[int, int]:
        """Attempt and part: the order of a job's spans."""
        return self.number, self.part

    @property
    def broke(self) -> bool:
        """Whether a unit of it failed or was lost."""
        return bool({"Failed", "Lost"} & set(self.outcomes))


@dataclass(frozen=True, slots=True)
class Transition:
    """A job's way from one span to the next: to another plan in memory, or to another attempt.

    Attributes:
        uid: The job.
        before: The span that ended.
        then: The span that followed.
        planned: True for a reconfiguration, False for a retry after a failure.
        at_ns: When the stop was decided; for a retry, when the failure was known; for a change in
            memory, when it was told.
        cost_ns: In memory, how long the ranks stood still; else from ``at_ns`` to the first step
            of the attempt that followed, None if that has not come.
        why: Sentence for people.
    """

    uid: str
    before: AttemptSpan
    then: AttemptSpan
    planned: bool
    at_ns: int
    cost_ns: int | None
    why: str

    @property
    def in_memory(self) -> bool:
        """Whether the attempt went on, without a restart."""
        return self.then.came_by is not None

    @property
    def price(self) -> str:
        """In which way it came, and what it cost, in words."""
        cost = "" if self.cost_ns is None else f"{self.cost_ns / 1e9:.1f} s"
        if self.in_memory:
            return f"in memory, stood still {cost}"
        return f"by a restart in {cost}" if cost else "by a restart, no step yet"


@dataclass(frozen=True, slots=True)
class LossMark:
    """Where a loss curve passes from one plan or attempt to the next.

    Attributes:
        step: Position between the last step before and the first after, e.g. 120.5.
        planned: Reconfiguration or retry.
        in_memory: Whether the same attempt went on.
        before: Plan before.
        after: Plan after.
        attempt: Attempt that does the steps from here on.
    """

    step: float
    planned: bool
    in_memory: bool
    before: str
    after: str
    attempt: int


@dataclass(frozen=True, slots=True)
class LossSeries:
    """The losses of one job.

    Attributes:
        uid: The job.
        counted: For every step the loss of the latest attempt that did it, by step.
        superseded: Losses of steps that a later attempt did again, by attempt and step.
        marks: Passages from one plan or attempt to the next, by step.
    """

    uid: str
    counted: tuple[LossFact, ...]
    superseded: tuple[LossFact, ...]
    marks: tuple[LossMark, ...]


@dataclass(frozen=True, slots=True)
class JobSummary:
    """One line of the table of jobs. Times in nanoseconds.

    Attributes:
        uid: Its identity.
        label: Name, with the namespace unless that is ``default``.
        stage: Where it stands; ``Gone`` once it was forgotten.
        plan: Plan it runs under now.
        step: Steps done.
        steps_total: Steps wanted; 0 where unknown.
        submitted_ns: When it came; None if that is older than the kept log.
        waiting_ns: Time unfinished without accelerators, reconfigurations not counted.
        held_ns: Accelerator time held.
        reason: Why it stands where it stands.
    """

    uid: str
    label: str
    stage: str
    plan: str
    step: int
    steps_total: int
    submitted_ns: int | None
    waiting_ns: int
    held_ns: int
    reason: str


@dataclass(frozen=True, slots=True)
class Lane:
    """One accelerator's line in the timeline."""

    node: str
    accelerator: str
    type: str


@dataclass(frozen=True, slots=True)
class Band:
    """A time in which a node or one accelerator could not be used.

    Attributes:
        node: The node.
        accelerator: The accelerator; empty for all of the node.
        kind: ``lost``, ``drained`` or ``unhealthy``.
        start_ns: Its start.
        end_ns: Its end.
        note: Sentence for people.
    """

    node: str
    accelerator: str
    kind: str
    start_ns: int
    end_ns: int
    note: str


@dataclass(frozen=True, slots=True)
class Line:
    """One line of what happened and was decided.

    Attributes:
        at_ns: When.
        uid: Job that it is about; empty for the cluster.
        subject: That job's label, or the node.
        what: Predicate of a sentence about the subject.
        why: The reason, a sentence or empty.
        decided: Whether the loop decided it; False if it came from outside.
    """

    at_ns: int
    uid: str
    subject: str
    what: str
    why: str
    decided: bool


@dataclass(frozen=True, slots=True)
class History:
    """All that the page shows.

    Attributes:
        start_ns: Left end of the timeline.
        end_ns: Right end of the timeline.
        lanes: Accelerators, grouped by node.
        blocks: Who held them, by start.
        bands: When they could not be used.
        attempts: Every attempt of every job in its parts, by job, number and part.
        transitions: Reconfigurations and retries, by time.
        jobs: Jobs by submission.
        losses: Loss curves of the jobs that have any, in the same order.
        lines: What happened and was decided, oldest first.
        first_sequence: First event that the log still had; above 1 if older ones were pruned.
    """

    start_ns: int
    end_ns: int
    lanes: tuple[Lane, ...]
    blocks: tuple[Block, ...]
    bands: tuple[Band, ...]
    attempts: tuple[AttemptSpan, ...]
    transitions: tuple[Transition, ...]
    jobs: tuple[JobSummary, ...]
    losses: tuple[LossSeries, ...]
    lines: tuple[Line, ...]
    first_sequence: int

    def of_job(self, uid: str) -> tuple[Transition, ...]:
        """The transitions of one job."""
        return tuple(found for found in self.transitions if found.uid == uid)


def transitions_of(attempts: Iterable[AttemptSpan]) -> tuple[Transition, ...]:
    """Pairs of spans of one job that follow each other, by time."""
    found: list[Transition] = []
    before: AttemptSpan | None = None
    for then in sorted(attempts, key=lambda span: (span.uid, span.place)):
        if before is not None and before.uid == then.uid:
            found.append(_transition(before, then))
        before = then
    return tuple(sorted(found, key=lambda passage: (passage.at_ns, passage.uid)))


def _transition(before: AttemptSpan, then: AttemptSpan) -> Transition:
    live = then.came_by
    if live is not None:
        cost, why = live.stood_still_ns, live.why
        return Transition(then.uid, before, then, True, then.start_ns, cost, why)
    planned = before.stop_ns is not None and not before.broke
    ended = then.start_ns if before.end_ns is None else before.end_ns
    at_ns = before.stop_ns if planned and before.stop_ns is not None else ended
    return Transition(
        uid=then.uid,
        before=before,
        then=then,
        planned=planned,
        at_ns=at_ns,
        cost_ns=None if then.first_step_ns is None else max(0, then.first_step_ns - at_ns),
        why=(before.stop_why if planned else before.why),
    )


def series_of(uid: str, points: Iterable[LossFact], passages: Iterable[Transition]) -> LossSeries:
    """Sorts the losses of one job into those that count and those that were done again.

    Args:
        uid: The job.
        points: Its losses in any order.
        passages: Its transitions in any order.
    """
    counted: dict[int, LossFact] = {}
    superseded: list[LossFact] = []
    for point in sorted(points, key=lambda one: (one.attempt, one.step)):
        if point.step in counted:
            superseded.append(counted[point.step])
        counted[point.step] = point
    kept = tuple(counted[step] for step in sorted(counted))
    superseded.sort(key=lambda one: (one.attempt, one.step))
    return LossSeries(uid, kept, tuple(superseded), tuple(_marks(kept, passages)))


def _marks(points: Iterable[LossFact], passages: Iterable[Transition]) -> Iterable[LossMark]:
    """Marks wherever neighbours belong to different parts or attempts."""
    ordered = sorted(passages, key=lambda passage: passage.then.place)
    reached = [passage.then.place for passage in ordered]
    changes: dict[int, list[int]] = {}
    for passage in ordered:
        if passage.then.came_by is not None:
            changes.setdefault(passage.then.number, []).append(passage.then.came_by.step)

    def place(point: LossFact) -> tuple[int, int]:
        return point.attempt, 1 + bisect_left(changes.get(point.attempt, ()), point.step)

    for last, first in itertools.pairwise(points):
        left, came = place(last), place(first)
        if left == came:
            continue
        # Spans that never trained may lie between; then the mark is as good as its worst part.
        passed = ordered[bisect_right(reached, left) : bisect_right(reached, came)]
        yield LossMark(
            step=(last.step + first.step) / 2,
            planned=bool(passed) and all(passage.planned for passage in passed),
            in_memory=bool(passed) and all(passage.in_memory for passage in passed),
            before=passed[0].before.plan if passed else "",
            after=passed[-1].then.plan if passed else "",
            attempt=first.attempt,
        )


def waiting_ns(
    submitted_ns: int, end_ns: int, attempts: Iterable[AttemptSpan], passages: Iterable[Transition]
) -> int:
    """Time without accelerators between submission and end, reconfigurations not counted."""
    reached = {passage.then.place for passage in passages if passage.planned}
    free_since, total = submitted_ns, 0
    for span in sorted(attempts, key=lambda one: one.place):
        if span.place not in reached:
            total += max(0, span.start_ns - free_since)
        if span.end_ns is None:
            return total
        free_since = max(free_since, span.end_ns)
    return total + max(0, end_ns - free_since)
