"""Nodes of Kubernetes: what is kept off them there is kept off them here."""
