"""Who may call what: one table, read by one gatekeeper.

A certificate's identity (a URI or DNS name of its SAN, else its CN) maps to a role by a YAML file:

    identities:
      spiffe://example.org/alice: {role: submitter, queues: [research]}
      ops.example.org: {role: admin}
      gpu-node-1.example.org: {role: agent, node: gpu-node-1}
    agents: spiffe://example.org/node/

An identity that begins with ``agents`` is the agent of the node that the rest of it names.

Without TLS (loopback, or ``--insecure-listen``) nobody can be told apart: everyone is admin.
"""

import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

_PACKAGE = "headrace.v1alpha1"
_NODE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,251}[A-Za-z0-9])?")


class Role(StrEnum):
    """What an identity is to this cluster."""

    VIEWER = "viewer"
    SUBMITTER = "submitter"
    ADMIN = "admin"
    OPERATOR = "operator"
    AGENT = "agent"


_PEOPLE = frozenset({Role.VIEWER, Role.SUBMITTER, Role.ADMIN, Role.OPERATOR})
_CHANGERS = frozenset({Role.SUBMITTER, Role.ADMIN, Role.OPERATOR})
_ADMIN = frozenset({Role.ADMIN})
_SETTERS = frozenset({Role.ADMIN, Role.OPERATOR})
_AGENT = frozenset({Role.AGENT})
_OPERATOR = frozenset({Role.OPERATOR})
_ANYONE = frozenset(Role)

ALLOWED: Mapping[str, frozenset[Role]] = {
    f"/{_PACKAGE}.JobService/SubmitJob": _CHANGERS,
    f"/{_PACKAGE}.JobService/WithdrawJob": _CHANGERS,
    f"/{_PACKAGE}.JobService/GetJob": _PEOPLE,
    f"/{_PACKAGE}.JobService/ListJobs": _PEOPLE,
    f"/{_PACKAGE}.JobService/WatchJobs": _PEOPLE,
    f"/{_PACKAGE}.JobService/StreamLogs": _PEOPLE,
    f"/{_PACKAGE}.JobService/ListEvents": _PEOPLE,
    f"/{_PACKAGE}.JobService/GetLosses": _PEOPLE,
    f"/{_PACKAGE}.NodeService/RegisterNode": _AGENT,
    f"/{_PACKAGE}.NodeService/WatchAssignments": _AGENT,
    f"/{_PACKAGE}.NodeService/Report": _AGENT,
    f"/{_PACKAGE}.NodeService/ServeLogs": _AGENT,
    f"/{_PACKAGE}.AdminService/GetCluster": _PEOPLE,
    f"/{_PACKAGE}.AdminService/ListNodes": _PEOPLE,
    f"/{_PACKAGE}.AdminService/DrainNode": _ADMIN,
    f"/{_PACKAGE}.AdminService/CloseNodes": _OPERATOR,
    f"/{_PACKAGE}.AdminService/RemoveNode": _ADMIN,
    f"/{_PACKAGE}.AdminService/PutQueue": _SETTERS,
    f"/{_PACKAGE}.AdminService/DeleteQueue": _SETTERS,
    f"/{_PACKAGE}.AdminService/ListQueues": _PEOPLE,
    f"/{_PACKAGE}.AdminService/GetPolicy": _PEOPLE,
    f"/{_PACKAGE}.AdminService/SetPolicy": _SETTERS,
    f"/{_PACKAGE}.AdminService/TryPolicy": _ADMIN,
    f"/{_PACKAGE}.AdminService/ListPolicyVersions": _PEOPLE,
    f"/{_PACKAGE}.AdminService/RollBackPolicy": _ADMIN,
    f"/{_PACKAGE}.AdminService/ListObservations": _PEOPLE,
    f"/{_PACKAGE}.AdminService/ImportMeasurements": _ADMIN,
    f"/{_PACKAGE}.AdminService/ListFits": _PEOPLE,
    f"/{_PACKAGE}.AdminService/ListForecastOutcomes": _PEOPLE,
    f"/{_PACKAGE}.AdminService/ListSwitchPrices": _PEOPLE,
    f"/{_PACKAGE}.AdminService/Explain": _PEOPLE,
    f"/{_PACKAGE}.AdminService/ExportSnapshot": frozenset({Role.ADMIN, Role.OPERATOR}),
    f"/{_PACKAGE}.AdminService/Backup": _ADMIN,
    "/grpc.health.v1.Health/Check": _ANYONE,
    "/grpc.health.v1.Health/List": _ANYONE,
    "/grpc.health.v1.Health/Watch": _ANYONE,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _ANYONE,
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": _ANYONE,
}
"""Roles that may call each RPC. What is not in it, nobody may call."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who speaks.

    Attributes:
        identity: Name of the certificate, or ``local``.
        role: What that identity is here.
        queues: Queues that a submitter may submit to.
        node: The one node that an agent speaks for; empty speaks for any (no TLS).
        trusted: Nobody was authenticated: the cluster is local and everyone is admin and agent.
    """

    identity: str
    role: Role
    queues: frozenset[str] = frozenset()
    node: str = ""
    trusted: bool = False

    def may_call(self, method: str) -> bool:
        """Whether the table lets this caller call ``method``."""
        allowed = ALLOWED.get(method)
        return allowed is not None and (self.trusted or self.role in allowed)

    def may_use_queue(self, queue: str) -> bool:
        """Whether this caller may change jobs of ``queue``."""
        return self.role in (Role.ADMIN, Role.OPERATOR) or queue in self.queues

    def speaks_for(self, node: str) -> bool:
        """Whether this caller is the agent of ``node``."""
        return self.trusted or (self.role is Role.AGENT and self.node == node)


