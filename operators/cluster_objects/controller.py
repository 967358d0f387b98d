"""Keeps queues and the policy as their objects say, and says in those whether it could.

The objects are few, so all are looked at again every so often: what somebody changed at the
control plane meanwhile is changed back.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import structlog

from headrace.api.generated import common_pb2
from headrace.api.manifest import API_VERSION
from headrace.api.manifest_policy import ClusterPolicy
from headrace.api.manifest_queue import Queue
from operators.clocks import Clocks
from operators.cluster_objects.cluster_object import ClusterObject, cluster_object, is_told, ready
from operators.control_plane import AwayError, ControlPlane, RefusedError
from operators.runtime.api_server import CONFLICT, NOT_FOUND, ApiError, ApiServer, pause
from operators.runtime.informer import Informer, Key
from operators.runtime.work_queue import WorkQueue
from operators.trainingjob.training_job import FINALIZER

LOOK_AGAIN_SECONDS = 60.0
COUNT_SECONDS = 10.0
COUNTED_AT_ONCE = 10
"""So what queues hold is at most one write a second, over the whole cluster."""

log = structlog.get_logger(__name__)


def _counts(queue: common_pb2.Queue) -> dict[str, int]:
    """What its status tells of what it holds."""
    return {
        "heldAccelerators": queue.held_accelerators,
        "waitingAccelerators": queue.waiting_accelerators,
        "jobsRunning": queue.jobs_running,
        "jobsWaiting": queue.jobs_waiting,
    }


class Told:
    """What the control plane said of an object that it took over."""

    def __init__(self, says: str = "", **more: Any) -> None:
        self.says = says
        self.more = more


class Keeper(ABC):
    """What one kind means at the control plane."""

    plural: str
    kind: str

    def __init__(self, control_plane: ControlPlane) -> None:
        self._control_plane = control_plane

    @abstractmethod
    async def put(self, found: ClusterObject) -> Told:
        """Makes it so; harmless if it is."""

    @abstractmethod
    async def remove(self, found: ClusterObject) -> None:
        """It shall not be so any more; harmless if it is not."""

    async def follow(self, wake: Callable[[str], None]) -> None:
        """Wakes those whose status has something new to tell; of most kinds nothing ever has."""
        del wake


class QueueKeeper(Keeper):
    """Queues. What they hold changes with every start and end, and is told now and then."""

    plural, kind = "queues", "Queue"

    def __init__(self, control_plane: ControlPlane) -> None:
        super().__init__(control_plane)
        self._told: dict[str, dict[str, int]] = {}
        """What was told of each queue last; those told longest ago come first."""

    async def put(self, found: ClusterObject) -> Told:
        spec = Queue.model_validate(found.document).spec
        answer = await self._control_plane.put_queue(found.name, spec)
        counts = self._told.setdefault(found.name, _counts(answer.queue))
        return Told(says="; ".join(answer.warnings), **counts)

    async def follow(self, wake: Callable[[str], None]) -> None:
        while True:
            await pause(COUNT_SECONDS)
            try:
                now = {each.name: _counts(each) for each in await self._control_plane.queues()}
            except (AwayError, RefusedError) as error:
                log.info("what queues hold is not known now", why=str(error))
                continue
            changed = [name for name in self._told if name in now and self._told[name] != now[name]]
            for name in changed[:COUNTED_AT_ONCE]:
                del self._told[name]
                self._told[name] = now[name]
                wake(name)

    async def remove(self, found: ClusterObject) -> None:
        await self._control_plane.delete_queue(found.name)


class PolicyKeeper(Keeper):
    """The one policy. Without its object the settings stay as they are, and are anybody's."""

    plural, kind = "clusterpolicies", "ClusterPolicy"

    async def put(self, found: ClusterObject) -> Told:
        settings = ClusterPolicy.model_validate(found.document).spec.settings()
        return Told(version=await self._control_plane.set_policy(settings))

    async def remove(self, found: ClusterObject) -> None:
        await self._control_plane.set_policy({})


class ClusterObjectController:
    """All objects of one kind."""

    def __init__(self, server: ApiServer, keeper: Keeper, clocks: Clocks) -> None:
        self._server = server
        self._keeper = keeper
        self._clocks = clocks
        self.queue: WorkQueue[Key] = WorkQueue()
        self.objects = Informer(
            server,
            [f"/apis/{API_VERSION}/{keeper.plural}"],
            lambda document: cluster_object(keeper.plural, keeper.kind, document),
            lambda key, before, now: self.queue.add(key),
        )

    async def run(self) -> None:
        """Reconciles, for ever."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.objects.run())
                group.create_task(self.queue.run(self._look, 1))
                group.create_task(self._keeper.follow(lambda name: self.queue.add(("", name))))
        finally:
            self.queue.close()

    async def _look(self, key: Key) -> None:
        found = self.objects.objects.get(key)
        if found is None:
            return
        try:
            await (self._part(found) if found.is_going else self._keep(found))
        except AwayError as error:
            log.info(
                "the control plane is away", kind=found.plural, name=found.name, why=str(error)
            )
            self.queue.retry(key)
        except ApiError as error:
            if error.status not in (CONFLICT, NOT_FOUND):
                log.warning("not reconciled yet", name=found.name, why=str(error))
            self.queue.retry(key)
        else:
            self.queue.succeeded(key)
            self.queue.add_after(key, LOOK_AGAIN_SECONDS)

    async def _keep(self, found: ClusterObject) -> None:
        if not found.has_finalizer:
            await self._set_finalizers(found, [*found.finalizers, FINALIZER])
        problem, told = "", Told()
        try:
            told = await self._keeper.put(found)
        except (RefusedError, ValueError) as error:
            problem = str(error)
        await self._tell(found, problem, told)

    async def _part(self, found: ClusterObject) -> None:
        if not found.has_finalizer:
            return
        try:
            await self._keeper.remove(found)
        except RefusedError as error:
            # Jobs need it still; it goes when they have gone.
            await self._tell(found, str(error), Told())
            self.queue.add_after(found.key, LOOK_AGAIN_SECONDS / 10)
            return
        rest = [each for each in found.finalizers if each != FINALIZER]
        await self._set_finalizers(found, rest)

    async def _tell(self, found: ClusterObject, problem: str, told: Told) -> None:
        now = self._clocks.kubernetes_time()
        status = ready(found, problem, told.says, now, told.more)
        if is_told(found, status):
            return
        document = {
            **found.document,
            "metadata": {"name": found.name, "uid": found.uid},
            "status": status,
        }
        del document["spec"]
        self.objects.note(await self._server.apply(f"{found.path}/status", document))

    async def _set_finalizers(self, found: ClusterObject, finalizers: list[str]) -> None:
        metadata = {
            "uid": found.uid,
            "resourceVersion": str(found.version),
            "finalizers": finalizers,
        }
        self.objects.note(await self._server.merge(found.path, {"metadata": metadata}))
