"""Where the parts of a cluster look for each other when nobody says otherwise."""

CONTROL_PLANE = "127.0.0.1:7460"
"""The gRPC API: the control plane listens there, agents call it there."""

LISTENING_PORTS = range(20_000, 32_000)
"""Where a free port is looked for that somebody else binds a moment later: below the range from
which the kernel takes ports for outgoing connections, one of which could be in use by then.
"""
