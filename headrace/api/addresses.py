"""Where the parts of a cluster look for each other when nobody says otherwise, and which of those
places others can reach.
"""

import ipaddress

CONTROL_PLANE = "127.0.0.1:7460"
"""The gRPC API: the control plane listens there, agents call it there."""

LISTENING_PORTS = range(20_000, 32_000)
"""Where a free port is looked for that somebody else binds a moment later: below the range from
which the kernel takes ports for outgoing connections, one of which could be in use by then.
"""


PORT_MAX = 65535


def has_bad_port(address: str) -> bool:
    """Whether what stands in the place of a port, behind the last colon, is none."""
    if address.startswith("unix:") or address.endswith("]"):
        return False
    _, colon, port = address.rpartition(":")
    is_port = port.isascii() and port.isdigit() and 1 <= int(port) <= PORT_MAX
    return bool(colon) and "/" not in port and not is_port


def is_loopback(address: str) -> bool:
    """Whether ``host:port`` (or ``unix:path``) can be reached from this machine only.

    What goes without TLS hangs on it, so whatever is in doubt is not: a name that only looks like
    an address, and an IPv6 address without its brackets, whose port could be a part of it.
    """
    if address.startswith("unix:"):
        return True
    host, _, port = address.rpartition(":")
    if host.lower() == "localhost":
        return port.isdigit()
    if (":" in host) != (host.startswith("[") and host.endswith("]")):
        return False
    try:
        return port.isdigit() and ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
