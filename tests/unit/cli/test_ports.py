"""The addresses of a local cluster."""

import random
import socket

from headrace.cli.local_cluster import free_ports


def test_a_home_gets_its_ports_again_and_another_one_where_somebody_listens() -> None:
    home = b"a home"
    first, second = free_ports(2, "127.0.0.1", random.Random(home))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first))
        taken.listen()
        assert first not in free_ports(2, "127.0.0.1", random.Random(home))
    assert first != second
