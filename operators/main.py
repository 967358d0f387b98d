"""Plugs the operator together: stand by, lead under one term after the other, let go."""

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Coroutine, Sequence
from importlib import metadata
from typing import Any

import structlog

from controlplane.logs import set_up_logs
from operators.clocks import Clocks
from operators.cluster_objects.controller import (
    ClusterObjectController,
    PolicyKeeper,
    QueueKeeper,
)
from operators.config import Settings, read_settings
from operators.control_plane import ControlPlane, TermOverError
from operators.nodes.controller import NodeController, leave_open
from operators.runtime.api_server import ApiError, ApiServer, NoClusterError
from operators.runtime.leadership import DeposedError, Leadership
from operators.telemetry import Page, Telemetry
from operators.trainingjob.controller import TrainingJobController

OK, BROKEN, REFUSED, DEPOSED = 0, 1, 2, 3
"""Exit codes: stopped as asked; it cannot go on; it cannot start like this; another one leads."""

log = structlog.get_logger(__name__)


class Operator:
    """One replica."""

    def __init__(
        self, settings: Settings, leases: ApiServer, server: ApiServer, clocks: Clocks
    ) -> None:
        """Asks nobody yet.

        Args:
            settings: How it runs.
            leases: The API server, for the Lease alone.
            server: The same for everything else; it lets nothing be written by who does not lead.
            clocks: What time it is.
        """
        self._settings = settings
        self._server = server
        self._clocks = clocks
        self._stop = asyncio.Event()
        self.leadership = Leadership(leases, settings.lease, clocks.monotonic)
        self._telemetry = Telemetry(metadata.version("headrace-server"))
        self._page = Page(self._telemetry, self._not_ready)
        self._jobs: TrainingJobController | None = None
        server.before_write = self.leadership.check
        server.observe = leases.observe = self._telemetry.request

    def stop(self) -> None:
        """Asks it to end."""
        self._stop.set()

    def _not_ready(self) -> str:
        if not self.leadership.heard:
            return "the API server does not answer"
        if self._jobs is not None and not self._jobs.objects.synced.is_set():
            return "not everything is listed yet"
        # Once heard, it may be away for a while: that is no reason to replace this replica.
        if self._jobs is not None and not self._jobs.jobs.complete:
            return f"the control plane was not heard yet: {self._jobs.jobs.trouble}"
        return ""

    async def run(self) -> int:
        """Runs until asked to stop, or until another replica leads; returns the exit code.

        Raises:
            OSError: It cannot listen.
        """
        await self._page.start(self._settings.listen)
        sys.stdout.write(json.dumps({"ready": True, "http": self._page.address}) + "\n")
        sys.stdout.flush()
        try:
            if not await self._until_stopped(self.leadership.acquire()):
                return OK
            return await self._lead()
        finally:
            await self._page.close()

    async def _lead(self) -> int:
        """Leads under one term, or several where the control plane knows a higher one."""
        while True:
            try:
                await self._reign()
            except TermOverError as error:
                log.warning("the control plane knows a higher term", why=str(error))
                try:
                    await self.leadership.rise_above(error.known)
                except (ApiError, DeposedError) as deposed:
                    return self._deposed(deposed)
            except DeposedError as error:
                return self._deposed(error)
            else:
                await self.leadership.release()
                return OK

    def _deposed(self, error: Exception) -> int:
        log.error("this replica leads no more and ends", why=str(error))
        self._telemetry.leads.set(0)
        return DEPOSED

    async def _reign(self) -> None:
        """Returns when asked to stop.

        Raises:
            DeposedError, TermOverError: Another replica leads, or did.
        """
        control_plane = ControlPlane(
            self._settings.control_plane, self._settings.tls, self._settings.lease.full_name
        )
        control_plane.term = lambda: self.leadership.term
        control_plane.observe = self._telemetry.call
        self._jobs = controller = TrainingJobController(
            self._server,
            control_plane,
            namespaces=self._settings.namespaces,
            instance=self._settings.lease.identity,
            clocks=self._clocks,
            workers=self._settings.workers,
            job_pods=self._settings.job_pods,
            kueue_resource=self._settings.kueue_resource,
        )
        self._show(controller)
        try:
            parts = [self.leadership.keep(), controller.run()]
            if self._settings.cluster_objects:
                parts.extend(
                    ClusterObjectController(self._server, keeper, self._clocks).run()
                    for keeper in (QueueKeeper(control_plane), PolicyKeeper(control_plane))
                )
            if self._settings.nodes:
                parts.append(
                    NodeController(self._server, control_plane, self._settings.pools).run()
                )
            else:
                parts.append(leave_open(control_plane))
            await self._until_stopped(*parts)
        finally:
            self._telemetry.leads.set(0)
            await control_plane.close()

    def _show(self, jobs: TrainingJobController) -> None:
        self._telemetry.leads.set(1)
        self._telemetry.term.set(self.leadership.term)
        gauge = self._telemetry.gauge
        gauge("objects", "Objects that are looked after.", lambda: len(jobs.objects.objects))
        gauge("job_pods", "Pods that jobs have for themselves.", lambda: jobs.job_pods)
        gauge("queue_length", "Objects to be looked at now.", lambda: len(jobs.queue))
        gauge("failing", "Objects that are tried again.", lambda: jobs.queue.failing)
        gauge("progress_waiting", "Statuses with old progress.", lambda: len(jobs.writer.turns))
        gauge("status_writes", "Of transitions, in this reign.", lambda: jobs.writer.transitions)
        gauge("progress_writes", "Of progress, in this reign.", lambda: jobs.writer.refreshes)
        gauge("relists", "Watches that began anew.", lambda: jobs.objects.relists)
        gauge("watches_lost", "Watches that were resumed.", lambda: jobs.objects.resumed)

    async def _until_stopped(self, *parts: Coroutine[Any, Any, Any]) -> bool:
        """Runs all parts until one ends, or until asked to stop: then False.

        Raises:
            Exception: What a part raised.
        """
        stopping = asyncio.create_task(self._stop.wait())
        tasks = [stopping, *(asyncio.create_task(part) for part in parts)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            error = task.exception()
            if error is not None:
                raise first_of(error)
        return stopping not in done


def first_of(error: BaseException) -> BaseException:
    """Of errors that tasks raised together one that says why."""
    while isinstance(error, BaseExceptionGroup):
        error = min(
            error.exceptions, key=lambda each: not isinstance(each, DeposedError | TermOverError)
        )
    return error


async def operate(settings: Settings) -> int:
    """Runs the operator until SIGTERM or SIGINT; returns the exit code."""
    async with contextlib.AsyncExitStack() as stack:
        try:
            leases, server = [await ApiServer.connect(settings.kubeconfig) for _ in range(2)]
        except NoClusterError as error:
            sys.stderr.write(f"the operator cannot start: {error}\n")
            return REFUSED
        stack.push_async_callback(leases.close)
        stack.push_async_callback(server.close)
        operator = Operator(settings, leases, server, Clocks())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, operator.stop)
        try:
            return await operator.run()
        except OSError as error:
            sys.stderr.write(f"the operator cannot listen on {settings.listen}: {error}\n")
            return REFUSED


def main(arguments: Sequence[str] | None = None) -> int:
    """The process: reads settings, does what they say, returns the exit code."""
    settings = read_settings(sys.argv[1:] if arguments is None else arguments)
    set_up_logs(as_json=settings.log_format == "json", level=settings.log_level)
    try:
        return asyncio.run(operate(settings))
    except Exception as error:
        log.critical("the operator ends", exc_info=error)
        return BROKEN
