"""Tells the control plane which nodes Kubernetes keeps work off: all of them, each time anew.

So nothing has to be remembered: a node that is uncordoned, or whose object is gone, is not named
any more, one that is closed before its agent registers is closed from its first moment on, and what
people drained at the control plane is none of it.
"""

import asyncio

import structlog

from operators.control_plane import AwayError, ControlPlane, RefusedError
from operators.nodes.node import Node, Pools, node
from operators.runtime.api_server import ApiServer, pause
from operators.runtime.informer import Informer, Key
from operators.runtime.work_queue import WorkQueue

LOOK_AGAIN_SECONDS = 60.0
_PAUSE_SECONDS = 2.0
_ALL = "all nodes"
"""The one key: whatever changed, everything is told."""

log = structlog.get_logger(__name__)


class NodeController:
    """All nodes of the cluster."""

    def __init__(self, server: ApiServer, control_plane: ControlPlane, pools: Pools) -> None:
        """Asks nobody yet.

        Args:
            server: Where the objects are.
            control_plane: Who places work.
            pools: Which nodes agents run on, and what those tolerate.
        """
        self._control_plane = control_plane
        self.queue: WorkQueue[str] = WorkQueue()
        self.objects: Informer[Node] = Informer(
            server, ["/api/v1/nodes"], lambda document: node(document, pools), self._changed
        )

    async def run(self) -> None:
        """Watches and tells, for ever.

        Raises:
            TermOverError: Another replica of the operator acts.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.objects.run())
                group.create_task(self.queue.run(self._look, 1))
                group.create_task(self._begin())
        finally:
            self.queue.close()

    async def _begin(self) -> None:
        """Once all are listed, for those that were uncordoned while nobody watched."""
        await self.objects.synced.wait()
        self.queue.add(_ALL)

    def _changed(self, key: Key, before: Node | None, now: Node | None) -> None:
        was, is_ = (each.closed if each is not None else None for each in (before, now))
        # Nodes change all the time, and seldom in this.
        if self.objects.synced.is_set() and was != is_:
            self.queue.add(_ALL)

    async def _look(self, key: str) -> None:
        closed = [each.closed for each in self.objects.objects.values() if each.closed is not None]
        try:
            await self._control_plane.close_nodes(closed)
        except AwayError as error:
            log.info("the control plane is away", about=key, why=str(error))
            self.queue.retry(key)
        except RefusedError as error:
            # One that is a version older knows nothing of it.
            log.warning("nodes cannot be told", why=str(error))
            self.queue.add_after(key, LOOK_AGAIN_SECONDS)
        else:
            self.queue.succeeded(key)
            self.queue.add_after(key, LOOK_AGAIN_SECONDS)


async def leave_open(control_plane: ControlPlane) -> None:
    """Takes back what this operator told while it looked at nodes, then rests, for ever.

    Raises:
        TermOverError: Another replica of the operator acts.
    """
    while True:
        try:
            await control_plane.close_nodes(())
        except AwayError:
            await pause(_PAUSE_SECONDS)
        except RefusedError as error:
            log.warning("nodes cannot be told", why=str(error))
            break
        else:
            break
    await asyncio.Event().wait()
