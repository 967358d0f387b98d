"""Speaks with the control plane: registers, obeys assignments, reports, serves output.

Every lost connection ends in registering again with all that runs. Until then the units run on,
and what they do waits in the outbox.
"""

import asyncio
import contextlib
import os
import platform
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import grpc
import structlog

from agent import translate
from agent.journal import Journal
from agent.log_service import LogService
from agent.outbox import Outbox
from agent.units import Units
from headrace.api.generated import nodes_pb2, nodes_pb2_grpc
from headrace.api.keepalive import pings
from headrace.api.replicas import who_decides

PROGRESS_PERIOD_SECONDS = 1.0
"""Progress alone is told at most this often."""
RPC_TIMEOUT_SECONDS = 20.0
FIRST_BACK_OFF_SECONDS = 0.5
MOST_BACK_OFF_SECONDS = 10.0

_CHANNEL_OPTIONS = (
    *pings(),
    ("grpc.max_receive_message_length", 64 << 20),
    # The back-off is ours; gRPC's own would add to it.
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)

_AWAY = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
    }
)
"""What a control plane that ends, restarts or cannot be reached answers."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files for a connection where both sides show who they are."""

    ca: Path
    certificate: Path
    key: Path

    def credentials(self) -> grpc.ChannelCredentials:
        """What a channel wants, as the files are now: each connection reads them anew.

        Raises:
            OSError: One cannot be read.
        """
        ca, certificate, key = (file.read_bytes() for file in (self.ca, self.certificate, self.key))
        return grpc.ssl_channel_credentials(ca, key, certificate)


@dataclass(frozen=True, slots=True)
class NodeDescription:
    """How this node introduces itself, beside its accelerators."""

    name: str
    address: str
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[tuple[str, str], ...] = ()


class RegisterAgainError(Exception):
    """The control plane wants to hear everything anew."""


