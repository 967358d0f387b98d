"""Keeps objects and jobs the same: looks at one key after the other, and takes the next step."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import structlog

from operators.clocks import Clocks
from operators.control_plane import AwayError, ControlPlane, RefusedError, TermOverError
from operators.kueue.controller import Kueue
from operators.runtime.api_server import CONFLICT, NOT_FOUND, ApiError, ApiServer
from operators.runtime.informer import Informer, Key
from operators.runtime.leadership import DeposedError
from operators.runtime.work_queue import WorkQueue
from operators.trainingjob.known_jobs import KnownJobs
from operators.trainingjob.notices import ABANDONED, Notice
from operators.trainingjob.reconcile import KnownJob, Step, is_over, next_step
from operators.trainingjob.status import Status, unreachable, with_accepted, with_refusal
from operators.trainingjob.status_writer import StatusWriter
from operators.trainingjob.training_job import (
    FINALIZER,
    TrainingJob,
    collection,
    training_job,
)

_STEPS_AT_ONCE = 4
_AWAY_TOLD_SECONDS = 5.0
"""A control plane that is only restarted is no news to anybody."""
_LOOK_AGAIN_SECONDS = 30.0
_LONGEST_TIMER_SECONDS = 3600.0
_AWAY = "the control plane does not answer; it is tried again"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the control plane said of a generation of an object."""

    generation: int
    why: str


