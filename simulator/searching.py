"""The search beside the loop, in virtual time: at stated instants, and found after a stated while.

Live it takes what it takes on its machine, and its answer comes when it comes. Here the same search
is made by the same policy, of the state after a round that may be too far from the best, at most
every ``SEARCHED_EVERY_SECONDS``; its answer enters ``SEARCH_TAKES_SECONDS`` later, whatever the
machine. So equal scenarios are played equally.
"""

from collections.abc import Callable, Mapping

from controlplane.domain.clock import Instant, after, seconds
from controlplane.domain.event import Event, ProposalFound
from controlplane.domain.policy import Policy
from controlplane.engine.loop import CycleReport
from controlplane.engine.refusals import asked_about
from controlplane.engine.searching import searches_after

SEARCHED_EVERY_SECONDS = 60.0
SEARCH_TAKES_SECONDS = 5.0


class SearchBeside:
    """Told after each cycle; proposes what it finds."""

    def __init__(
        self,
        policies: Mapping[str, Policy],
        now: Callable[[], Instant],
        enters: Callable[[Instant, Event], None],
    ) -> None:
        """Has searched nothing yet.

        Args:
            policies: By name; the settings choose.
            now: The virtual instant.
            enters: Takes events that are to come in.
        """
        self._policies = policies
        self._now = now
        self._enters = enters
        self._not_before = Instant(0)

    def look(self, report: CycleReport) -> None:
        """A round was decided; searches if it may be too far from the best."""
        state, now = report.state, self._now()
        policy = searches_after(report, self._policies) if now >= self._not_before else None
        if policy is None:
            return
        self._not_before = after(now, seconds(SEARCHED_EVERY_SECONDS))
        found = policy.search(asked_about(state.snapshot(now)), state.last_sequence, lambda: False)
        if found is not None:
            self._enters(after(now, seconds(SEARCH_TAKES_SECONDS)), ProposalFound(found))
