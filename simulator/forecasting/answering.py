"""From a state to what is predicted of its jobs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from controlplane.domain.clock import Instant
from controlplane.domain.forecast import Forecasts, JobForecast
from controlplane.domain.ids import SequenceNumber
from controlplane.domain.policy import Policy
from controlplane.engine.state import ClusterState
from simulator.forecasting.calibrating import Calibrated
from simulator.forecasting.playing import PLAYS, play

JOBS_TOLD = 1_000
"""So many jobs are told of at once: first those of which nothing was told, then those that end
soonest. In a longer queue the others come next time, or have no forecast yet."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked, beside the state.

    Attributes:
        made_of: Last event of the state.
        at: Instant of the state.
        plays: How often it is played, if time allows.
        budget_seconds: For how long.
    """

    made_of: SequenceNumber
    at: Instant
    plays: int = PLAYS
    budget_seconds: float = 30.0


def answered(
    asked: Asked,
    state: ClusterState,
    policies: Mapping[str, Policy],
    monotonic_seconds: Callable[[], float],
) -> Forecasts:
    """What is predicted of a cluster's jobs.

    Args:
        asked: What is asked.
        state: The cluster, with what came true before.
        policies: By name.
        monotonic_seconds: Tells what playing took.

    Raises:
        ValueError: The policy of the cluster is none of these.
        BudgetSpentError: The cluster is too large for the time that there is.
    """
    began = monotonic_seconds()
    found = play(
        state,
        asked.at,
        policies,
        plays=asked.plays,
        spent=lambda: monotonic_seconds() - began > asked.budget_seconds,
    )
    calibrated = Calibrated.by(state.forecast_outcomes)
    jobs = sorted(found.jobs, key=lambda each: _turn(each, state))[:JOBS_TOLD]
    told = tuple(calibrated.correct(each) for each in jobs)
    took = round(monotonic_seconds() - began, 3)
    return Forecasts(asked.made_of, asked.at, found.plays, took, told)


def _turn(said: JobForecast, state: ClusterState) -> tuple[bool, Instant]:
    known = state.forecasts.get(said.uid)
    new = known is None or known.newest.started != said.started
    return not new, said.end.median if said.end is not None else said.made_at
