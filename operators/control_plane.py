"""The control plane as the operator sees it: calls that carry its term, and a watch of all jobs."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import structlog
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from controlplane.domain.node import ClosedNode
from headrace.api.generated import admin_pb2, admin_pb2_grpc, common_pb2, jobs_pb2, jobs_pb2_grpc
from headrace.api.keepalive import pings
from headrace.api.manifest_queue import QueueSpec
from headrace.api.operator_term import DEPOSED, OPERATOR_KEY, TERM_KEY, TERM_METADATA
from headrace.api.replicas import who_decides

CALL_SECONDS = 15.0
_LARGEST_MESSAGE_BYTES = 64 << 20
_DETAILS_KEY = "grpc-status-details-bin"
_ROLE = ("headrace-role", "operator")
"""Without TLS nobody can be told apart, and an operator has to say that it is one."""
_OPTIONS = (
    *pings(),
    ("grpc.max_receive_message_length", _LARGEST_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _LARGEST_MESSAGE_BYTES),
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
    # The back-off is ours; gRPC's own would add to it.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)
_AWAY = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
"""What the same call may be answered otherwise later."""

_HANDSHAKE = re.compile(r"handshake|ssl|certificate", re.IGNORECASE)
"""In what gRPC says of connections that TLS ended."""

log = structlog.get_logger(__name__)


class AwayError(Exception):
    """The control plane does not answer, or cannot now; the same call later may succeed."""


class RefusedError(Exception):
    """The control plane refuses; the same call again will be refused too.

    Attributes:
        code: Its status code.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class TermOverError(Exception):
    """The control plane has seen a higher term.

    Attributes:
        known: That term.
    """

    def __init__(self, known: int, message: str) -> None:
        super().__init__(message)
        self.known = known


class OutdatedError(Exception):
    """What was to be resumed is forgotten; begin anew."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of mutual TLS.

    Attributes:
        authority: Who signed the control plane's certificate.
        certificate: Ours.
        key: The certificate's.
        server_name: Name that the control plane's certificate must carry; empty for the host's.
    """

    authority: Path
    certificate: Path
    key: Path
    server_name: str = ""

    def read(self) -> tuple[bytes, bytes, bytes]:
        """Their contents; they are read again when they changed.

        Raises:
            OSError: One cannot be read.
        """
        paths = (self.authority, self.key, self.certificate)
        authority, key, certificate = (path.read_bytes() for path in paths)
        return authority, key, certificate


