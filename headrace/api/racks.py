"""How a node tells the rack that it is in."""

RACK_LABEL = "headrace.dev/rack"
"""The label whose value is the rack. Nodes without it are in no rack with others, as far as anybody
knows.
"""
