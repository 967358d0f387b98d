"""After which rounds a longer search beside the loop is worth its while. Pure."""

from collections.abc import Mapping

from controlplane.domain.policy import Policy, SearchingPolicy
from controlplane.engine.loop import CycleReport


def searches_after(report: CycleReport, policies: Mapping[str, Policy]) -> SearchingPolicy | None:
    """The policy that should search for something better than a round.

    Args:
        report: The round.
        policies: By name; the settings choose.

    Returns:
        None if it searches nothing, if the round is near enough to the best, or if nothing of it
        was carried out: how good it was is not known then.
    """
    outcome, settings = report.outcome, report.state.settings
    if outcome is None or outcome.optimality is None or outcome.refused_whole:
        return None
    policy = policies.get(settings.policy)
    if not isinstance(policy, SearchingPolicy):
        return None
    return policy if policy.wants_search(dict(settings.knobs), outcome.optimality) else None