class ControlPlane:
    """Speaks to one control plane, under the term of whoever leads."""

    def __init__(self, address: str, tls: TlsFiles | None, operator: str) -> None:
        """Opens no connection yet.

        Args:
            address: ``host:port``.
            tls: None for no TLS.
            operator: What the control plane knows the operator by: namespace and name of its lease.
        """
        self._address = address
        self._tls = tls
        self._operator = operator
        self._pems: tuple[bytes, bytes, bytes] | None = None
        self._channel: aio.Channel | None = None
        self.term: Callable[[], int] = lambda: 0
        self.observe: Callable[[str, str], None] = lambda method, code: None

    def _connected(self) -> aio.Channel:
        """The channel, made anew when the certificates changed."""
        pems = self._tls.read() if self._tls is not None else None
        if self._channel is not None and pems == self._pems:
            return self._channel
        before, self._pems = self._channel, pems
        options: list[tuple[str, Any]] = [*_OPTIONS, *who_decides(self._address)]
        if pems is None or self._tls is None:
            self._channel = aio.insecure_channel(self._address, options=options)
        else:
            if self._tls.server_name:
                options.append(("grpc.ssl_target_name_override", self._tls.server_name))
            credentials = grpc.ssl_channel_credentials(*pems)
            self._channel = aio.secure_channel(self._address, credentials, options=options)
        if before is not None:
            log.info("the certificates changed; connecting anew")
            self._closing = asyncio.ensure_future(before.close(CALL_SECONDS))
        return self._channel

    async def close(self) -> None:
        """Ends all calls and the connection."""
        if self._channel is not None:
            await self._channel.close(None)

    def _jobs(self) -> Any:
        return jobs_pb2_grpc.JobServiceStub(self._connected())  # type: ignore[no-untyped-call]

    def _admin(self) -> Any:
        return admin_pb2_grpc.AdminServiceStub(self._connected())  # type: ignore[no-untyped-call]

    @property
    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (_ROLE, (OPERATOR_KEY, self._operator), (TERM_KEY, str(self.term())))

    async def _call(self, stub: Callable[[], Any], method: str, request: Any) -> Any:
        code = "OK"
        try:
            call = getattr(stub(), method)
            return await call(request, timeout=CALL_SECONDS, metadata=self._metadata)
        except aio.AioRpcError as error:
            code = error.code().name
            raise _meant(error) from error
        except OSError as error:
            code = "UNAVAILABLE"
            raise AwayError(f"cannot read the certificates: {error}") from error
        finally:
            self.observe(method, code)

    async def submit(self, uid: str, generation: int, manifest_json: str) -> str:
        """Submits a generation of a job; returns what became of it.

        The same one twice is answered alike.

        Raises:
            AwayError, RefusedError, TermOverError: As their names say.
        """
        request = jobs_pb2.SubmitJobRequest(
            manifest_json=manifest_json, uid=uid, generation=generation
        )
        response = await self._call(self._jobs, "SubmitJob", request)
        return str(response.result)

    async def withdraw(self, uid: str) -> None:
        """Asks that a job goes; harmless for one that is not known."""
        await self._call(self._jobs, "WithdrawJob", jobs_pb2.WithdrawJobRequest(uid=uid))

    async def knows(self, uid: str) -> bool:
        """Whether there is a job of that uid at this moment."""
        request = jobs_pb2.GetJobRequest(selector=jobs_pb2.JobSelector(uid=uid))
        try:
            await self._call(self._jobs, "GetJob", request)
        except RefusedError as error:
            if error.code is grpc.StatusCode.NOT_FOUND:
                return False
            raise
        return True

    async def watch_jobs(self, after: int) -> AsyncIterator[jobs_pb2.WatchJobsResponse]:
        """The present jobs, or what changed after a version, then every change.

        Raises:
            AwayError, TermOverError: As their names say.
            OutdatedError: That version is not known; begin with 0.
        """
        request = jobs_pb2.WatchJobsRequest(after_version=after)
        try:
            call = self._jobs().WatchJobs(request, metadata=self._metadata)
            try:
                async for answer in call:
                    yield answer
            finally:
                call.cancel()
        except aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.OUT_OF_RANGE:
                raise OutdatedError(error.details() or "") from error
            raise _meant(error) from error
        except OSError as error:
            raise AwayError(f"cannot read the certificates: {error}") from error
        raise AwayError("the control plane ended the watch")

    async def close_nodes(self, nodes: Sequence[ClosedNode]) -> None:
        """Keeps work off these nodes, and no others.

        Raises:
            AwayError, RefusedError, TermOverError: As their names say.
        """
        told = (
            admin_pb2.ClosedNode(node=each.node, closed=each.closed.value, reason=each.why)
            for each in nodes
        )
        request = admin_pb2.CloseNodesRequest(nodes=told)
        await self._call(self._admin, "CloseNodes", request)

    async def put_queue(self, name: str, spec: QueueSpec) -> list[str]:
        """Makes a queue so; returns what whoever set it should know."""
        queue = common_pb2.Queue(
            name=name,
            quota_accelerators=spec.quota_accelerators,
            borrowing_accelerators=spec.borrowing_accelerators,
            submitters=spec.submitters,
            namespaces=spec.namespaces,
        )
        request = admin_pb2.PutQueueRequest(queue=queue)
        response = await self._call(self._admin, "PutQueue", request)
        return list(response.warnings)

    async def delete_queue(self, name: str) -> None:
        """Removes a queue; harmless if there is none."""
        try:
            await self._call(self._admin, "DeleteQueue", admin_pb2.DeleteQueueRequest(name=name))
        except RefusedError as error:
            if error.code is not grpc.StatusCode.NOT_FOUND:
                raise

    async def set_policy(self, settings: Mapping[str, object]) -> int:
        """Sets settings by name; returns the version that is in force then."""
        told = {name: json.dumps(value) for name, value in settings.items()}
        request = admin_pb2.SetPolicyRequest(settings=told)
        response = await self._call(self._admin, "SetPolicy", request)
        return int(response.version)


def _meant(error: aio.AioRpcError) -> Exception:
    message = error.details() or error.code().name
    if error.code() is grpc.StatusCode.UNAVAILABLE and _HANDSHAKE.search(message):
        message = (
            "no TLS connection with it: look at --tls-ca, --tls-certificate, --tls-key and "
            f"--tls-server-name, and at its --tls-client-ca ({message})"
        )
    if error.code() in _AWAY:
        return AwayError(message)
    known = _term_in_force(error)
    if known is not None:
        return TermOverError(known, message)
    return RefusedError(error.code(), message)


def _term_in_force(error: aio.AioRpcError) -> int | None:
    """Of an operator's call that came too late; None of any other refusal."""
    if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
        return None
    trailing: Any = dict(error.trailing_metadata() or ())  # type: ignore[arg-type]
    for packed in status_pb2.Status.FromString(trailing.get(_DETAILS_KEY, b"")).details:
        info = error_details_pb2.ErrorInfo()
        if packed.Unpack(info) and info.reason == DEPOSED:
            return int(info.metadata[TERM_METADATA])
    return None
