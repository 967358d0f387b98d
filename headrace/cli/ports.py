"""Ports for the parts of a local cluster, which bind them a moment later."""

import errno
import random
import socket
from types import TracebackType

from headrace.api.addresses import LISTENING_PORTS


class Ports:
    """Takes ports that are free, and keeps them from every other local cluster of this machine.

    Clusters that start at the same moment would find the same port free, since nobody listens
    there yet. Some of Ray's processes notice only once Ray has said that it is ready, and then it
    comes up and goes down for ever. So a port is also claimed: by a socket with an abstract name,
    which is known in the same network namespace as the port and gone with this process.
    """

    def __init__(self) -> None:
        self._claims: list[socket.socket] = []

    def take(self, count: int, host: str, chance: random.Random | None = None) -> list[int]:
        """Ports that nobody listens on or has claimed, in the order of ``chance``.

        Raises:
            OSError: There are too few.
        """
        taken: list[int] = []
        for port in (chance or random.Random()).sample(LISTENING_PORTS, len(LISTENING_PORTS)):
            if self._claimed(port) and _is_free(host, port):
                taken.append(port)
            if len(taken) == count:
                return taken
        raise OSError(
            f"wanted {count} free ports between {LISTENING_PORTS.start} and {LISTENING_PORTS.stop}"
            f", got {len(taken)}: the others are in use, or claimed by other local clusters"
        )

    def _claimed(self, port: int) -> bool:
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0headrace/port/{port}")
        except OSError as error:
            claim.close()
            if error.errno != errno.EADDRINUSE:
                raise  # no claim can be made here, which says nothing about the port
            return False
        self._claims.append(claim)
        return True

    def __enter__(self) -> "Ports":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Gives all claims back."""
        for claim in self._claims:
            claim.close()
        self._claims.clear()


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        # As servers bind: what ended a moment ago does not hold its port, who listens does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
