"""A stream on which nothing comes notices within half a minute that nobody is there any more."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from headrace.api import keepalive
from headrace.client.client import Client
from headrace.client.context import Context
from headrace.client.trouble import CallError, Kind

SETTINGS = b"\0\0\0\4\0\0\0\0\0"
"""An HTTP/2 server's first frame, with nothing in it."""


@contextmanager
def a_silent_server() -> Iterator[str]:
    """Takes connections and is never heard again, like a host that lost its network."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connected: list[socket.socket] = []

        def accept() -> None:
            try:
                while True:
                    connected.append(listening.accept()[0])
                    connected[-1].sendall(SETTINGS)
            except OSError:
                return

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
            for each in connected:
                each.close()


def test_a_reader_notices_a_host_that_has_vanished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepalive, "PING_SECONDS", 0.1)
    monkeypatch.setattr(keepalive, "ANSWER_SECONDS", 0.1)
    with a_silent_server() as address, Client(Context(address)) as client:
        # gRPC's own limit is a minute; this one ends the call, and the test, long before.
        giving_up = threading.Timer(20, client.close)
        giving_up.start()
        try:
            with pytest.raises(CallError, match="it has gone silent") as noticed:
                next(client.stream_logs("uid", attempt=1, unit=0, tail_lines=-1, follow=True))
        finally:
            giving_up.cancel()
            giving_up.join()
    assert noticed.value.kind is Kind.UNREACHABLE, "so it is asked again"


def test_the_server_permits_the_pings_that_all_send() -> None:
    twice = 2 * keepalive.LEAST_PING_SECONDS
    assert twice <= keepalive.PING_SECONDS, "the network may bring two close together"
    assert keepalive.PING_SECONDS + keepalive.ANSWER_SECONDS <= 60
