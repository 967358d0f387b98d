"""The gRPC server with everything on it: services, health, reflection, roles, TLS."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import structlog
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from controlplane.edges.grpc_server.gatekeeper import Gatekeeper
from headrace.api.addresses import is_loopback
from headrace.api.generated import (
    admin_pb2,
    admin_pb2_grpc,
    jobs_pb2,
    jobs_pb2_grpc,
    nodes_pb2,
    nodes_pb2_grpc,
)
from headrace.api.keepalive import permitted_pings, pings

SERVICES = tuple(
    file.DESCRIPTOR.services_by_name[name].full_name
    for file, name in (
        (jobs_pb2, "JobService"),
        (nodes_pb2, "NodeService"),
        (admin_pb2, "AdminService"),
    )
)
_MESSAGE_BYTES = 16 * 2**20

log = structlog.get_logger(__name__)


class ListenRefusedError(Exception):
    """The address must not be listened on like this, or cannot."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of mutual TLS: our key and certificate, and who signs the callers'."""

    key: Path
    certificate: Path
    client_authority: Path

    def credentials(self) -> grpc.ServerCredentials:
        """What a secure port wants. Files that are renewed count from the next handshake on.

        Raises:
            ListenRefusedError: A file cannot be read.
        """
        try:
            first = self.contents()
        except OSError as error:
            raise ListenRefusedError(f"cannot read a TLS file: {error}") from error
        # The stubs do not know that None means "as before".
        renewal: Any = _Renewal(self, first)
        return grpc.dynamic_ssl_server_credentials(
            _configuration(first), renewal, require_client_authentication=True
        )

    def contents(self) -> tuple[bytes, bytes, bytes]:
        """Key, certificate and authority as they are now; raises OSError."""
        files = (self.key, self.certificate, self.client_authority)
        key, certificate, authority = (file.read_bytes() for file in files)
        return key, certificate, authority


class _Renewal:
    """Asked by gRPC in each handshake, in a thread of its own, whether there are new files."""

    def __init__(self, files: TlsFiles, contents: tuple[bytes, bytes, bytes]) -> None:
        self._files = files
        self._contents = contents

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        """The files' configuration if they are others than before; None keeps the present one."""
        try:
            contents = self._files.contents()
        except OSError as error:
            log.error("TLS files cannot be read; those read before stay in use", why=str(error))
            return None
        if contents == self._contents:
            return None
        # What does not fit together (a key that was renewed a moment before its certificate),
        # gRPC refuses and keeps what it has; the next handshake reads again.
        self._contents = contents
        log.info("TLS files were renewed")
        return _configuration(contents)


def _configuration(contents: tuple[bytes, bytes, bytes]) -> grpc.ServerCertificateConfiguration:
    key, certificate, authority = contents
    return grpc.ssl_server_certificate_configuration([(key, certificate)], authority)


class Health:
    """Says whether calls make sense now, for every service at once."""

    def __init__(self) -> None:
        self.servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._serving: bool | None = None

    async def set(self, *, serving: bool) -> None:
        """Serving, or not."""
        if serving == self._serving:
            return
        self._serving = serving
        status = health_pb2.HealthCheckResponse
        for name in ("", *SERVICES):
            await self.servicer.set(name, status.SERVING if serving else status.NOT_SERVING)


@dataclass(slots=True)
class Server:
    """A server that listens.

    Attributes:
        aio: The server itself.
        health: Its health.
        address: Host and port; the port that was bound where 0 was asked for.
    """

    aio: aio.Server
    health: Health
    address: str

    async def stop(self, grace_seconds: float) -> None:
        """Takes no new calls, and ends those that last longer than the grace."""
        await self.health.servicer.enter_graceful_shutdown()
        await self.aio.stop(grace_seconds)


async def start_server(
    *,
    address: str,
    tls: TlsFiles | None,
    insecure_listen: bool,
    gatekeeper: Gatekeeper,
    jobs: jobs_pb2_grpc.JobServiceServicer,
    nodes: nodes_pb2_grpc.NodeServiceServicer,
    admin: admin_pb2_grpc.AdminServiceServicer,
    options: Sequence[tuple[str, int]] = (),
) -> Server:
    """Binds, registers everything and starts.

    Raises:
        ListenRefusedError: A sentence on the address or the TLS files.
    """
    if tls is None and not insecure_listen and not is_loopback(address):
        raise ListenRefusedError(
            f"{address} can be reached from other machines and there is no TLS, so anyone could "
            "run anything; give --tls-key, --tls-certificate, --tls-client-ca and --roles, or "
            "listen on 127.0.0.1, or insist with --insecure-listen"
        )
    server = aio.server(
        options=(
            ("grpc.max_receive_message_length", _MESSAGE_BYTES),
            ("grpc.max_send_message_length", _MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),
            *pings(),
            *permitted_pings(),
            *options,
        ),
    )
    jobs_pb2_grpc.add_JobServiceServicer_to_server(jobs, gatekeeper)  # type: ignore[no-untyped-call]
    nodes_pb2_grpc.add_NodeServiceServicer_to_server(nodes, gatekeeper)  # type: ignore[no-untyped-call]
    admin_pb2_grpc.add_AdminServiceServicer_to_server(admin, gatekeeper)  # type: ignore[no-untyped-call]
    state = Health()
    health_pb2_grpc.add_HealthServicer_to_server(state.servicer, gatekeeper)
    names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
        reflection.aio.ReflectionServicer(names),  # type: ignore[attr-defined]
        gatekeeper,
    )
    server.add_generic_rpc_handlers((gatekeeper,))
    try:
        if tls is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, tls.credentials())
    except RuntimeError as error:
        raise ListenRefusedError(f"cannot listen on {address}: {error}") from error
    await state.set(serving=False)
    await server.start()
    host = address.rsplit(":", 1)[0]
    bound = address if address.startswith("unix:") else f"{host}:{port}"
    return Server(server, state, bound)
