"""The store's twin in memory: the same order, the same fence, nothing on a disk.

It is the door, the event source and the decision log at once, for simulations and for tests of
what stands on top of a store. The contract tests of the store run on it too.
"""

from collections.abc import Sequence
from dataclasses import replace

from controlplane.domain.clock import Instant
from controlplane.domain.event import CycleDecided, Event, JobProgressed
from controlplane.domain.ids import JobUid, SequenceNumber, Term
from controlplane.engine.ports import TermLostError
from controlplane.engine.state import ClusterState, SequencedEvent, in_replay_order


class MemoryStore:
    """An ``EventSource``, and by ``decisions`` a ``DecisionLog``.

    Attributes:
        log: All events, decisions among them, in sequence order.
        losses: Training losses by job and step.
    """

    def __init__(
        self,
        after: SequenceNumber = SequenceNumber(0),  # noqa: B008 a NewType is free
        *,
        keeps_log: bool = True,
    ) -> None:
        """Begins empty; numbers go on after ``after``. The log of a year of a large cluster does
        not fit into memory, so it need not be kept; then nothing can be loaded again.
        """
        self._after = after
        self._keeps_log = keeps_log
        self._appended = 0
        self.log: list[SequencedEvent] = []
        self.losses: dict[JobUid, dict[int, float]] = {}
        self._term = Term(0)
        self._untaken: list[SequencedEvent] = []
        self._checkpoint: tuple[ClusterState | None, int, int] = (None, 0, 0)

    def acquire_term(self, at_least: Term = Term(0)) -> Term:  # noqa: B008 a NewType is free
        """A term higher than any before; there is nobody who could hold the lease."""
        self._term = Term(max(self._term + 1, at_least))
        return self._term

    def append(self, event: Event, term: Term) -> SequenceNumber:
        """Appends what came through the door, under a term.

        Raises:
            TermLostError: A higher term was given out.
        """
        if term != self._term:
            raise TermLostError(f"term {term} is over: term {self._term} was given out")
        if isinstance(event, JobProgressed) and event.losses:
            self.losses.setdefault(event.uid, {}).update(event.losses)
            event = replace(event, losses=())
        self._appended += 1
        numbered = SequencedEvent(SequenceNumber(self._after + self._appended), event)
        if self._keeps_log:
            self.log.append(numbered)
        if not isinstance(event, CycleDecided):
            self._untaken.append(numbered)
        return numbered.sequence

    def decisions(self) -> "MemoryDecisions":
        """The decision log, to be plugged into a loop."""
        return MemoryDecisions(self)

    async def take(self, deadline: Instant) -> Sequence[SequencedEvent]:
        """Everything new. It never waits: in virtual time nothing comes while one waits."""
        taken, self._untaken = self._untaken, []
        return taken

    def save_checkpoint(self, state: ClusterState, sequence: SequenceNumber) -> None:
        """Remembers a state whose last folded number is ``sequence``."""
        last = self.log[sequence - self._after - 1].event if sequence > self._after else None
        folded_up_to = last.folded_up_to if isinstance(last, CycleDecided) else sequence
        self._checkpoint = (state, sequence, folded_up_to)

    def load(self) -> tuple[ClusterState | None, list[SequencedEvent]]:
        """The checkpoint, and what to fold into it, in the order in which it was folded."""
        state, decided_up_to, folded_up_to = self._checkpoint
        positions: dict[SequenceNumber, SequenceNumber] = {}
        later: list[SequencedEvent] = []
        for numbered in self.log:
            if isinstance(numbered.event, CycleDecided):
                if numbered.sequence <= decided_up_to:
                    continue
                positions[numbered.sequence] = numbered.event.folded_up_to
            elif numbered.sequence <= folded_up_to:
                continue
            later.append(numbered)
        return state, in_replay_order(later, positions)


class MemoryDecisions:
    """Decisions in the same log as the events; a ``DecisionLog``."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def append(self, decided: CycleDecided) -> SequenceNumber:
        """Nothing is lost in memory, so it is durable at once."""
        return self._store.append(decided, decided.term)
