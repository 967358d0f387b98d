"""Writes statuses and events, as seldom as can be: each write costs the API server dearly.

A transition is written soon, together with those that follow within the window. Progress and
estimates wait for a turn, of which there are few a second for the whole cluster.
"""

import structlog

from operators.clocks import Clocks
from operators.runtime.api_server import CONFLICT, ApiError, ApiServer
from operators.runtime.informer import Informer, Key
from operators.runtime.turns import Turns
from operators.runtime.work_queue import WorkQueue
from operators.trainingjob.notices import Notice, event_document, notices
from operators.trainingjob.status import Status, dated, transition
from operators.trainingjob.training_job import GROUP_VERSION, KIND, TrainingJob, canonical

WINDOW_SECONDS = 0.8
"""Transitions closer than this are one write; so a change is seen within a second."""
PROGRESS_WRITES_A_SECOND = 10.0
"""Over the whole cluster."""
PROGRESS_SECONDS = 10.0
"""Least time between a write of a status and one that only tells of progress."""

log = structlog.get_logger(__name__)


class StatusWriter:
    """The statuses of all objects of a kind."""

    def __init__(
        self,
        server: ApiServer,
        objects: Informer[TrainingJob],
        queue: WorkQueue[Key],
        clocks: Clocks,
        instance: str,
    ) -> None:
        self._server = server
        self._objects = objects
        self._queue = queue
        self._clocks = clocks
        self._instance = instance
        self.turns: Turns[Key] = Turns(PROGRESS_WRITES_A_SECOND, clocks.monotonic)
        self._noticed: dict[Key, float] = {}
        self._written_at: dict[Key, float] = {}
        self._has_turn: set[Key] = set()
        self._taken_as: dict[Key, tuple[str, str]] = {}
        self.transitions = 0
        """Writes because something happened."""
        self.refreshes = 0
        """Writes that only tell of progress."""

    async def run(self) -> None:
        """Gives turns to those with progress, for ever."""
        await self.turns.run(self._take_turn)

    def _take_turn(self, key: Key) -> None:
        self._has_turn.add(key)
        self._queue.add(key)

    def forget(self, key: Key) -> None:
        """The object is gone."""
        self.turns.leave(key)
        self._has_turn.discard(key)
        for kept in (self._noticed, self._written_at, self._taken_as):
            kept.pop(key, None)

    async def write(self, found: TrainingJob, wanted: Status, preempted: str = "") -> None:
        """Sees to it that the object's status is as wanted: now, or when it is its turn.

        Args:
            found: The object.
            wanted: Its status.
            preempted: Why its last attempt was preempted; empty if that ended otherwise.
        """
        key, before = found.key, found.status
        status = dated(wanted, before, self._clocks.kubernetes_time())
        text = canonical(status)
        if text == found.status_json or self._taken_as.get(key) == (text, found.status_json):
            self._noticed.pop(key, None)
            self.turns.leave(key)
            return
        now = self._clocks.monotonic()
        if transition(status) != transition(before):
            wait = self._noticed.setdefault(key, now) + WINDOW_SECONDS - now
            if wait > 0:
                self._queue.add_after(key, wait)
                return
            about = f"{status.get('attempt', 0)} {found.generation}"
            for notice in notices(before, status, preempted):
                await self.tell(found, notice, about)
            self.transitions += 1
        elif key in self._has_turn:
            self.refreshes += 1
        else:
            self.turns.want(key, self._written_at.get(key, 0.0) + PROGRESS_SECONDS)
            return
        await self._apply(found, status, text)

    async def _apply(self, found: TrainingJob, status: Status, text: str) -> None:
        document = {
            "apiVersion": GROUP_VERSION,
            "kind": KIND,
            # With the uid it cannot be an object of the same name that came later.
            "metadata": {"namespace": found.namespace, "name": found.name, "uid": found.uid},
            "status": status,
        }
        key = found.key
        answer = await self._server.apply(f"{found.path}/status", document)
        self._noticed.pop(key, None)
        self._has_turn.discard(key)
        self._written_at[key] = self._clocks.monotonic()
        # What the schema adds to it is no reason to write again.
        self._taken_as[key] = (text, canonical(answer.get("status") or {}))
        self._objects.note(answer)

    async def tell(self, found: TrainingJob, notice: Notice, about: str) -> None:
        """Tells people. They miss little if it cannot be told, so that keeps nobody up."""
        document = event_document(
            notice,
            found,
            about=about,
            at=self._clocks.kubernetes_micro_time(),
            instance=self._instance,
        )
        path = f"/apis/events.k8s.io/v1/namespaces/{found.namespace}/events"
        try:
            await self._server.create(path, document)
        except ApiError as error:
            if error.status != CONFLICT:
                log.info("not told", job="/".join(found.key), notice=notice.reason, why=str(error))
