"""What is plugged into the loop. The live edges and the simulator's twins both fit these."""

from collections.abc import Sequence
from typing import Protocol

from controlplane.domain.clock import Instant
from controlplane.domain.event import CycleDecided
from controlplane.domain.ids import SequenceNumber
from controlplane.engine.state import ClusterState, SequencedEvent

__all__ = ["ActionSink", "DecisionLog", "EventSource", "SequencedEvent", "TermLostError"]


class TermLostError(Exception):
    """Another decider holds a higher term. This one must stop at once and do nothing more."""


class EventSource(Protocol):
    """Where events come from, in sequence order. Only events that are durable come out."""

    async def take(self, deadline: Instant) -> Sequence[SequencedEvent]:
        """Everything new: at once if there is something, else at the first event or at
        ``deadline``, whichever comes first (then possibly nothing).
        """
        ...


class DecisionLog(Protocol):
    """Remembers what was decided before anyone acts on it."""

    async def append(self, decided: CycleDecided) -> SequenceNumber:
        """Returns when the decision is durable.

        Raises:
            TermLostError: The store has given a higher term to someone else.
        """
        ...


class ActionSink(Protocol):
    """Makes the cluster follow the state. Failures come back as events."""

    async def carry_out(self, state: ClusterState, decided: CycleDecided) -> None:
        """Publishes what nodes shall run after ``decided`` was folded into ``state``.

        Called once a cycle, also when nothing was decided: the folded events may have changed
        assignments too (an address was published, an exit acknowledged).
        """
        ...
