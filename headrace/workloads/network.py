"""Which network interface the ranks of an attempt shall use.

Left alone, gloo takes the address that the host's name resolves to, which on many machines is a
loopback address that no other node can reach. The way to the rendezvous is known to work.
"""

import fcntl
import os
import socket
import struct

_SIOCGIFADDR = 0x8915
_VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


def interface_of(address: str) -> str | None:
    """Name of the interface that has this IPv4 address; None where that cannot be told."""
    try:
        wanted = socket.inet_aton(socket.gethostbyname(address))
    except OSError:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(
                    probe.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15])
                )
            except OSError:
                continue  # this one has no IPv4 address
            # All of 127.0.0.0/8 belongs to the loopback interface, which answers 127.0.0.1.
            found = answer[20:24]
            if found == wanted or (found[0] == wanted[0] == 127):
                return name
    return None


def address_towards(host: str, port: int) -> str:
    """This node's own address on the way to ``host``."""
    with socket.create_connection((host, port), timeout=10) as way:
        return str(way.getsockname()[0])


def use_interface_of(address: str) -> None:
    """Have gloo and NCCL use this address's interface, unless someone has chosen already."""
    name = interface_of(address)
    if name is not None:
        for variable in _VARIABLES:
            os.environ.setdefault(variable, name)
