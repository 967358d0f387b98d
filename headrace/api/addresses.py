"""Where the parts of a cluster look for each other when nobody says otherwise."""

CONTROL_PLANE = "127.0.0.1:7460"
"""The gRPC API: the control plane listens there, agents call it there."""
