"""What the demo tells of forecasts at its end."""

from headrace.api.generated import admin_pb2
from headrace.cli.demo_forecasts import COLUMNS, how_they_did, introduction


def outcome(
    uid: str, ended_at: float, *, started: bool, missing: int = 0
) -> admin_pb2.ForecastOutcome:
    """It was said to end between 1000 and 1060 s after 1970, about at 1020."""
    told = admin_pb2.ForecastOutcome(uid=uid, started=started, ended_at=ended_at)
    told.end.low, told.end.median, told.end.high = 1000.0, 1020.0, 1060.0
    told.end.outcomes_missing = missing
    return told


def test_what_was_told_stands_beside_what_came_true() -> None:
    rows = how_they_did(
        [
            outcome("b", 1075.0, started=True),
            outcome("a", 1020.2, started=True),
            outcome("a", 1020.2, started=False),
            outcome("stranger", 1000.0, started=True),
        ],
        {"a": "gpt", "b": "vit"},
    )
    assert [(row[0], row[1], *row[4:]) for row in rows] == [
        ("gpt", "submission", "yes", "-"),
        ("gpt", "start", "yes", "-"),
        ("vit", "start", "no", "55s late"),
    ]
    assert all(len(row) == len(COLUMNS) for row in rows)


def test_an_end_before_its_interval_is_early() -> None:
    (row,) = how_they_did([outcome("a", 990.0, started=True)], {"a": "gpt"})
    assert row[4:] == ["no", "30s early"]


def test_what_is_not_calibrated_promises_nothing_and_says_what_is_missing() -> None:
    missing = [outcome("a", 990.0, started=True, missing=18)]
    assert "18 more outcomes are wanted" in introduction(missing)
    assert "promised" not in introduction([outcome("a", 990.0, started=True)])
