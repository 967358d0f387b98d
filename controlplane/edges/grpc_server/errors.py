"""Refusals of a call: the code, a sentence, and which fields it is about."""

from collections.abc import Iterable

import grpc
from google.protobuf.any_pb2 import Any
from google.rpc import error_details_pb2, status_pb2

from controlplane.wire.violations import InvalidMessageError, Violation

DETAILS_KEY = "grpc-status-details-bin"


class RefusedError(Exception):
    """A call is refused. The gatekeeper makes the answer of it."""

    def __init__(
        self, code: grpc.StatusCode, message: str, violations: Iterable[Violation] = ()
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.violations = tuple(violations)

    def details(self) -> bytes:
        """The rich status (google.rpc.Status) that goes into the trailing metadata."""
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        if self.violations:
            packed = Any()
            packed.Pack(
                error_details_pb2.BadRequest(
                    field_violations=[
                        error_details_pb2.BadRequest.FieldViolation(
                            field=violation.field, description=violation.problem
                        )
                        for violation in self.violations
                    ]
                )
            )
            status.details.append(packed)
        return bytes(status.SerializeToString())


def invalid(field: str, problem: str) -> RefusedError:
    """One field is wrong."""
    return invalid_fields([Violation(field, problem)])


def invalid_fields(violations: Iterable[Violation]) -> RefusedError:
    """Several fields are wrong."""
    found = tuple(violations)
    return RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "; ".join(str(v) for v in found), found)


def from_invalid_message(error: InvalidMessageError) -> RefusedError:
    """A message could not be translated."""
    return invalid_fields(error.violations)


def not_found(what: str, name: str, hint: str = "") -> RefusedError:
    """Nothing of that name."""
    return RefusedError(
        grpc.StatusCode.NOT_FOUND, f"no {what} {name!r}" + (f"; {hint}" if hint else "")
    )


def precondition(message: str, violations: Iterable[Violation] = ()) -> RefusedError:
    """Not as things stand."""
    return RefusedError(grpc.StatusCode.FAILED_PRECONDITION, message, violations)


def denied(message: str) -> RefusedError:
    """The caller may not."""
    return RefusedError(grpc.StatusCode.PERMISSION_DENIED, message)


def unavailable(message: str) -> RefusedError:
    """Not now; the same call later may succeed."""
    return RefusedError(grpc.StatusCode.UNAVAILABLE, message)
