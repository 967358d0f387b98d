"""One run in numbers, as they are printed and compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from controlplane.domain.clock import SECOND, Instant
from controlplane.domain.job import ServiceClass
from simulator.results.allocation_log import Row, offered_ns, stretches
from simulator.results.job_outcomes import JobOutcome
from simulator.run import Result
from simulator.scenario import Scenario

LONG_SECONDS = 600.0
"""A long job runs longer than this on what it asks for, its start aside."""


@dataclass(frozen=True, slots=True)
class Promises:
    """What became of the promise that guaranteed jobs are no slower than their request.

    Attributes:
        jobs: Guaranteed jobs.
        predicted: Those that held what is slower than their request, at any time.
        predicted_mean: How much slower at their slowest, as a share of the promised speed, over
            these.
        predicted_worst: The most.
        late: Those that took longer than promised from their first start to their end, switches
            and waits in between included.
        late_mean: How much longer, as a share of the promised time, over these.
        late_worst: The most.
    """

    jobs: int
    predicted: int
    predicted_mean: float
    predicted_worst: float
    late: int
    late_mean: float
    late_worst: float


@dataclass(frozen=True, slots=True)
class Summary:
    """One run. JCT is job completion time, from submission to finish.

    Attributes:
        policy: Who decided.
        seed: What chance was drawn from.
        jobs: Jobs in all.
        finished: Those that finished.
        jct_mean_seconds: Average JCT.
        jct_p50_seconds: Median, interpolated linearly, as all quantiles.
        jct_p99_seconds: 99th percentile.
        jct_mean_long_seconds: Average of long jobs (``LONG_SECONDS``); None if there are none.
        jct_mean_guaranteed_seconds: Average of guaranteed jobs; None if there are none.
        jct_mean_best_effort_seconds: Average of the others; None if there are none.
        makespan_seconds: From the first submission to the last finish.
        utilisation: Share of the offered accelerator time, over the makespan, that was held.
        goodput: Share of it in which jobs made progress that lasted: what they trained, less what
            failures took from them. A job's global batch never changes here, so a sample is worth
            the same everywhere, and what Sia calls goodput differs from this by a factor alone.
        fairness: Jain's index of the jobs' speeds: of what each would take alone on its request,
            its start included, over its JCT. 1 if all are slowed down alike.
        worst_slowdown: The largest JCT over that time.
        reconfigurations: Planned changes of number, place or plan, of all jobs.
        reconfiguration_share: Share of the held accelerator time that they took, and starts after
            failures.
        start_share: Share that first starts took.
        recoveries: Starts after failures.
        promises: What became of them.
        cycles: Decisions.
        events: Events that were folded.
        decisions_sha256: Hash of all decisions.
        refused: Decisions that broke a rule and were not carried out; must be empty.
    """

    policy: str
    seed: int
    jobs: int
    finished: int
    jct_mean_seconds: float | None
    jct_p50_seconds: float | None
    jct_p99_seconds: float | None
    jct_mean_long_seconds: float | None
    jct_mean_guaranteed_seconds: float | None
    jct_mean_best_effort_seconds: float | None
    makespan_seconds: float
    utilisation: float
    goodput: float
    fairness: float | None
    worst_slowdown: float | None
    reconfigurations: int
    reconfiguration_share: float
    start_share: float
    recoveries: int
    promises: Promises
    cycles: int
    events: int
    decisions_sha256: str
    refused: tuple[str, ...]


def quantile(ordered: Sequence[float], share: float) -> float:
    """A quantile of ascending numbers, interpolated linearly."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def summary_of(
    scenario: Scenario, result: Result, outcomes: Sequence[JobOutcome], policy: str
) -> Summary:
    """The numbers of one run."""
    times = sorted(_completions(outcomes))
    start = min((job.submitted for job in outcomes), default=0.0)
    end = max((job.ended for job in outcomes if job.ended is not None), default=start)
    offered, held = _accelerator_seconds(result.rows, start, end)
    starting = sum(job.starting for job in outcomes)
    switching = sum(job.switching for job in outcomes)
    useful = sum(job.training - job.lost for job in outcomes)
    speeds = [
        job.promised_run / job.completion for job in outcomes if job.promised_run and job.completion
    ]
    guaranteed = [job for job in outcomes if job.service_class is ServiceClass.GUARANTEED]
    others = [job for job in outcomes if job.service_class is not ServiceClass.GUARANTEED]
    long = [j for j in outcomes if (j.promised_run or 0.0) > LONG_SECONDS + _start(scenario)]
    return Summary(
        policy=policy,
        seed=scenario.seed,
        jobs=len(outcomes),
        finished=len(times),
        jct_mean_seconds=fmean(times) if times else None,
        jct_p50_seconds=quantile(times, 0.5) if times else None,
        jct_p99_seconds=quantile(times, 0.99) if times else None,
        jct_mean_long_seconds=_mean(long),
        jct_mean_guaranteed_seconds=_mean(guaranteed),
        jct_mean_best_effort_seconds=_mean(others),
        makespan_seconds=end - start,
        utilisation=held / offered if offered else 0.0,
        goodput=useful / offered if offered else 0.0,
        fairness=_jain(speeds),
        worst_slowdown=1 / min(speeds) if speeds else None,
        reconfigurations=sum(job.reconfigurations for job in outcomes),
        reconfiguration_share=switching / held if held else 0.0,
        start_share=starting / held if held else 0.0,
        recoveries=sum(job.recoveries for job in outcomes),
        promises=_promises(guaranteed),
        cycles=result.cycles,
        events=result.events,
        decisions_sha256=result.decisions_hash,
        refused=result.refused,
    )


def _start(scenario: Scenario) -> float:
    return scenario.costs.startSeconds


def _completions(outcomes: Sequence[JobOutcome]) -> list[float]:
    return [time for job in outcomes if (time := job.completion) is not None]


def _mean(outcomes: Sequence[JobOutcome]) -> float | None:
    times = _completions(outcomes)
    return fmean(times) if times else None


def _accelerator_seconds(rows: Sequence[Row], start: float, end: float) -> tuple[float, float]:
    first, last = Instant(round(start * SECOND)), Instant(round(end * SECOND))
    held = sum(stretch.accelerator_ns for stretch in stretches(rows, last))
    return offered_ns(rows, first, last) / SECOND, held / SECOND


def _jain(speeds: Sequence[float]) -> float | None:
    if not speeds:
        return None
    return sum(speeds) ** 2 / (len(speeds) * sum(speed**2 for speed in speeds))


def _promises(guaranteed: Sequence[JobOutcome]) -> Promises:
    below = [share for job in guaranteed if (share := job.below_promise_as_predicted)]
    beyond = [share for job in guaranteed if (share := job.beyond_promised_run)]
    return Promises(
        jobs=len(guaranteed),
        predicted=len(below),
        predicted_mean=fmean(below) if below else 0.0,
        predicted_worst=max(below, default=0.0),
        late=len(beyond),
        late_mean=fmean(beyond) if beyond else 0.0,
        late_worst=max(beyond, default=0.0),
    )
