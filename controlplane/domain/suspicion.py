"""Nodes that one job had better keep off for a while: an attempt of it failed there, or could not
be joined from there, and the node, its accelerators or its network may be why.
"""

from dataclasses import dataclass

from controlplane.domain.clock import Instant, after, seconds
from controlplane.domain.ids import Attempt, NodeId
from controlplane.domain.reason import ReasonCode

FIRST_SECONDS = 600
"""How long a node is kept off after the first such failure; twice as long after each further one.

Most are over by then (a cable, a neighbour's load), and a job that grows again costs less than one
that stays small.
"""

MOST_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What speaks against a node, for one job.

    Attributes:
        node: The node.
        code: How the attempt failed; ``PLAN_REFUSED`` if a unit could not join it.
        attempt: Its number.
        until: The job keeps off the node before this.
        times: How often that was so there.
    """

    node: NodeId
    code: ReasonCode
    attempt: Attempt
    until: Instant
    times: int = 1


def again(
    known: tuple[Suspicion, ...], node: NodeId, code: ReasonCode, attempt: Attempt, at: Instant
) -> tuple[Suspicion, ...]:
    """All that is known once an attempt failed on ``node``; the newest stands last."""
    others = tuple(each for each in known if each.node != node)
    times = 1 + sum(each.times for each in known if each.node == node)
    wait = min(FIRST_SECONDS << min(times - 1, 30), MOST_SECONDS)
    return (*others, Suspicion(node, code, attempt, after(at, seconds(wait)), times))
