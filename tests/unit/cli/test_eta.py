"""The ETA column: an interval with a coverage, else the pace, else nothing."""

import pytest

from headrace.api.generated import jobs_pb2
from headrace.cli.views import eta


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


def test_an_estimate_is_an_interval() -> None:
    job = a_job()
    job.status.end.low, job.status.end.high, job.status.end.coverage = 1100.0, 1220.0, 0.9
    assert eta(job, now=1000.0) == "100s-3m"
    job.status.finished_at.seconds = 1
    assert eta(job, now=1000.0) == "-"