class ControlPlaneClient:
    """One agent's connection to the control plane; ``wake`` is set when the outbox has more."""

    def __init__(
        self,
        address: str,
        node: NodeDescription,
        units: Units,
        journal: Journal,
        outbox: Outbox,
        wake: asyncio.Event,
        tls: Tls | None = None,
    ) -> None:
        self._address = address
        self._node = node
        self._units = units
        self._journal = journal
        self._outbox = outbox
        self._options = (*_CHANNEL_OPTIONS, *who_decides(address))
        self._tls = tls
        self._wake = wake
        # Of this process, so that one that was started again is told from one that still runs.
        self._agent_id = f"{platform.node()}/{os.getpid()}/{secrets.token_hex(4)}"
        self._applied = (0, 0)
        self._reports = asyncio.Lock()

    async def run(self) -> None:
        """Stays in contact until it is cancelled."""
        back_off = FIRST_BACK_OFF_SECONDS
        while True:
            try:
                async with self._channel() as channel:
                    stub = _stub(channel)
                    registered = await self._register(stub)
                    back_off = FIRST_BACK_OFF_SECONDS
                    await self._converse(stub, registered.heartbeat_seconds or 3.0)
            except RegisterAgainError:
                _log.info("registering_again")
                back_off = FIRST_BACK_OFF_SECONDS
            except grpc.aio.AioRpcError as error:
                if error.code() in _AWAY:
                    _log.warning("control_plane_away", code=error.code().name, why=error.details())
                else:
                    # Another agent of this node, a certificate of nobody: someone has to act.
                    _log.error("refused", code=error.code().name, why=error.details())
            except OSError as error:
                # Nothing can be remembered, so nothing may be obeyed or called acknowledged. Or
                # a certificate is just being renewed.
                _log.error("file_unusable", error=str(error))
            await asyncio.sleep(back_off)
            back_off = min(back_off * 2, MOST_BACK_OFF_SECONDS)

    async def flush(self) -> None:
        """One last report, if the control plane is there."""
        with contextlib.suppress(grpc.aio.AioRpcError, RegisterAgainError, OSError):
            async with self._channel() as channel:
                await self._report(_stub(channel), timeout_seconds=3.0)

    def _channel(self) -> grpc.aio.Channel:
        if self._tls is None:
            return grpc.aio.insecure_channel(self._address, options=self._options)
        credentials = self._tls.credentials()
        return grpc.aio.secure_channel(self._address, credentials, options=self._options)

    async def _register(
        self, stub: nodes_pb2_grpc.NodeServiceStub
    ) -> nodes_pb2.RegisterNodeResponse:
        node = nodes_pb2.Node(
            name=self._node.name,
            accelerators=[translate.accelerator(a) for a in self._units.accelerators.values()],
            labels=dict(self._node.labels),
            taints=[nodes_pb2.Taint(key=key, value=value) for key, value in self._node.taints],
            address=self._node.address,
            agent_version=metadata.version("headrace"),
        )
        answer: nodes_pb2.RegisterNodeResponse = await stub.RegisterNode(
            nodes_pb2.RegisterNodeRequest(
                node=node,
                running=[
                    translate.running(key, slots) for key, slots in self._units.running().items()
                ],
                highest_attempts=[
                    nodes_pb2.SeenAttempt(uid=uid, attempt=attempt)
                    for uid, attempt in self._journal.highest_attempts.items()
                ],
                highest_term=self._journal.highest_term,
                agent_id=self._agent_id,
            ),
            timeout=RPC_TIMEOUT_SECONDS,
        )
        _log.info("registered", control_plane=self._address, term=answer.term)
        self._units.registered()
        return answer

    async def _converse(
        self, stub: nodes_pb2_grpc.NodeServiceStub, heartbeat_seconds: float
    ) -> None:
        """Watches, reports and serves output until one of them fails, or one of them ends."""
        parts = [
            asyncio.create_task(self._watch(stub)),
            asyncio.create_task(self._keep_reporting(stub, heartbeat_seconds)),
            asyncio.create_task(self._serve_logs(stub)),
        ]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
        for part in done:
            part.result()
        raise RegisterAgainError

    async def _watch(self, stub: nodes_pb2_grpc.NodeServiceStub) -> None:
        request = nodes_pb2.WatchAssignmentsRequest(node=self._node.name, agent_id=self._agent_id)
        async for message in stub.WatchAssignments(request):
            assignment = translate.assignment(message)
            if not self._units.obey(assignment):
                self._applied = (assignment.term, assignment.number)
                self._wake.set()

    async def _keep_reporting(
        self, stub: nodes_pb2_grpc.NodeServiceStub, heartbeat_seconds: float
    ) -> None:
        loop = asyncio.get_running_loop()
        last = 0.0
        told: tuple[int, int] | None = None
        while True:
            now = loop.time()
            due = now >= last + heartbeat_seconds
            progress = not self._outbox.empty and now >= last + PROGRESS_PERIOD_SECONDS
            if due or progress or self._outbox.urgent or told != self._applied:
                last, told = now, self._applied
                await self._report(stub, timeout_seconds=RPC_TIMEOUT_SECONDS)
                continue
            wait = heartbeat_seconds if self._outbox.empty else PROGRESS_PERIOD_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(last + wait):
                    await self._wake.wait()
            self._wake.clear()

    async def _report(
        self, stub: nodes_pb2_grpc.NodeServiceStub, *, timeout_seconds: float
    ) -> None:
        async with self._reports:
            batch = self._outbox.batch()
            request = translate.report(
                self._node.name, self._applied, batch, self._units.steps_total
            )
            request.agent_id = self._agent_id
            answer = await stub.Report(request, timeout=timeout_seconds)
            if answer.register_again:
                raise RegisterAgainError
            self._units.acknowledged(batch)

    async def _serve_logs(self, stub: nodes_pb2_grpc.NodeServiceStub) -> None:
        service = LogService(self._units, self._node.name)
        async with service:
            call = stub.ServeLogs(_outgoing(service))
            try:
                async for request in call:
                    service.ask(request)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                    raise
                # An older control plane does without output; the rest works.
                await asyncio.Event().wait()


def _stub(channel: grpc.aio.Channel) -> nodes_pb2_grpc.NodeServiceStub:
    return nodes_pb2_grpc.NodeServiceStub(channel)  # type: ignore[no-untyped-call]


async def _outgoing(service: LogService) -> AsyncIterator[nodes_pb2.ServeLogsRequest]:
    while True:
        yield await service.answers.get()
