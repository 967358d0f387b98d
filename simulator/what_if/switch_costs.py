"""What starts and changes take in a cluster that is played on: what it saw, if it saw any."""

from collections.abc import Iterator, Sequence
from statistics import median

from controlplane.domain.switch import SwitchKind
from controlplane.engine.state import ClusterState
from simulator.scenario import Costs

_NEVER = 10**12
_SECONDS_BETWEEN_REPORTS = 600.0


def costs_of(state: ClusterState, switch_seconds: float | None) -> tuple[Costs, tuple[str, ...]]:
    """What starts and changes take, and sentences on where that is from.

    Args:
        state: The cluster.
        switch_seconds: What each takes; None for what the cluster saw.
    """
    # Nothing fails in what is played but a node that is taken away, which leaves what was saved.
    rest = {"progressSeconds": _SECONDS_BETWEEN_REPORTS, "checkpointEverySteps": _NEVER}
    if switch_seconds is not None:
        told = f"each start and each change takes {switch_seconds:g} s, as --switch-seconds says"
        return Costs.of_a_switch(switch_seconds, **rest), (told,)
    restarts = list(_paid(state, SwitchKind.RESTART))
    in_memory = list(_paid(state, SwitchKind.MEMORY))
    usual = Costs()
    start = median(restarts) if restarts else usual.startSeconds + usual.checkpointSeconds
    pause = median(in_memory) if in_memory else usual.planChangeSeconds
    costs = Costs(
        startSeconds=start,
        planChangeSeconds=pause,
        joinSeconds=start,
        checkpointSeconds=0.0,
        messageSeconds=0.0,
        **rest,
    )
    return costs, (
        f"a start takes {start:.3g} s {_source(restarts, 'restarts')}",
        f"a change in memory takes {pause:.2g} s {_source(in_memory, 'changes')}",
    )


def _paid(state: ClusterState, kind: SwitchKind) -> Iterator[float]:
    for price in state.switch_prices.values():
        if price.kind is kind:
            yield from price.last


def _source(seen: Sequence[float], what: str) -> str:
    if not seen:
        return "(nothing was seen here yet; --switch-seconds says otherwise)"
    return f"(median of the last {len(seen)} {what} of this cluster)"
