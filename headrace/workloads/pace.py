"""Where a rank's main thread is, how long it may stay there, and which rank holds up the others."""

import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

START_SECONDS = 1800.0
"""Longest start: connecting, and reading or drawing the weights."""

FIRST_STEP_SECONDS = 600.0
"""Longest first step, at the start and after a change of plan: memory is found, kernels are
loaded.
"""

SAVE_SECONDS = 3600.0
SWITCH_SECONDS = 600.0
STALL_FACTOR = 10
"""A step hangs that takes so many times the slowest of the last ones."""

_STEPS_REMEMBERED = 20
_WAITING_IN = ("torch/distributed/", "torch/autograd/", "training/world.py")


@dataclass(frozen=True, slots=True)
class Beat:
    """What a rank says of itself while it lives.

    Attributes:
        count: Rises with each beat.
        step: Step that it is at.
        phase: What it does there, for people.
        left_seconds: How long it may still take for it; negative once it is overdue.
        where: File and line in which its main thread is.
        waits: Whether that is a place where it waits for other ranks.
    """

    count: int
    step: int
    phase: str
    left_seconds: float
    where: str
    waits: bool

    def told(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Stay:
    step: int
    phase: str
    since: float
    limit_seconds: float
    needs_all: bool = False


class Pace:
    """Written by the main thread, read by the watch."""

    def __init__(self, stall_seconds: float) -> None:
        self._floor = stall_seconds
        self._recent: deque[float] = deque(maxlen=_STEPS_REMEMBERED)
        self._main = threading.main_thread().ident
        self._count = 0
        self._stay = _Stay(0, "start", time.monotonic(), START_SECONDS)

    def step_begins(self, step: int) -> None:
        """The main thread begins a step."""
        limit = FIRST_STEP_SECONDS
        if self._recent:
            limit = max(self._floor, STALL_FACTOR * max(self._recent))
        self._stay = _Stay(step, "step", time.monotonic(), limit)

    def step_ended(self) -> None:
        """The step is done; how long it took is what later ones are measured by."""
        self._recent.append(time.monotonic() - self._stay.since)

    @contextmanager
    def during(
        self, phase: str, limit_seconds: float, *, needs_all: bool = False
    ) -> Iterator[None]:
        """What takes longer than a step.

        Args:
            phase: What it is, for people.
            limit_seconds: How long it may take.
            needs_all: Whether it is over if one rank is gone, which nothing else would tell.
        """
        before = self._stay
        self._stay = _Stay(before.step, phase, time.monotonic(), limit_seconds, needs_all)
        try:
            yield
        finally:
            limit = max(self._floor, before.limit_seconds)
            self._stay = _Stay(before.step, "step", time.monotonic(), limit)

    def begin_anew(self) -> None:
        """What was measured says nothing of the steps that come."""
        self._recent.clear()

    @property
    def is_overdue(self) -> bool:
        """Whether the main thread has been where it is for too long."""
        stay = self._stay
        return time.monotonic() - stay.since > stay.limit_seconds

    @property
    def needs_all(self) -> bool:
        """Whether the main thread does what needs all ranks to live."""
        return self._stay.needs_all

    def beat(self) -> Beat:
        """Where it is now."""
        stay = self._stay
        self._count += 1
        left = stay.since + stay.limit_seconds - time.monotonic()
        where, waits = self._place()
        return Beat(self._count, stay.step, stay.phase, round(left, 3), where, waits)

    def _place(self) -> tuple[str, bool]:
        frame = sys._current_frames().get(self._main or 0)
        if frame is None:
            return "", False
        path = frame.f_code.co_filename
        where = f"{'/'.join(path.split('/')[-2:])}:{frame.f_lineno} in {frame.f_code.co_name}"
        return where, any(part in path for part in _WAITING_IN)


def silent(before: Mapping[int, Beat], after: Mapping[int, Beat], ranks: int) -> list[int]:
    """Ranks that gave no sign of life in between, or never."""
    return [
        rank
        for rank in range(ranks)
        if rank not in after or (rank in before and after[rank].count < before[rank].count + 2)
    ]


def hung(quiet: list[int], beats: Mapping[int, Beat]) -> str | None:
    """Who holds up the others, as a sentence; None while somebody may still take longer.

    Args:
        quiet: Ranks that give no sign of life.
        beats: The last beat of each rank.
    """
    living = {rank: beat for rank, beat in beats.items() if rank not in quiet}
    if any(beat.left_seconds > 0 for beat in living.values()):
        return None
    if quiet:
        return " and ".join(
            f"rank {rank} gives no sign of life{_last_seen(beats.get(rank))}" for rank in quiet
        )
    behind = min(beat.step for beat in living.values())
    late = {rank: beat for rank, beat in living.items() if beat.step == behind}
    if len(late) == len(living) > 1:
        late = {rank: beat for rank, beat in living.items() if not beat.waits}
    if not 0 < len(late) < max(2, len(living)):
        places = {beat.where for beat in living.values()}
        return f"all ranks live and wait for each other in step {behind} ({'; '.join(places)})"
    return " and ".join(
        f"rank {rank} hangs in step {beat.step} ({beat.phase}), at {beat.where}"
        for rank, beat in late.items()
    )


def _last_seen(beat: Beat | None) -> str:
    return f", last in step {beat.step} ({beat.phase})" if beat is not None else ""
