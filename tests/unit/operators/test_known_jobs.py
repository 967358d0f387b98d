"""What is known of jobs: what a call of our own did may be taken in after the watch told more."""

from headrace.api.generated import jobs_pb2
from operators.control_plane import ControlPlane
from operators.trainingjob.known_jobs import KnownJobs, known_job
from operators.trainingjob.reconcile import KnownJob

JOB = jobs_pb2.Job(uid="uid", namespace="ns", name="train", generation=1, owner="Kubernetes")


def known() -> KnownJobs:
    """Nobody is asked."""
    jobs = KnownJobs(ControlPlane("127.0.0.1:1", None, "test"), lambda _: None)
    jobs._take(answer(jobs_pb2.WatchJobsResponse.KIND_PRESENT))
    return jobs


def answer(kind: "jobs_pb2.WatchJobsResponse.Kind") -> jobs_pb2.WatchJobsResponse:
    return jobs_pb2.WatchJobsResponse(kind=kind, job=JOB, version=1)


def withdrawn() -> KnownJob:
    job = known_job(JOB)
    return KnownJob(job.uid, job.namespace, job.name, 1, of_kubernetes=True, withdrawn=True)


def test_a_job_that_was_forgotten_while_it_was_withdrawn_is_not_known_again() -> None:
    jobs = known()
    jobs._take(answer(jobs_pb2.WatchJobsResponse.KIND_GONE))
    jobs.expect(withdrawn())
    assert jobs.jobs == {}
    assert jobs.named(("ns", "train")) == []


def test_a_withdrawal_counts_before_the_watch_tells_of_it() -> None:
    jobs = known()
    jobs.expect(withdrawn())
    assert jobs.jobs["uid"].withdrawn
    assert jobs.jobs["uid"].status_json
