"""Plays a cluster forward several times, each time with other run times, under its own policy.

How long steps take is drawn for each play: what is wrong about a type of model is wrong about all
its jobs, so half of the variance is shared by those. Nothing fails and nobody submits anything in
what is played; what that is wrong by, outcomes tell.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, sqrt
from statistics import NormalDist

from controlplane.domain.chance import draw_between
from controlplane.domain.clock import SECOND, Instant, after, seconds
from controlplane.domain.event import QueueChanged
from controlplane.domain.forecast import FORECAST_COVERAGE, JobForecast, Span
from controlplane.domain.ids import JobUid, NodeId
from controlplane.domain.policy import Policy
from controlplane.domain.step_time_fit import fit_key
from controlplane.engine.state import ClusterState
from controlplane.rubick.fitted import FittedTimes
from simulator.scenario import Arrival
from simulator.what_if import forecast as played
from simulator.what_if.known_steps import Fitted, KnownSteps
from simulator.what_if.question import Changes
from simulator.what_if.switch_costs import costs_of

PLAYS = 20
PERIOD_SECONDS, REPORT_SECONDS = 3_600.0, 14_400.0
"""What is played is decided whenever something happens, and after so long at the latest: jobs take
days, and to decide every minute of them would take all the time that there is. So do reports."""

_SHARED = sqrt(0.5)
_TAIL = 1e-6
"""Numbers are drawn this far from 0 and 1 at least, where a normal variable has no end."""

Spent = Callable[[], bool]


class BudgetSpentError(Exception):
    """The first play takes longer than there is time for."""


@dataclass(frozen=True, slots=True)
class Samples:
    """What became of jobs in each play.

    Attributes:
        plays: How many there were.
        steps: What is known of steps, and how.
        jobs: By job whose end can be known.
    """

    plays: int
    steps: KnownSteps
    jobs: Mapping[JobUid, Sequence[played.JobForecast]]


@dataclass(frozen=True, slots=True)
class Played:
    """What is said of it.

    Attributes:
        plays: How many there were.
        jobs: What is said of each job, not calibrated yet.
    """

    plays: int
    jobs: tuple[JobForecast, ...]


def play(
    state: ClusterState,
    at: Instant,
    policies: Mapping[str, Policy],
    *,
    plays: int = PLAYS,
    spent: Spent = lambda: False,
) -> Played:
    """What is said of a cluster's jobs after playing it; see ``sample``."""
    samples = sample(state, at, policies, plays=plays, spent=spent)
    said = (said_of(state, at, uid, found) for uid, found in samples.jobs.items())
    return Played(samples.plays, tuple(each for each in said if each is not None))


def sample(
    state: ClusterState,
    at: Instant,
    policies: Mapping[str, Policy],
    *,
    plays: int = PLAYS,
    spent: Spent = lambda: False,
) -> Samples:
    """Plays a cluster forward to the end of all jobs whose end can be known.

    Args:
        state: The cluster; it stays as it is.
        at: Its instant.
        policies: By name; the settings choose.
        plays: How often, if time allows.
        spent: Whether no time is left; a play that has begun is given up then.

    Raises:
        ValueError: The policy of the cluster is none of these.
        BudgetSpentError: Not even one play was finished.
    """
    if state.settings.policy not in policies:
        raise ValueError(f"the cluster's policy is {state.settings.policy}, which is none of these")
    costs = costs_of(state, None)[0].model_copy(update={"progressSeconds": REPORT_SECONDS})
    steps = KnownSteps(state, at, _fitted(state, at))
    known = steps.all_there()
    off = {
        uid: steps.deviation(state.jobs[uid].job, state.jobs[uid])
        for uid, arrival in known.items()
        if not arrival.endless
    }
    if not off:
        return Samples(0, steps, {})
    # Something that happens at once and changes nothing, so that it is decided at once.
    wakes = tuple(map(QueueChanged, list(state.queues.values())[:1]))
    changes = Changes((), (), (), wakes, state.settings.policy, ())
    found: dict[JobUid, list[played.JobForecast]] = {uid: [] for uid in off}
    done = 0
    for number in range(plays):
        drawn = _drawn(known, off, number)
        cluster = played.Cluster(state, at, costs, policies, drawn, PERIOD_SECONDS)
        try:
            made = played.forecast(cluster, changes, lambda *_: _give_up(spent))
        except BudgetSpentError:
            break
        done += 1
        for uid, each in made.jobs.items():
            if uid in found:
                found[uid].append(each)
        if spent():
            break
    if not done:
        raise BudgetSpentError("one play takes longer than there is time for")
    return Samples(done, steps, found)


def _give_up(spent: Spent) -> None:
    if spent():
        raise BudgetSpentError


def _fitted(state: ClusterState, at: Instant) -> Fitted:
    return Fitted(
        FittedTimes()(state.snapshot(at)),
        lambda model_type, kind: fit_key(model_type, kind) in state.fits,
    )


def _drawn(
    known: Mapping[JobUid, Arrival], off: Mapping[JobUid, float], number: int
) -> dict[JobUid, Arrival]:
    """The jobs with their paces drawn; those of the first play are as predicted."""
    if number == 0:
        return dict(known)
    return {
        uid: replace(each, pace=each.pace * exp(off.get(uid, 0.0) * _normal(each, number)))
        for uid, each in known.items()
    }


def _normal(arrival: Arrival, number: int) -> float:
    job = arrival.job
    shared = _standard(number, "type", job.spec.model_type or job.uid)
    return _SHARED * (shared + _standard(number, "job", job.uid))


def _standard(number: int, *names: object) -> float:
    return NormalDist().inv_cdf(draw_between(_TAIL, 1.0 - _TAIL, number, *names))


def said_of(
    state: ClusterState, at: Instant, uid: JobUid, found: Sequence[played.JobForecast]
) -> JobForecast | None:
    """What is said of a job; None if most plays know no end of it."""
    ends = [each.end_seconds for each in found if each.outcome == "Succeeded"]
    known = [end for end in ends if end is not None]
    if len(known) * 2 <= len(found):
        return None
    record = state.jobs[uid]
    end = span(at, known)
    started = record.first_started_at is not None
    first = [each.start_seconds for each in found if each.start_seconds is not None]
    start = None if started or not first else span(at, first)
    held = [stretch.nodes[0] for each in found for stretch in each.held[-1:]]
    return JobForecast(
        uid=uid,
        generation=record.job.generation,
        made_at=at,
        started=started,
        coverage=FORECAST_COVERAGE,
        end=end,
        start=start,
        played_end=end,
        played_start=start,
        accelerator_type=_type_of(state, held[0]) if held else "",
    )


def span(at: Instant, later: Sequence[float]) -> Span:
    """The interval that holds so many seconds after an instant with the coverage of forecasts."""
    tail = (1.0 - FORECAST_COVERAGE) / 2.0
    low, median, high = (quantile(later, share) for share in (tail, 0.5, 1.0 - tail))
    return Span(after(at, seconds(low)), after(at, seconds(median)), after(at, seconds(high)))


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which a share of the values lie, between neighbours by proportion."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def _type_of(state: ClusterState, name: str) -> str:
    record = state.nodes.get(NodeId(name))
    own = record.node.accelerators if record is not None else ()
    return own[0].type if own else ""


def seconds_between(start: Instant, end: Instant) -> float:
    """How many seconds one is after the other."""
    return (end - start) / SECOND
