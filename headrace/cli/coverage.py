"""``headrace coverage``: how often predicted ends came true, against what was promised.

Counted are the first prediction after a job's submission and the first after its start, of jobs
that succeeded. Those that were made before there were outcomes enough to calibrate them promise
nothing, so they are told apart.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import sqrt
from pathlib import Path
from statistics import median
from typing import Any

from headrace.api.generated import admin_pb2
from headrace.cli.coverage_plot import Day, plotted
from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.cli.output import Format, document, note, say, table
from headrace.cli.session import Session
from headrace.cli.tables import Column, age

AT_SUBMISSION, AT_START = "submission", "start"
_SURE = 1.96
"""Standard deviations to each side that hold 95 % of a normal distribution."""

_COLUMNS = (
    Column("AT"),
    Column("OF", gives_way=1),
    Column("JOBS", right=True),
    Column("AIM", right=True),
    Column("REACHED", right=True),
    Column("SURELY", right=True),
    Column("EARLY", right=True),
    Column("LATE", right=True),
    Column("WIDTH", right=True),
)

Outcome = admin_pb2.ForecastOutcome


@dataclass(frozen=True, slots=True)
class Coverage:
    """How a group of predictions did.

    Attributes:
        when: When they were made: at submission or at start.
        group: Of which queue, type of accelerator or day.
        jobs: How many are counted.
        promised: Share that should have come true.
        reached: Share that did.
        between: Where the share may well lie in the long run (Wilson, 95 %).
        early: Share of ends before their intervals.
        late: Share of those after them.
        width_seconds: Median length of the intervals.
    """

    when: str
    group: str
    jobs: int
    promised: float
    reached: float
    between: tuple[float, float]
    early: float
    late: float
    width_seconds: float

    @classmethod
    def of(cls, when: str, group: str, outcomes: Sequence[Outcome]) -> "Coverage":
        """Of one outcome or more."""
        count = len(outcomes)
        early = sum(each.ended_at < each.end.low for each in outcomes)
        late = sum(each.ended_at > each.end.high for each in outcomes)
        reached = 1.0 - (early + late) / count
        return cls(
            when,
            group,
            count,
            sum(each.end.coverage for each in outcomes) / count,
            reached,
            between(reached, count),
            early / count,
            late / count,
            median(each.end.high - each.end.low for each in outcomes),
        )

    def row(self) -> list[str]:
        """As a row of the table."""
        low, high = self.between
        return [
            self.when,
            self.group,
            str(self.jobs),
            _percent(self.promised),
            _percent(self.reached),
            f"{100 * low:.0f}-{_percent(high)}",
            _percent(self.early),
            _percent(self.late),
            age(self.width_seconds),
        ]

    def told(self) -> dict[str, Any]:
        """As a document."""
        return {
            "predicted": self.when,
            "of": self.group,
            "jobs": self.jobs,
            "promised": self.promised,
            "reached": self.reached,
            "between": list(self.between),
            "early": self.early,
            "late": self.late,
            "widthSeconds": self.width_seconds,
        }


def between(share: float, count: int) -> tuple[float, float]:
    """The share that a sample of so many may be of, with 95 %: Wilson's interval."""
    spread = _SURE**2 / count
    middle = (share + spread / 2.0) / (1.0 + spread)
    half = _SURE * sqrt(share * (1.0 - share) / count + spread / (4.0 * count)) / (1.0 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def is_counted(outcome: Outcome) -> bool:
    """Whether a calibrated end was predicted, and the job succeeded."""
    calibrated = outcome.HasField("end") and not outcome.end.outcomes_missing
    return outcome.stage == "Succeeded" and calibrated


def grouped(outcomes: Iterable[Outcome], by: Callable[[Outcome], str]) -> list[Coverage]:
    """The coverage of each group of those that are counted, groups in their order."""
    found: dict[tuple[bool, str], list[Outcome]] = {}
    for each in outcomes:
        if is_counted(each):
            found.setdefault((each.started, by(each)), []).append(each)
    return [
        Coverage.of(AT_START if started else AT_SUBMISSION, group, found[started, group])
        for started, group in sorted(found)
    ]


def day(outcome: Outcome) -> str:
    """The day on which a job ended, by this machine's clock."""
    return datetime.fromtimestamp(outcome.ended_at, UTC).astimezone().strftime("%Y-%m-%d")


_SECTIONS: Mapping[str, Callable[[Outcome], str]] = {
    "all": lambda _: "all",
    "queue": lambda each: f"queue {each.queue}",
    "type": lambda each: each.accelerator_type or "-",
    "day": day,
}


def coverage(session: Session, output: Format, plot: Path | None) -> None:
    """Prints how predictions did, in all, by queue, by type of accelerator and by day.

    Raises:
        CommandError: The picture cannot be written.
    """
    with session.client() as client:
        outcomes = client.forecast_outcomes()
    found = {name: grouped(outcomes, by) for name, by in _SECTIONS.items()}
    if output in (Format.JSON, Format.YAML):
        document({name: [each.told() for each in rows] for name, rows in found.items()}, output)
    else:
        _print(found, outcomes, output)
    if plot is not None:
        _draw(found["day"], plot)


def _print(
    found: Mapping[str, list[Coverage]], outcomes: Sequence[Outcome], output: Format
) -> None:
    everything = [row.row() for name in _SECTIONS for row in _worth_a_row(name, found)]
    if everything:
        table(_COLUMNS, everything, wide=output is Format.WIDE)
        say()
        say("At: when it was predicted. Aim: share of ends that should be within. Surely:")
        say("where it may lie in the long run. Early, late: before, after. Width: median.")
    for sentence in _left_out(outcomes):
        note(sentence)


def _worth_a_row(name: str, found: Mapping[str, list[Coverage]]) -> list[Coverage]:
    """Groups that say something that "all" does not."""
    rows = found[name]
    return rows if name == "all" or len({row.group for row in rows}) > 1 else []


def _left_out(outcomes: Sequence[Outcome]) -> list[str]:
    """What is not in the table, a sentence each."""
    if not outcomes:
        return ["no job that was predicted has ended yet"]
    failed = sum(each.stage != "Succeeded" for each in outcomes)
    early = sum(each.stage == "Succeeded" and not is_counted(each) for each in outcomes)
    told = []
    if early:
        told.append(f"{early} predictions were made before they were calibrated: not counted")
    if failed:
        told.append(f"{failed} were of jobs that failed, which nobody predicts: not counted")
    return told


def _draw(days: Sequence[Coverage], path: Path) -> None:
    if not days:
        raise CommandError(ExitCode.NOT_FOUND, "there is nothing to draw yet: nothing is counted")
    points = [
        Day(each.when, each.group, each.promised, each.reached, each.between, each.jobs)
        for each in days
    ]
    try:
        path.write_text(plotted(points), encoding="utf-8")
    except OSError as error:
        raise CommandError(ExitCode.FAILED, f"{path}: {error.strerror}") from error
    note(f"{path} was written")


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"
