"""Kueue, where it is installed: its Workloads, and the steps that it asks for."""

import asyncio
import json
from collections.abc import Callable, Sequence

import structlog

from operators.clocks import Clocks
from operators.kueue.handshake import Move, next_move
from operators.kueue.workload import (
    GROUP,
    VERSIONS,
    Workload,
    asked_by,
    finished,
    not_ready,
    ready,
    released,
    workload,
    workload_document,
)
from operators.runtime.api_server import CONFLICT, NOT_FOUND, ApiError, ApiServer, pause
from operators.runtime.informer import Informer, Key
from operators.trainingjob.reconcile import KnownJob
from operators.trainingjob.status import condition, holds
from operators.trainingjob.training_job import TrainingJob, canonical

LOOK_AGAIN_SECONDS = 60.0
_PAUSE_SECONDS = 1.0

log = structlog.get_logger(__name__)


class Kueue:
    """The hand-shake with one Kueue."""

    def __init__(
        self,
        server: ApiServer,
        clocks: Clocks,
        *,
        namespaces: Sequence[str],
        resource: str,
        heard: Callable[[Key], None],
        found_out: Callable[[], None],
    ) -> None:
        """Asks nobody yet.

        Args:
            server: Where its objects are.
            clocks: What time it is.
            namespaces: Whose; empty for all.
            resource: What Kubernetes calls an accelerator.
            heard: Told of each ``TrainingJob`` whose Workload changed.
            found_out: Called once it is known whether there is a Kueue, and all is listed.
        """
        self._server = server
        self._clocks = clocks
        self._namespaces = namespaces
        self._resource = resource
        self._heard = heard
        self._found_out = found_out
        self._version = ""
        self._objects: Informer[Workload] | None = None
        self._of_job: dict[str, Workload] = {}
        self.known = False
        """Whether it is known if there is a Kueue, and which Workloads there are."""

    @property
    def installed(self) -> bool:
        """Whether there is one."""
        return bool(self._version)

    async def run(self) -> None:
        """Looks whether Kueue is there, again and again until it is; then watches its Workloads."""
        while not self._version:
            try:
                group = await self._server.get(f"/apis/{GROUP}")
            except ApiError as error:
                if error.status != NOT_FOUND:
                    log.warning("cannot see whether Kueue is there", why=str(error))
                    await pause(_PAUSE_SECONDS)
                    continue
            else:
                served = {each["version"] for each in group["versions"]}
                self._version = next((each for each in VERSIONS if each in served), "")
            if not self._version:
                if not self.known:
                    self.known = True
                    self._found_out()
                await pause(LOOK_AGAIN_SECONDS)
        log.info("Kueue is there", version=self._version)
        self.known = False
        paths = [self._path(each) for each in self._namespaces] or [self._path("")]
        self._objects = Informer(self._server, paths, workload, self._changed)
        async with asyncio.TaskGroup() as group_:
            group_.create_task(self._objects.run())
            group_.create_task(self._begin(self._objects))

    async def _begin(self, objects: Informer[Workload]) -> None:
        await objects.synced.wait()
        self.known = True
        self._found_out()

    def _path(self, namespace: str) -> str:
        where = f"namespaces/{namespace}/" if namespace else ""
        return f"/apis/{GROUP}/{self._version}/{where}workloads"

    def _at(self, found: Workload) -> str:
        return f"{self._path(found.namespace)}/{found.name}"

    def _changed(self, key: Key, before: Workload | None, now: Workload | None) -> None:
        del key
        for each in (before, now):
            if each is None or not each.owner_uid:
                continue
            if each is now:
                self._of_job[each.owner_uid] = each
            elif now is None and self._of_job.get(each.owner_uid) == each:
                del self._of_job[each.owner_uid]
            self._heard((each.namespace, each.owner_name))

    def _note(self, document: dict[str, object]) -> None:
        """Takes in the answer to a write of our own, ahead of the watch."""
        written = workload(document)
        known = self._of_job.get(written.owner_uid)
        if known is None or known.uid != written.uid or known.version < written.version:
            self._of_job[written.owner_uid] = written

    def manages(self, found: TrainingJob) -> bool:
        """Whether the job waits for Kueue's word, and there is one, or it is not known yet."""
        asked = bool(found.kueue_queue) and found.is_ours and not found.is_going
        return asked and (self.installed or not self.known)

    def manifest(self, found: TrainingJob) -> str:
        """What the control plane is told: no more accelerators than were admitted."""
        admitted = self._of_job.get(found.uid) if self.manages(found) else None
        if admitted is None or found.suspended or not admitted.may_run:
            return found.manifest_json
        document = json.loads(found.manifest_json)
        wanted = document["spec"].setdefault("accelerators", {})
        least = wanted.get("minimum", 1)
        wanted["maximum"] = min(wanted.get("maximum") or least, admitted.may_run)
        return canonical(document)

    async def step(self, found: TrainingJob, known: KnownJob | None) -> dict[str, object] | None:
        """Takes the next step about a job.

        Returns:
            The object as it is then, if it was changed; None if it was not.

        Raises:
            ApiError: The API server refuses, or is away.
        """
        mine = self._of_job.get(found.uid)
        move = next_move(found, known, mine, asked_by(found, self._resource))
        if move is not Move.NOTHING:
            log.info(move.value, job="/".join(found.key), uid=found.uid)
        if move in (Move.SUSPEND, Move.RESUME):
            return await self._set_suspend(found, move is Move.SUSPEND)
        if move is Move.CREATE:
            await self._create(found)
        elif mine is not None and move is Move.DELETE:
            await self._server.delete(self._at(mine), mine.uid)
        elif mine is not None and move is Move.RELEASE:
            await self._set_status(mine, released(mine, self._clocks.kubernetes_time()))
        elif mine is not None and move is Move.READY:
            await self._set_status(mine, ready(mine, self._clocks.kubernetes_time()))
        elif mine is not None and move is Move.NOT_READY:
            await self._set_status(mine, not_ready(mine, self._clocks.kubernetes_time()))
        elif mine is not None and move is Move.FINISH:
            await self._finish(found, mine)
        return None

    async def _set_suspend(self, found: TrainingJob, suspend: bool) -> dict[str, object]:
        metadata = {"uid": found.uid, "resourceVersion": str(found.version)}
        patch = {"metadata": metadata, "spec": {"suspend": suspend}}
        return await self._server.merge(found.path, patch)

    async def _create(self, found: TrainingJob) -> None:
        document = workload_document(found, self._resource, self._version)
        try:
            self._note(await self._server.create(self._path(found.namespace), document))
        except ApiError as error:
            # Our watch has still to tell of it.
            if error.status != CONFLICT:
                raise

    async def _finish(self, found: TrainingJob, mine: Workload) -> None:
        end = "Succeeded" if holds(found.status, "Succeeded") else "Failed"
        message = condition(found.status, end).get("message", "")
        await self._set_status(mine, finished(mine, end, message, self._clocks.kubernetes_time()))

    async def _set_status(self, mine: Workload, status: dict[str, object]) -> None:
        """Strictly: only if Kueue has not changed it since it was read."""
        metadata = {"uid": mine.uid, "resourceVersion": str(mine.version)}
        patch = {"metadata": metadata, "status": status}
        self._note(await self._server.merge(f"{self._at(mine)}/status", patch))
