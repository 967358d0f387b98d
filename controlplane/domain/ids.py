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

TERM_LIMIT = Term(2**62)
"""No honest decider comes near it, and what counts terms (64 bits) ends soon after it."""

TERM_MOST_AHEAD = 2**32
"""How far an agent's term may be ahead of the store's. Terms grow by one with every reign, and
follow the clock's seconds after a restore, so no forgotten term is further ahead than this.
"""

Attempt = NewType("Attempt", int)
"""Counts a job's starts from 1. Agents refuse a lower attempt than they have seen."""

ATTEMPT_LIMIT = Attempt(2**62)
"""No job is started so often. An agent that claims more is not believed: what counts attempts (64
bits) ends soon after it.
"""

SequenceNumber = NewType("SequenceNumber", int)
"""Position in the event log. Order is this number; timestamps are for people."""
