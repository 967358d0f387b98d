"""The one loop. What is plugged into it makes it live or simulated; nothing else differs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from controlplane.domain.clock import FOREVER, Clock, Instant, after, seconds
from controlplane.domain.ids import Term
from controlplane.domain.policy import Policy
from controlplane.engine.cycle import Outcome, hold_back, run_cycle
from controlplane.engine.duties import next_due
from controlplane.engine.ports import ActionSink, DecisionLog, EventSource
from controlplane.engine.state import ClusterState, SequencedEvent


@dataclass(frozen=True, slots=True)
class CycleReport:
    """What an observer (metrics, queries) is told after each cycle.

    Attributes:
        state: The state after the cycle, its decision folded.
        events: The events it folded before deciding.
        outcome: What was decided; None while decisions are held back.
    """

    state: ClusterState
    events: tuple[SequencedEvent, ...]
    outcome: Outcome | None


def _unobserved(report: CycleReport) -> None:
    """The observer of a loop that nobody watches."""


@dataclass(frozen=True, slots=True)
class Loop:
    """The loop with all that is plugged in.

    Attributes:
        clock: The only source of time.
        events: Durable events in sequence order.
        log: Remembers decisions before anyone acts.
        actions: Makes the cluster follow.
        policies: By name; the settings choose.
        term: Reign in which this loop decides.
        hold_until: After a restart, no decision before this instant unless every node that was
            known has spoken.
        expects_strangers: Nodes that are not known may run attempts of these jobs (the store was
            restored), so ``hold_until`` is waited for whoever has spoken.
        observe: Told after each cycle.
    """

    clock: Clock
    events: EventSource
    log: DecisionLog
    actions: ActionSink
    policies: Mapping[str, Policy]
    term: Term
    hold_until: Instant = Instant(0)
    expects_strangers: bool = False
    observe: Callable[[CycleReport], None] = _unobserved

    async def run(self, state: ClusterState, until: Instant = FOREVER) -> ClusterState:
        """Runs cycles until ``until`` and returns the last state.

        Raises:
            TermLostError: Someone else decides now.
        """
        while (now := self.clock.now()) < until:
            batch = tuple(await self.events.take(self._deadline(state, now, until)))
            state = await self._cycle(state, batch)
        return state

    def _deadline(self, state: ClusterState, now: Instant, until: Instant) -> Instant:
        """When to decide again even if nothing happens: the period is only an upper limit."""
        period = after(now, seconds(state.settings.period_seconds))
        held = self.hold_until if now < self.hold_until else FOREVER
        return min(period, next_due(state, now), held, until)

    async def _cycle(self, state: ClusterState, batch: tuple[SequencedEvent, ...]) -> ClusterState:
        state = state.fold(batch)
        now = self.clock.now()
        # What runs on silent nodes is not known yet; deciding now could start it twice.
        unheard = self.expects_strangers or bool(state.silent_nodes)
        held_back = now < self.hold_until and unheard
        if held_back:
            outcome = hold_back(state, now, self.term)
        else:
            outcome = run_cycle(state, now, self.policies, self.term)
        if not outcome.changes_nothing:
            sequence = await self.log.append(outcome.decided)
            state = state.fold([SequencedEvent(sequence, outcome.decided)])
        await self.actions.carry_out(state, outcome.decided)
        self.observe(CycleReport(state, batch, None if held_back else outcome))
        return state
