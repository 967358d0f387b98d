"""The ETA column: an interval with a coverage, else the pace, else nothing."""

import time

import pytest

from headrace.api.generated import jobs_pb2
from headrace.cli.estimates import coverage, ends, eta, starts


def a_job(stage: str = "Running", step: int = 40, step_seconds: float = 0.5) -> jobs_pb2.Job:
    job = jobs_pb2.Job()
    job.status.stage = stage
    job.status.progress.step = step
    job.status.progress.steps_total = 100
    job.status.progress.step_seconds = step_seconds
    return job


def test_without_an_estimate_the_pace_is_marked_as_such() -> None:
    assert eta(a_job(), now=0.0) == "~30s"


@pytest.mark.parametrize(
    "job", [a_job("Queued"), a_job(step=100), a_job(step_seconds=0.0)], ids=["waits", "done", "new"]
)
def test_without_a_pace_nothing_is_said(job: jobs_pb2.Job) -> None:
    assert eta(job, now=0.0) == "-"


def at(hour: int, minute: int, day: int = 27) -> float:
    """Seconds since 1970 of a time on this machine's clock."""
    return time.mktime((2026, 11, day, hour, minute, 0, 0, 0, -1))


NOW = at(14, 0)


def estimated(low: float, high: float, *, missing: int = 0, made: float = NOW) -> jobs_pb2.Job:
    job = a_job()
    for estimate in (job.status.end, job.status.start):
        estimate.low, estimate.high, estimate.coverage = low, high, 0.9
        estimate.outcomes_missing = missing
        estimate.made_at.seconds = int(made)
    return job


@pytest.mark.parametrize(
    ("job", "shown"),
    [
        (estimated(at(14, 5), at(14, 20)), "14:05-14:20"),
        (estimated(at(14, 5), at(14, 5)), "14:05"),
        (estimated(at(13, 0), at(14, 20)), "14:00-14:20"),
        (estimated(at(14, 5), at(2, 0, 28)), "14:05-Sat 02:00"),
        (estimated(at(14, 5, 28), at(14, 5, 30) + 20 * 86400), "Sat 14:05-12-20"),
        (estimated(at(14, 5), at(14, 20), missing=3), "~14:05-14:20"),
        (estimated(at(14, 5), at(14, 20), made=NOW - 601), "~14:05-14:20"),
        (estimated(at(13, 5), at(13, 50)), "late 10m"),
        (estimated(at(13, 5), at(13, 50), missing=3), "~late 10m"),
    ],
)
def test_an_estimate_is_an_interval_by_the_clock(job: jobs_pb2.Job, shown: str) -> None:
    assert eta(job, NOW) == starts(job, NOW) == shown
    job.status.finished_at.seconds = 1
    assert eta(job, NOW) == "-"


def test_it_is_told_with_its_coverage_and_its_age() -> None:
    job = estimated(at(14, 5), at(14, 20), made=NOW - 12)
    assert ends(job, NOW) == "done 14:05 to 14:20 (90 %), predicted 12s ago"
    assert coverage(job) == "90%"
    late = ends(job, at(14, 30))
    assert late == "done 14:20 (90 %), predicted 30m ago; it is 10m past that"


def test_what_is_not_calibrated_tells_what_is_missing() -> None:
    job = estimated(at(14, 5), at(14, 20), missing=7)
    told_ = (
        "done 14:05 to 14:20 (not calibrated for 90 % yet: 7 outcomes missing), predicted 0s ago"
    )
    assert ends(job, NOW) == told_
    assert coverage(job) == "-"
    assert ends(a_job(), NOW) == "~30s"