LOCAL = Caller("local", Role.ADMIN, trusted=True)
LOCAL_OPERATOR = Caller("local-operator", Role.OPERATOR, trusted=True)
"""An operator without TLS: it says so in the metadata ``headrace-role``."""

caller: ContextVar[Caller] = ContextVar("caller")
"""Who made the call that is being served. There is none by default: who was not let in by the gate
may do nothing.
"""


class RolesFileError(Exception):
    """The mapping file is not as it must be."""


@dataclass(frozen=True, slots=True)
class RoleMap:
    """Identities of certificates and what they are."""

    callers: Mapping[str, Caller]
    agents: str = ""
    """What identities of agents begin with, before the name of their node; empty for none."""

    def find(self, identities: list[str]) -> Caller | None:
        """The first identity that is known."""
        return next((found for name in identities if (found := self._known(name))), None)

    def _known(self, name: str) -> Caller | None:
        if name in self.callers:
            return self.callers[name]
        node = name.removeprefix(self.agents)
        if not self.agents or node == name or not _NODE.fullmatch(node):
            return None
        return Caller(name, Role.AGENT, node=node)

    @classmethod
    def read(cls, path: Path) -> "RoleMap":
        """Reads the mapping file.

        Raises:
            RolesFileError: A sentence about the entry that is wrong.
        """
        try:
            document = yaml.safe_load(path.read_text())
        except (OSError, yaml.YAMLError) as error:
            raise RolesFileError(f"cannot read {path}: {error}") from error
        entries = document.get("identities") if isinstance(document, dict) else None
        if not isinstance(entries, dict):
            raise RolesFileError(f"{path}: wanted a mapping `identities`")
        callers = {str(name): _caller(path, str(name), told) for name, told in entries.items()}
        return cls(callers, _agents(path, document.get("agents", "")))


def _agents(path: Path, told: Any) -> str:
    # What ends with a name would also be the beginning of other names.
    if not isinstance(told, str) or (told and not told.endswith("/")):
        raise RolesFileError(
            f"{path}: agents: wanted what agents' identities begin with, up to and with a '/', "
            f"such as spiffe://example.org/node/, got {told!r}"
        )
    return told


def _caller(path: Path, name: str, told: Any) -> Caller:
    at = f"{path}: identity {name}"
    if not isinstance(told, dict) or told.keys() - {"role", "queues", "node"}:
        raise RolesFileError(f"{at}: wanted role, and queues or node, got {told!r}")
    try:
        role = Role(str(told.get("role")))
    except ValueError:
        raise RolesFileError(
            f"{at}: wanted a role of {', '.join(Role)}, got {told.get('role')!r}"
        ) from None
    queues, node = told.get("queues") or (), told.get("node") or ""
    if (role is Role.SUBMITTER) != bool(queues) or not isinstance(queues, list | tuple):
        raise RolesFileError(f"{at}: wanted queues for a submitter, and for nobody else")
    if (role is Role.AGENT) != bool(node) or not isinstance(node, str):
        raise RolesFileError(f"{at}: wanted exactly one node for an agent, and for nobody else")
    return Caller(name, role, frozenset(str(queue) for queue in queues), node)
