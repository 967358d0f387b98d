"""What can go wrong with a call, as a sentence and a kind that decides the exit code."""

from dataclasses import dataclass
from enum import StrEnum

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status


class Kind(StrEnum):
    """Kinds of trouble that a caller can act on."""

    NOT_FOUND = "NotFound"
    REFUSED = "Refused"
    OUTDATED = "Outdated"
    """What was asked for is from before, or after, all that the control plane remembers."""
    UNREACHABLE = "Unreachable"
    TIMED_OUT = "TimedOut"
    FAILED = "Failed"


_KINDS = {
    grpc.StatusCode.NOT_FOUND: Kind.NOT_FOUND,
    grpc.StatusCode.INVALID_ARGUMENT: Kind.REFUSED,
    grpc.StatusCode.FAILED_PRECONDITION: Kind.REFUSED,
    grpc.StatusCode.ALREADY_EXISTS: Kind.REFUSED,
    grpc.StatusCode.PERMISSION_DENIED: Kind.REFUSED,
    grpc.StatusCode.UNAUTHENTICATED: Kind.REFUSED,
    grpc.StatusCode.OUT_OF_RANGE: Kind.OUTDATED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Kind.REFUSED,
    grpc.StatusCode.UNAVAILABLE: Kind.UNREACHABLE,
    # gRPC's answer to a call that reaches a server which is just ending.
    grpc.StatusCode.CANCELLED: Kind.UNREACHABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: Kind.TIMED_OUT,
}


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of the request that the server refused."""

    field: str
    description: str


class CallError(Exception):
    """A call did not do what was asked; the text is for people."""

    def __init__(
        self, kind: Kind, sentence: str, violations: tuple[FieldViolation, ...] = ()
    ) -> None:
        super().__init__(sentence)
        self.kind = kind
        self.violations = violations

    def __str__(self) -> str:
        told = super().__str__()
        lines = (f"{each.field}: {each.description}" for each in self.violations)
        # A server that names one field says so in its sentence already.
        return "\n".join((told, *(f"  {line}" for line in lines if line not in told)))


def explained(error: grpc.RpcError, server: str) -> CallError:
    """The trouble behind a failed call to ``server``."""
    code, details = error.code(), error.details() or ""
    kind = _KINDS.get(code, Kind.FAILED)
    if kind is Kind.UNREACHABLE:
        return CallError(
            kind,
            f"no control plane answers at {server}: {_shortened(details)}. Is it running? "
            "`headrace status` lists the local cluster's parts, `headrace up` starts them",
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return CallError(kind, f"the control plane at {server} did not answer in time")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return CallError(
            kind,
            f"the control plane at {server} does not know this call; it is another version "
            "(`headrace version` shows both)",
        )
    return CallError(kind, _sentence(error, details), _violations(error))


def _sentence(error: grpc.RpcError, details: str) -> str:
    """The server's own words, with what its error details add."""
    told = details or f"the control plane answered {error.code().name} without a word"
    links = [
        link.description or link.url
        for help_given in _details(error, error_details_pb2.Help)
        for link in help_given.links
    ]
    return ". ".join((told.rstrip("."), *links)) if links else told


def _violations(error: grpc.RpcError) -> tuple[FieldViolation, ...]:
    found = [
        FieldViolation(each.field, each.description)
        for request in _details(error, error_details_pb2.BadRequest)
        for each in request.field_violations
    ]
    found += [
        FieldViolation(each.subject or each.type, each.description)
        for failure in _details(error, error_details_pb2.PreconditionFailure)
        for each in failure.violations
    ]
    return tuple(found)


def _details(error: grpc.RpcError, kind: type) -> list:  # type: ignore[type-arg]
    """The details of one kind that came with the status."""
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
    except (ValueError, AttributeError):  # details of another status, or none
        return []
    found = []
    for packed in status.details if status is not None else ():
        if packed.Is(kind.DESCRIPTOR):  # type: ignore[attr-defined]
            message = kind()
            packed.Unpack(message)
            found.append(message)
    return found


def _shortened(details: str) -> str:
    """gRPC's words for a failed connection, without its addresses in several spellings."""
    if "Connection refused" in details:
        return "connection refused"
    if "ping timeout" in details:
        return "it has gone silent"
    if details.upper() == "CANCELLED":
        return "it was just ending"
    if "handshake" in details.lower() or "ssl" in details.lower():
        return "the TLS handshake failed; check --tls-ca, --tls-cert and --tls-key"
    return details.split(";")[0][:120] or "no connection"
