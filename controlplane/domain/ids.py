"""Names of things. Each is a type of its own, so that a job's uid cannot pass for a node's name."""

from typing import NewType

JobUid = NewType("JobUid", str)
"""Minted once by the owner of the object; the same name after a delete is a new uid."""

NodeId = NewType("NodeId", str)
"""The name an agent registers its node under."""

AcceleratorId = NewType("AcceleratorId", str)
"""A GPU's UUID, or a stable slot name of the node. Never an index."""

QueueName = NewType("QueueName", str)

Term = NewType("Term", int)
"""The reign of one decider. Agents refuse assignments of a lower term than they have seen."""

Attempt = NewType("Attempt", int)
"""Counts a job's starts from 1. Agents refuse a lower attempt than they have seen."""

SequenceNumber = NewType("SequenceNumber", int)
"""Position in the event log. Order is this number; timestamps are for people."""
