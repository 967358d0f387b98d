"""What the demo tells of forecasts: when each job was said to end, and when it did. Pure.

A cluster that has just begun has no outcomes to calibrate by, so its intervals promise nothing yet.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from headrace.api.generated import admin_pb2
from headrace.cli.tables import Column, age

COLUMNS = (
    Column("JOB", gives_way=1),
    Column("TOLD AT ITS"),
    Column("TO END"),
    Column("ENDED", right=True),
    Column("WITHIN"),
    Column("OFF", right=True),
)


def how_they_did(
    outcomes: Sequence[admin_pb2.ForecastOutcome], names: Mapping[str, str]
) -> list[list[str]]:
    """Rows of the table, in the order in which the jobs ended.

    Args:
        outcomes: What came true.
        names: Of the jobs that are told of, by uid.
    """
    told = [each for each in outcomes if each.uid in names]
    return [
        [
            names[each.uid],
            "start" if each.started else "submission",
            f"{_clock(each.end.low)} to {_clock(each.end.high)}",
            _clock(each.ended_at),
            "yes" if each.end.low <= each.ended_at <= each.end.high else "no",
            _off(each.ended_at - each.end.median),
        ]
        for each in sorted(told, key=lambda each: (each.ended_at, each.started))
    ]


def introduction(outcomes: Sequence[admin_pb2.ForecastOutcome]) -> str:
    """The sentence above the table."""
    missing = max((each.end.outcomes_missing for each in outcomes), default=0)
    told = (
        "what was told of ends, and what came true (`headrace coverage` counts that over time): "
        "OFF is by how much the middle was missed"
    )
    if missing:
        told += (
            ". Nothing was promised yet: intervals are calibrated by what came true before, and "
            f"{missing} more outcomes are wanted for that"
        )
    return told


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%H:%M:%S")


def _off(seconds: float) -> str:
    if abs(seconds) < 0.5:
        return "-"
    return f"{age(abs(seconds))} {'late' if seconds > 0 else 'early'}"