class TrainingJobController:
    """All ``TrainingJob`` objects of some namespaces."""

    def __init__(
        self,
        server: ApiServer,
        control_plane: ControlPlane,
        *,
        namespaces: Sequence[str],
        instance: str,
        clocks: Clocks,
        workers: int,
        kueue_resource: str = "",
    ) -> None:
        """Asks nobody yet.

        Args:
            server: Where the objects are.
            control_plane: Where the jobs are.
            namespaces: Which ones; empty for all.
            instance: This replica's name, for events.
            clocks: What time it is.
            workers: Keys that are looked at at the same time.
            kueue_resource: What Kueue calls an accelerator; empty where nobody asks Kueue.
        """
        self._server = server
        self._control_plane = control_plane
        self._namespaces = frozenset(namespaces)
        self._clocks = clocks
        self._workers = workers
        self.queue: WorkQueue[Key] = WorkQueue()
        paths = [collection(each) for each in sorted(self._namespaces)] or [collection()]
        self.objects = Informer(server, paths, training_job, self._object_changed)
        self.jobs = KnownJobs(control_plane, self._job_changed)
        self.jobs.back = self._look_at_all
        self.writer = StatusWriter(server, self.objects, self.queue, clocks, instance)
        self._kueue = (
            Kueue(
                server,
                clocks,
                namespaces=sorted(self._namespaces),
                resource=kueue_resource,
                heard=self.queue.add,
                found_out=self._look_at_all,
            )
            if kueue_resource
            else None
        )
        self._refused: dict[str, Refusal] = {}
        self._away_since: float | None = None

    async def run(self) -> None:
        """Reconciles, for ever.

        Raises:
            TermOverError, DeposedError: Another replica leads.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.objects.run())
                if self._kueue is not None:
                    group.create_task(self._kueue.run())
                group.create_task(self._look_for_orphans())
                group.create_task(self.jobs.run())
                group.create_task(self.writer.run())
                group.create_task(self.queue.run(self._look, self._workers))
        finally:
            self.queue.close()

    def _object_changed(
        self, key: Key, before: TrainingJob | None, now: TrainingJob | None
    ) -> None:
        if before is not None and (now is None or now.uid != before.uid):
            self._refused.pop(before.uid, None)
            self.writer.forget(key)
        self.queue.add(key)

    def _job_changed(self, job: KnownJob) -> None:
        key = (job.namespace, job.name)
        if not job.of_kubernetes:
            # Its name may be free now, which was the reason to refuse an object.
            found = self.objects.objects.get(key)
            if found is None:
                return
            self._refused.pop(found.uid, None)
        self.queue.add(key)

    def _look_at_all(self) -> None:
        """The control plane is heard again."""
        self._away_since = None
        for job in self.jobs.jobs.values():
            if job.of_kubernetes:
                self.queue.add((job.namespace, job.name))
        for key in self.objects.objects:
            self.queue.add(key)

    async def _look_for_orphans(self) -> None:
        """Once all objects are listed: jobs that came before may have none."""
        await self.objects.synced.wait()
        self._look_at_all()

    async def _look(self, key: Key) -> None:
        try:
            await self._reconcile(key)
        except AwayError as error:
            log.info("the control plane is away", job="/".join(key), why=str(error))
            self.queue.retry(key)
        except ApiError as error:
            if error.status not in (CONFLICT, NOT_FOUND):
                log.warning("not reconciled yet", job="/".join(key), why=str(error))
            self.queue.retry(key)
        except RefusedError as error:
            log.error("the control plane refuses what must be", job="/".join(key), why=str(error))
            self.queue.retry(key)
        except (DeposedError, TermOverError):
            raise
        except Exception as error:
            # One object that nobody thought of must not keep the others waiting.
            log.error("not reconciled", job="/".join(key), exc_info=error)
            self.queue.retry(key)
        else:
            self.queue.succeeded(key)

    async def _reconcile(self, key: Key) -> None:
        found = self.objects.objects.get(key)
        for job in self.jobs.named(key):
            if found is None or job.uid != found.uid:
                await self._take(next_step(None, job, knows_all_jobs=True), None, job)
        for _ in range(_STEPS_AT_ONCE):
            found = self.objects.objects.get(key)
            if found is None:
                return
            known = self.jobs.jobs.get(found.uid)
            if self._kueue is not None and self._kueue.manages(found):
                if not self._kueue.known:
                    return  # It is looked at again as soon as that is known.
                changed = await self._kueue.step(found, known)
                if changed is not None:
                    self.objects.note(changed)
                    continue
            step = next_step(
                found,
                known,
                knows_all_jobs=self.jobs.complete and self.objects.synced.is_set(),
                refused_generation=self._refused_generation(found),
            )
            if step in (Step.SUBMIT, Step.WITHDRAW) and self.jobs.trouble:
                step = Step.NOTHING  # It is looked at again when the control plane is back.
            if step is Step.NOTHING:
                break
            await self._take(step, found, known)
        if found is not None and not found.is_going:
            await self._tell(found)
            await self._tell_kueue_of_the_end(found.key)
        elif found is not None and found.has_finalizer:
            await self._check_hope(found)

    async def _tell_kueue_of_the_end(self, key: Key) -> None:
        """What our own write of the status says is no news to our watch, but to Kueue."""
        found = self.objects.objects.get(key)
        if found is None or self._kueue is None or not self._kueue.manages(found):
            return
        if is_over(found):
            await self._kueue.step(found, self.jobs.jobs.get(found.uid))

    async def _check_hope(self, found: TrainingJob) -> None:
        """Of a job that it was to be told of, and is not, the watch may never tell again."""
        known = self.jobs.jobs.get(found.uid)
        if known is None or not known.withdrawn or known.status_json or self.jobs.trouble:
            return
        if await self._control_plane.knows(found.uid):
            self.queue.add_after(found.key, _LOOK_AGAIN_SECONDS)
        else:
            self.jobs.drop(found.uid)

    def _refused_generation(self, found: TrainingJob) -> int:
        refusal = self._refused.get(found.uid)
        return refusal.generation if refusal is not None else 0

    async def _take(self, step: Step, found: TrainingJob | None, job: KnownJob | None) -> None:
        if step is Step.WITHDRAW_IF_OBJECT_IS_GONE and job is not None:
            await self._withdraw_orphan(job)
        if found is None:
            return
        if step is Step.PUT_FINALIZER:
            await self._set_finalizers(found, (*found.finalizers, FINALIZER))
        elif step is Step.SUBMIT:
            await self._submit(found)
        elif step is Step.WITHDRAW and job is not None:
            await self._control_plane.withdraw(job.uid)
            self.jobs.expect(replace(job, withdrawn=True))
        elif step is Step.MAKE_SURE_IT_IS_FORGOTTEN:
            if not await self._control_plane.knows(found.uid):
                await self._let_go(found)
            else:
                # It is known after all; the watch has still to tell.
                self.queue.add_after(found.key, _LOOK_AGAIN_SECONDS)
        elif step is Step.LET_GO:
            note = "it goes without the control plane's word; what ran for it may run on"
            await self.writer.tell(found, Notice(ABANDONED, note, "LetGo", warns=True), "abandoned")
            await self._let_go(found)

    async def _submit(self, found: TrainingJob) -> None:
        try:
            manifest = found.manifest_json if self._kueue is None else self._kueue.manifest(found)
            await self._control_plane.submit(found.uid, found.generation, manifest)
        except RefusedError as error:
            log.info("refused", job="/".join(found.key), uid=found.uid, why=str(error))
            self._refused[found.uid] = Refusal(found.generation, str(error))
            return
        self._refused.pop(found.uid, None)
        self.jobs.expect(KnownJob(found.uid, *found.key, found.generation, of_kubernetes=True))

    async def _withdraw_orphan(self, job: KnownJob) -> None:
        """Its object is not known here, which the API server itself has to confirm: our watch may
        be behind that of a replica that has just submitted it.
        """
        mine = not self._namespaces or job.namespace in self._namespaces
        if not mine or not self.objects.synced.is_set() or self.jobs.trouble:
            return
        path = f"{collection(job.namespace)}/{job.name}"
        try:
            there = training_job(await self._server.get(path))
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
        else:
            if there.uid == job.uid:
                self.queue.add_after(there.key, _LOOK_AGAIN_SECONDS)
                return
        log.warning("a job without its object is withdrawn", job=job.name, uid=job.uid)
        await self._control_plane.withdraw(job.uid)
        self.jobs.expect(replace(job, withdrawn=True))

    async def _set_finalizers(self, found: TrainingJob, finalizers: Sequence[str]) -> None:
        """Strictly: only if nobody changed the object since it was read."""
        metadata = {
            "uid": found.uid,
            "resourceVersion": str(found.version),
            "finalizers": list(finalizers),
        }
        self.objects.note(await self._server.merge(found.path, {"metadata": metadata}))

    async def _let_go(self, found: TrainingJob) -> None:
        rest = [each for each in found.finalizers if each != FINALIZER]
        try:
            await self._set_finalizers(found, rest)
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise

    async def _tell(self, found: TrainingJob) -> None:
        """The status, and what follows from it."""
        job = self.jobs.jobs.get(found.uid)
        status = self._status(found, job)
        if status is not None:
            await self.writer.write(found, status)
        if job is not None and job.finished_at and found.ttl_seconds is not None:
            left = job.finished_at + found.ttl_seconds - self._clocks.wall()
            if left <= 0:
                log.info("its time to live is over", job="/".join(found.key), uid=found.uid)
                await self._server.delete(found.path, found.uid)
            else:
                self.queue.add_after(found.key, min(left, _LONGEST_TIMER_SECONDS))

    def _status(self, found: TrainingJob, job: KnownJob | None) -> Status | None:
        """What it should be; None while nobody knows."""
        if not found.is_ours:
            return None
        status: Status | None = json.loads(job.status_json) if job and job.status_json else None
        refusal = self._refused.get(found.uid)
        if refusal is not None and refusal.generation == found.generation:
            return with_refusal(status, found, refusal.why)
        if job is not None and job.generation >= found.generation:
            return with_accepted(status, found) if status is not None else None
        if not self.jobs.trouble or (job is None and is_over(found)):
            return None
        now = self._clocks.monotonic()
        self._away_since = self._away_since if self._away_since is not None else now
        if now - self._away_since < _AWAY_TOLD_SECONDS:
            self.queue.add_after(found.key, _AWAY_TOLD_SECONDS)
            return None
        return unreachable(status, found, _AWAY)
