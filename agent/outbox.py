"""What the control plane has yet to hear, kept until it says that it is durable.

Ends of units are always kept. Losses of a job that nobody takes are thinned out beyond a bound,
evenly, so that the curve keeps its shape.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from agent.control_folder import StepLine, ToldLine
from agent.desired import UnitEnd, UnitKey

MOST_LOSSES = 4000
"""Points kept for a unit while the control plane is away."""


@dataclass(frozen=True, slots=True)
class PendingProgress:
    """Progress of one unit that was not acknowledged yet.

    Attributes:
        last: The newest line.
        losses: (step, loss) since the last acknowledged report.
        offset: Where in ``progress.jsonl`` this ends.
        stride: Only losses of steps that this divides are kept.
    """

    last: StepLine
    losses: tuple[tuple[int, float], ...]
    offset: int
    stride: int = 1


@dataclass(frozen=True, slots=True)
class PendingPlans:
    """What a unit told of its plans and checkpoints, and was not acknowledged yet.

    Attributes:
        lines: In the order in which they came.
        offset: Where in ``changes.jsonl`` this ends.
    """

    lines: tuple[ToldLine, ...]
    offset: int


@dataclass(frozen=True, slots=True)
class Batch:
    """One report on its way."""

    started: tuple[UnitKey, ...] = ()
    rendezvous: tuple[tuple[UnitKey, str], ...] = ()
    progress: tuple[tuple[UnitKey, PendingProgress], ...] = ()
    plans: tuple[tuple[UnitKey, PendingPlans], ...] = ()
    exits: tuple[tuple[UnitKey, UnitEnd], ...] = ()
    health: tuple[tuple[str, str], ...] = ()


@dataclass
class Outbox:
    """All that waits to be told. One report is on its way at a time."""

    _started: dict[UnitKey, None] = field(default_factory=dict)
    _rendezvous: dict[UnitKey, str] = field(default_factory=dict)
    _progress: dict[UnitKey, PendingProgress] = field(default_factory=dict)
    _plans: dict[UnitKey, PendingPlans] = field(default_factory=dict)
    _exits: dict[UnitKey, UnitEnd] = field(default_factory=dict)
    _health: dict[str, str] = field(default_factory=dict)

    def started(self, key: UnitKey) -> None:
        """A unit's process runs."""
        self._started[key] = None

    def rendezvous(self, key: UnitKey, address: str) -> None:
        """Unit 0 of an attempt listens."""
        self._rendezvous[key] = address

    def progress(self, key: UnitKey, lines: Iterable[StepLine], offset: int) -> None:
        """A unit wrote progress lines, up to ``offset``."""
        before = self._progress.get(key)
        losses = list(before.losses) if before else []
        last = before.last if before else None
        stride = before.stride if before else 1
        for line in lines:
            fresh = not losses or losses[-1][0] != line.step
            if line.loss is not None and fresh and line.step % stride == 0:
                losses.append((line.step, line.loss))
            # A line that says only that a checkpoint was committed keeps the rest.
            loss = line.loss if line.loss is not None else (last.loss if last else None)
            pace = line.step_seconds or (last.step_seconds if last else 0.0)
            last = replace(line, loss=loss, step_seconds=pace)
        if last is None:
            return
        while len(losses) > MOST_LOSSES:
            stride *= 2
            losses = [point for point in losses if point[0] % stride == 0]
        self._progress[key] = PendingProgress(last, tuple(losses), offset, stride)

    def plans(self, key: UnitKey, lines: Iterable[ToldLine], offset: int) -> None:
        """A unit told of its plans or checkpoints, up to ``offset``."""
        before = self._plans[key].lines if key in self._plans else ()
        told = (*before, *lines)
        if told:
            self._plans[key] = PendingPlans(told, offset)

    def exited(self, key: UnitKey, end: UnitEnd) -> None:
        """A unit does not run (any more)."""
        self._exits[key] = end

    def health(self, accelerator: str, problem: str) -> None:
        """An accelerator's health changed."""
        self._health[accelerator] = problem

    @property
    def exits(self) -> frozenset[UnitKey]:
        """Units whose end was not acknowledged yet."""
        return frozenset(self._exits)

    @property
    def urgent(self) -> bool:
        """Whether something waits that deciding depends on."""
        return bool(self._started or self._rendezvous or self._plans or self._exits or self._health)

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not (self.urgent or self._progress)

    def batch(self) -> Batch:
        """All that waits, as one report."""
        return Batch(
            started=tuple(self._started),
            rendezvous=tuple(self._rendezvous.items()),
            progress=tuple(self._progress.items()),
            plans=tuple(self._plans.items()),
            exits=tuple(self._exits.items()),
            health=tuple(self._health.items()),
        )

    def acknowledged(self, batch: Batch) -> None:
        """Drops what ``batch`` told; what came since then stays."""
        for key in batch.started:
            self._started.pop(key, None)
        for key, address in batch.rendezvous:
            if self._rendezvous.get(key) == address:
                del self._rendezvous[key]
        for key, sent in batch.progress:
            self._progress_told(key, sent)
        for key, plans in batch.plans:
            now = self._plans.get(key)
            if now is not None and now.offset == plans.offset:
                del self._plans[key]
            elif now is not None:
                self._plans[key] = replace(now, lines=now.lines[len(plans.lines) :])
        for key, end in batch.exits:
            if self._exits.get(key) == end:
                del self._exits[key]
        for accelerator, problem in batch.health:
            if self._health.get(accelerator) == problem:
                del self._health[accelerator]

    def _progress_told(self, key: UnitKey, sent: PendingProgress) -> None:
        now = self._progress.get(key)
        if now is None or now.offset == sent.offset:
            self._progress.pop(key, None)
            return
        told = sent.losses[-1][0] if sent.losses else -1
        fresh = tuple(point for point in now.losses if point[0] > told)
        self._progress[key] = replace(now, losses=fresh, stride=1)
