"""Replicas of an operator: whoever was deposed does nothing more here, whatever it believes.

An operator's calls carry the name of its lease and the term under which it leads. A higher term
is made durable before its first call is served; calls under a lower one are refused from then on,
also by a control plane that was started since.
"""

import asyncio
import re
from collections.abc import Iterable

import grpc
from google.protobuf.any_pb2 import Any
from google.rpc import error_details_pb2, status_pb2

from controlplane.domain.event import OperatorTermRaised
from controlplane.domain.ids import TERM_LIMIT
from controlplane.edges.grpc_server.door import Door
from controlplane.edges.grpc_server.errors import RefusedError, invalid
from controlplane.edges.grpc_server.feed import StateFeed
from headrace.api.operator_term import DEPOSED, DOMAIN, OPERATOR_KEY, TERM_KEY, TERM_METADATA

_NAME = re.compile(r"[-a-z0-9./]{1,510}")


class DeposedError(RefusedError):
    """The caller's term is over. The answer tells the term that is in force."""

    def __init__(self, operator: str, term: int, known: int) -> None:
        super().__init__(
            grpc.StatusCode.FAILED_PRECONDITION,
            f"{operator} leads under term {known} by now, and this call is of term {term}: another "
            "replica has taken over",
        )
        self._known = known

    def details(self) -> bytes:
        packed = Any()
        packed.Pack(
            error_details_pb2.ErrorInfo(
                reason=DEPOSED, domain=DOMAIN, metadata={TERM_METADATA: str(self._known)}
            )
        )
        status = status_pb2.Status(code=self.code.value[0], message=self.message, details=[packed])
        return bytes(status.SerializeToString())


class OperatorTerms:
    """Lets the calls of present leaders in."""

    def __init__(self, feed: StateFeed, door: Door) -> None:
        self._feed = feed
        self._door = door
        self._durable: dict[str, int] = {}
        self._raising = asyncio.Lock()

    async def admit(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Returns if the call is of a term that is not over, or of an operator without terms.

        Raises:
            RefusedError: It is, or the term cannot be read.
        """
        told = dict(metadata)
        operator = told.get(OPERATOR_KEY)
        if operator is None:
            return
        name, term = str(operator), _read(told.get(TERM_KEY, ""))
        if _NAME.fullmatch(name) is None:
            raise invalid(OPERATOR_KEY, f"wanted the namespace and name of a lease, got {name!r}")
        if self._known(name) < term:
            async with self._raising:
                if self._known(name) < term:
                    await self._door.append(OperatorTermRaised(name, term, self._door.now()))
                    self._durable[name] = term
        if term < self._known(name):
            raise DeposedError(name, term, self._known(name))

    def _known(self, operator: str) -> int:
        folded = self._feed.state.operator_terms.get(operator, 0)
        return max(folded, self._durable.get(operator, 0))


def _read(text: str | bytes) -> int:
    term = int(text) if isinstance(text, str) and text.isascii() and text.isdigit() else 0
    if not 0 < term < TERM_LIMIT:
        raise invalid(TERM_KEY, f"wanted a whole number of 1 to {TERM_LIMIT - 1}, got {text!r}")
    return term
