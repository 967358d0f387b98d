"""The addresses of a local cluster."""

import random
import socket
from collections.abc import Iterator

import pytest

from headrace.cli.ports import Ports

HOME = b"a home"


@pytest.fixture
def ports() -> Iterator[Ports]:
    with Ports() as mine:
        yield mine


def test_a_home_gets_its_ports_again_and_another_one_where_somebody_listens(ports: Ports) -> None:
    with Ports() as before:
        first, second = before.take(2, "127.0.0.1", random.Random(HOME))
    assert first != second
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first))
        taken.listen()
        assert first not in ports.take(2, "127.0.0.1", random.Random(HOME))


def test_two_clusters_that_start_at_the_same_moment_share_no_port(ports: Ports) -> None:
    """Neither listens yet, and both look at the same candidates in the same order."""
    mine = ports.take(9, "127.0.0.1", random.Random(HOME))
    with Ports() as others:
        theirs = others.take(9, "127.0.0.1", random.Random(HOME))
    assert not set(mine) & set(theirs)
    assert not set(mine) & set(ports.take(9, "127.0.0.1", random.Random(HOME)))
