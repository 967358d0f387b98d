"""Keeps the certificates of an installation: makes them once, renews them, signs those of nodes."""
