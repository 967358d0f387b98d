"""All jobs of the control plane, as its watch tells of them."""

import json
from collections.abc import Callable
from dataclasses import replace

import structlog

from headrace.api.generated import jobs_pb2
from operators.control_plane import AwayError, ControlPlane, OutdatedError, RefusedError
from operators.runtime.api_server import pause
from operators.trainingjob.reconcile import KnownJob
from operators.trainingjob.status import status_of_job
from operators.trainingjob.training_job import KUEUE_QUEUE, canonical

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0
_KUBERNETES = "Kubernetes"
_AWAY = "the control plane is away"

log = structlog.get_logger(__name__)


def known_job(job: jobs_pb2.Job) -> KnownJob:
    """What is kept of a job."""
    of_kubernetes = job.owner == _KUBERNETES
    return KnownJob(
        uid=job.uid,
        namespace=job.namespace,
        name=job.name,
        generation=job.generation,
        of_kubernetes=of_kubernetes,
        withdrawn=job.status.withdrawn,
        finished_at=job.status.finished_at.seconds + job.status.finished_at.nanos / 1e9,
        priority=job.priority,
        status_json=canonical(status_of_job(job)) if of_kubernetes else "",
        kueue_most=_kueue_most(job),
    )


def _kueue_most(job: jobs_pb2.Job) -> int:
    # Few jobs are of Kueue, and to read every manifest again with every change would cost.
    if KUEUE_QUEUE not in job.manifest_json:
        return 0
    wanted = json.loads(job.manifest_json)["spec"].get("accelerators") or {}
    return int(wanted.get("maximum") or wanted.get("minimum", 1))


class KnownJobs:
    """The jobs by uid."""

    def __init__(self, control_plane: ControlPlane, heard: Callable[[KnownJob], None]) -> None:
        """Asks nobody yet.

        Args:
            control_plane: Who knows the jobs.
            heard: Told of each job that is new, changed or gone, before or after.
        """
        self._control_plane = control_plane
        self._heard = heard
        self._version = 0
        self._unseen: set[str] = set()
        self.jobs: dict[str, KnownJob] = {}
        self._named: dict[tuple[str, str], set[str]] = {}
        self.complete = False
        """Whether all jobs are told, so that who is not here is not known."""
        self.back: Callable[[], None] = lambda: None
        """Called when the control plane is heard again, and when all jobs are told."""
        self.trouble = "the control plane was not asked yet"
        """Why nothing is heard now; empty while it is."""

    async def run(self) -> None:
        """Watches, for ever.

        Raises:
            TermOverError: Another replica of the operator acts.
        """
        wait = _FIRST_PAUSE_SECONDS
        while True:
            try:
                async for answer in self._control_plane.watch_jobs(self._version):
                    self._take(answer)
                    wait = _FIRST_PAUSE_SECONDS
            except OutdatedError as error:
                log.info("the control plane tells of all jobs anew", why=str(error))
                self._version, self._unseen = 0, set(self.jobs)
            except (AwayError, RefusedError) as error:
                # A refusal passes too: certificates and roles are mended while this runs.
                if str(error) != self.trouble:
                    refused = isinstance(error, RefusedError)
                    said = "the control plane refuses the operator" if refused else _AWAY
                    log.warning(said, why=str(error))
                self.trouble = str(error)
                await pause(wait)
                wait = min(2 * wait, _LONGEST_PAUSE_SECONDS)

    def _take(self, answer: jobs_pb2.WatchJobsResponse) -> None:
        was_away, self.trouble = bool(self.trouble), ""
        if was_away and self.complete:
            self.back()
        if answer.kind == jobs_pb2.WatchJobsResponse.KIND_PRESENT:
            job = known_job(answer.job)
            self._unseen.discard(job.uid)
            self._put(job)
            self._heard(job)
        elif answer.kind == jobs_pb2.WatchJobsResponse.KIND_GONE:
            self._gone(answer.job.uid)
        elif answer.kind == jobs_pb2.WatchJobsResponse.KIND_SYNCED:
            # A control plane with another store tells of none of those that it does not have.
            for uid in self._unseen:
                self._gone(uid)
            self._unseen = set()
            if not self.complete:
                self.complete = True
                self.back()
        self._version = max(self._version, answer.version)

    def drop(self, uid: str) -> None:
        """The control plane was asked, and does not know it."""
        self._gone(uid)

    def _gone(self, uid: str) -> None:
        job = self.jobs.pop(uid, None)
        if job is not None:
            same_name = self._named[job.namespace, job.name]
            same_name.discard(uid)
            if not same_name:
                del self._named[job.namespace, job.name]
            self._heard(job)

    def _put(self, job: KnownJob) -> None:
        self.jobs[job.uid] = job
        self._named.setdefault((job.namespace, job.name), set()).add(job.uid)

    def named(self, key: tuple[str, str]) -> list[KnownJob]:
        """Jobs of that namespace and name; there may be several while the older ones go."""
        return [self.jobs[uid] for uid in self._named.get(key, ())]

    def expect(self, job: KnownJob) -> None:
        """Takes in what a call of our own did, ahead of the watch."""
        known = self.jobs.get(job.uid)
        if job.withdrawn:
            # Who is not known any more was forgotten while the call was answered.
            if known is not None and not known.withdrawn:
                self._put(replace(known, withdrawn=True))
        elif known is None or known.generation < job.generation:
            self._put(job)
