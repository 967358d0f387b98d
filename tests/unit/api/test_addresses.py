"""Which addresses stay on this machine: what goes without TLS hangs on it."""

import pytest

from headrace.api.addresses import is_loopback


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:1",
        "127.3.2.1:1",
        "localhost:1",
        "LocalHost:1",
        "[::1]:1",
        "unix:/run/headrace.sock",
    ],
)
def test_what_stays_on_this_machine(address: str) -> None:
    assert is_loopback(address)


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1:1",
        "0.0.0.0:1",
        "[::]:1",
        "host:1",
        "127.example:1",
        "127.0.0.1.example.org:1",
        "localhost.example.org:1",
        "::1:7460",  # an address as a whole, and not that of this machine
        "[::1:1",
        "127.0.0.1",
        "localhost",
        "",
    ],
)
def test_what_others_may_reach(address: str) -> None:
    assert not is_loopback(address)
