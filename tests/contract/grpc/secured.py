"""A control plane with mutual TLS, and a certificate for each role."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlplane.config import Tls
from controlplane.edges.grpc_server.roles import Role
from controlplane.main import running
from tests.contract.grpc.certificates import Authority, Pair, write
from tests.contract.grpc.harness import settings

ROLES_FILE = """
identities:
  viewer.example.org: {role: viewer}
  spiffe://example.org/alice: {role: submitter, queues: [default]}
  admin.example.org: {role: admin}
  operator.example.org: {role: operator}
  node-a.example.org: {role: agent, node: node-a}
  node-b.example.org: {role: agent, node: node-b}
"""


@dataclass(frozen=True, slots=True)
class World:
    """A control plane with mutual TLS, and a certificate for each role."""

    address: str
    plane: Any
    authority: Authority
    pairs: dict[Role, Pair]


@asynccontextmanager
async def a_world(folder: Path) -> AsyncIterator[World]:
    authority = Authority()
    server = authority.sign("control plane", server=True)
    paths = write(folder, key=server.key, certificate=server.certificate, client_ca=authority.pem)
    roles = folder / "roles.yaml"
    roles.write_text(ROLES_FILE)
    pairs = {
        Role.VIEWER: authority.sign("viewer.example.org"),
        Role.SUBMITTER: authority.sign("alice", uri="spiffe://example.org/alice"),
        Role.ADMIN: authority.sign("admin.example.org"),
        Role.OPERATOR: authority.sign("operator.example.org"),
        Role.AGENT: authority.sign("node-a.example.org"),
    }
    async with running(settings(folder, tls=Tls(**paths, roles=roles))) as plane:
        yield World(plane.address, plane, authority, pairs)
