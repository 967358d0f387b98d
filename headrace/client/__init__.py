"""Talking to a control plane: where it is, and calls that say in sentences what went wrong."""
