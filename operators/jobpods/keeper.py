"""Makes the pods that jobs should have, and removes those that they should not."""

from collections.abc import Callable, Sequence

import structlog

from operators.jobpods.pod import Condition, JobPod, job_pod, readiness
from operators.jobpods.settings import PodSettings
from operators.jobpods.wanted import SELECTOR, wanted_pods, wants_pods
from operators.runtime.api_server import CONFLICT, NOT_FOUND, ApiError, ApiServer
from operators.runtime.informer import Informer, Key
from operators.trainingjob.reconcile import KnownJob
from operators.trainingjob.training_job import TrainingJob

log = structlog.get_logger(__name__)


class JobPodKeeper:
    """The pods of all jobs."""

    def __init__(
        self,
        server: ApiServer,
        namespaces: Sequence[str],
        settings: PodSettings,
        heard: Callable[[Key], None],
    ) -> None:
        """Asks nobody yet.

        Args:
            server: Where pods are.
            namespaces: Whose; empty for all.
            settings: How they are made.
            heard: Told of the key of each job with a pod that changed.
        """
        self._server = server
        self._settings = settings
        self._heard = heard
        self._of_job: dict[str, dict[str, JobPod]] = {}
        paths = [_collection(each) for each in sorted(namespaces)] or ["/api/v1/pods"]
        self.pods = Informer(server, paths, job_pod, self._changed, SELECTOR)

    def wants_pods(self, manifest_json: str) -> bool:
        """Whether a job runs in pods of its own."""
        return wants_pods(manifest_json, self._settings)

    def _changed(self, key: Key, before: JobPod | None, now: JobPod | None) -> None:
        if before is not None:
            mine = self._of_job.get(before.job_uid, {})
            mine.pop(before.name, None)
            if not mine:
                self._of_job.pop(before.job_uid, None)
        if now is not None:
            self._of_job.setdefault(now.job_uid, {})[now.name] = now
        about = now or before
        if about is not None and about.job:
            self._heard((about.namespace, about.job))

    async def reconcile(self, found: TrainingJob, job: KnownJob | None) -> None:
        """Takes the next steps for one job, as far as what there is is known.

        Args:
            found: Its object.
            job: What the control plane says of it; None if it does not know it.

        Raises:
            ApiError: The API server refused, or could not be reached.
        """
        if not self.pods.synced.is_set():
            return
        wanted = wanted_pods(found, job, self._settings)
        there = dict(self._of_job.get(found.uid, {}))
        for name, pod in there.items():
            if name not in wanted and not pod.is_going:
                await self._remove(pod)
        for name, document in wanted.items():
            if name not in there:
                await self._make(found, name, document)

    async def _make(self, found: TrainingJob, name: str, document: dict[str, object]) -> None:
        try:
            made = await self._server.create(_collection(found.namespace), document)
        except ApiError as error:
            # It was made by whoever led before, and the watch has still to tell.
            if error.status != CONFLICT:
                raise
            return
        log.info("job pod made", job="/".join(found.key), pod=name)
        self._of_job.setdefault(found.uid, {}).setdefault(name, job_pod(made))

    async def _remove(self, pod: JobPod) -> None:
        log.info("job pod removed", pod="/".join(pod.key), job=pod.job)
        try:
            await self._server.delete(f"{_collection(pod.namespace)}/{pod.name}", pod.uid)
        except ApiError as error:
            if error.status not in (NOT_FOUND, CONFLICT):
                raise

    def condition(self, found: TrainingJob, job: KnownJob | None) -> Condition | None:
        """How it is with a job's pods; None while it should have none."""
        wanted = wanted_pods(found, job, self._settings)
        if not wanted:
            return None
        return readiness(wanted, self._of_job.get(found.uid, {}), found.generation)


def _collection(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"
