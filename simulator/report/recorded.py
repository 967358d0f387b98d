"""Reads back what runs wrote: what the report shows follows from these files and nothing else."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulator.results.allocation_log import Happened

SWITCHING = frozenset({Happened.STARTED, Happened.CHANGED, Happened.STOPS})
"""What a job does that holds accelerators and makes no progress."""


@dataclass(frozen=True, slots=True)
class Told:
    """A row of the allocation log. Times are seconds.

    Attributes:
        at: When.
        job: Whom it is about; empty for a node.
        event: What happened.
        held: Accelerators by node.
        plan: Under which plan.
        speed: Steps a second.
    """

    at: float
    job: str
    event: Happened
    held: Mapping[str, int]
    plan: str
    speed: float


@dataclass(frozen=True, slots=True)
class Piece:
    """For how long a job held certain accelerators of a node.

    Attributes:
        job: The job.
        node: The node.
        lanes: Which of the node's accelerators, by their number in the picture.
        start: From when.
        end: Until when.
        plan: Under which plan.
        count: How many accelerators it held in all.
        trains: Whether it made progress.
    """

    job: str
    node: str
    lanes: tuple[int, ...]
    start: float
    end: float
    plan: str
    count: int
    trains: bool


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """One run as it was written.

    Attributes:
        summary: What ``summary.json`` says.
        jobs: The rows of ``jobs.csv``.
        rows: The rows of ``allocations.csv``.
    """

    summary: Mapping[str, Any]
    jobs: Sequence[Mapping[str, str]]
    rows: Sequence[Told]

    @property
    def policy(self) -> str:
        """Who decided."""
        return str(self.summary["policy"])

    @property
    def start(self) -> float:
        """When the first job was submitted."""
        return min((float(job["submitted"]) for job in self.jobs), default=0.0)

    @property
    def end(self) -> float:
        """When the last one had ended."""
        return max((float(job["ended"]) for job in self.jobs if job["ended"]), default=0.0)

    @property
    def nodes(self) -> dict[str, int]:
        """Accelerators of each node."""
        found: dict[str, int] = {}
        for row in self.rows:
            if row.event is Happened.NODE_ONLINE:
                found |= row.held
        return found

    def completion_seconds(self) -> list[float]:
        """Of all jobs that finished, ascending."""
        return sorted(float(job["completion"]) for job in self.jobs if job["completion"])


def read_run(folder: Path) -> RecordedRun:
    """The run that was written to ``folder``.

    Raises:
        OSError: Something of it is missing.
    """
    with (folder / "jobs.csv").open(encoding="utf-8", newline="") as opened:
        jobs = list(csv.DictReader(opened))
    with (folder / "allocations.csv").open(encoding="utf-8", newline="") as opened:
        rows = [_told(row) for row in csv.DictReader(opened)]
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return RecordedRun(summary, jobs, rows)


def _told(row: Mapping[str, str]) -> Told:
    parts = (part.rpartition(":") for part in row["accelerators"].split())
    return Told(
        at=float(row["time_s"]),
        job=row["job"],
        event=Happened(row["event"]),
        held={node: int(count) for node, _, count in parts},
        plan=row["plan"],
        speed=float(row["steps_per_second"]),
    )


class _Lanes:
    """Gives out a node's accelerators by number, lowest first. The log tells how many a job holds,
    not which: so the picture shows some that it may have held.
    """

    def __init__(self) -> None:
        self._free: dict[str, list[int]] = {}

    def comes(self, node: str, count: int) -> None:
        self._free[node] = list(range(count))

    def take(self, node: str, count: int) -> tuple[int, ...]:
        free = self._free.setdefault(node, [])
        taken, self._free[node] = free[:count], free[count:]
        return tuple(taken)

    def give_back(self, node: str, lanes: Sequence[int]) -> None:
        self._free[node] = sorted({*self._free.get(node, ()), *lanes})


def pieces(run: RecordedRun) -> Iterator[Piece]:
    """What each job held where, and for how long."""
    lanes = _Lanes()
    held: dict[str, tuple[Told, dict[str, tuple[int, ...]]]] = {}
    for row in run.rows:
        if not row.job:
            if row.event is Happened.NODE_ONLINE:
                for node, count in row.held.items():
                    lanes.comes(node, count)
            continue
        before, own = held.pop(row.job, (None, {}))
        if before is not None and row.at > before.at:
            yield from _pieces(before, own, row.at)
        then: dict[str, tuple[int, ...]] = {}
        for node, mine in own.items():
            kept = mine[: row.held.get(node, 0)]
            lanes.give_back(node, mine[len(kept) :])
            then[node] = kept
        for node, count in row.held.items():
            mine = then.get(node, ())
            then[node] = (*mine, *lanes.take(node, count - len(mine)))
        if row.held:
            held[row.job] = (row, then)
    for row, own in held.values():
        yield from _pieces(row, own, run.end)


def _pieces(row: Told, own: Mapping[str, tuple[int, ...]], end: float) -> Iterator[Piece]:
    count = sum(row.held.values())
    trains = row.event is Happened.TRAINS
    for node, lanes in own.items():
        if lanes:
            yield Piece(row.job, node, lanes, row.at, end, row.plan, count, trains)


def shares_over_time(run: RecordedRun, bins: int) -> list[tuple[float, float]]:
    """For each of ``bins`` equal stretches of the run: the share of all accelerators that was held,
    and the share that made progress.
    """
    start, end, total = run.start, run.end, sum(run.nodes.values())
    width = (end - start) / bins
    if width <= 0 or not total:
        return []
    held, good = [0.0] * bins, [0.0] * bins
    for piece in pieces(run):
        _spread(held, piece, start, width)
        if piece.trains:
            _spread(good, piece, start, width)
    whole = width * total
    return [(a / whole, b / whole) for a, b in zip(held, good, strict=True)]


def _spread(sums: list[float], piece: Piece, start: float, width: float) -> None:
    first = max(0, int((piece.start - start) / width))
    last = min(len(sums) - 1, int((piece.end - start) / width))
    for place in range(first, last + 1):
        low = max(piece.start, start + place * width)
        high = min(piece.end, start + (place + 1) * width)
        sums[place] += max(0.0, high - low) * len(piece.lanes)
