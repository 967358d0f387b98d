"""What became of each job, from its record and the allocation log."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from controlplane.baselines.layouts import requested, requested_way
from controlplane.domain.clock import SECOND, Instant
from controlplane.domain.ids import JobUid
from controlplane.domain.job import ServiceClass
from controlplane.domain.lifecycle import Stage
from controlplane.domain.record import JobRecord
from controlplane.domain.step_times import Shares
from headrace.api.plan import ExecutionPlan
from simulator.results.allocation_log import Happened, Row, lost_ns, stretches
from simulator.scenario import Arrival, Scenario

_TOLERANCE = 1e-9
"""Rounding is no broken promise."""


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """What became of a job. Times are seconds of virtual time.

    Attributes:
        name: The job.
        model_type: What it trains.
        service_class: Guaranteed or best effort.
        queue: Its tenant's queue.
        requested: Accelerators that it asks for.
        requested_plan: Under which plan; empty if it can have none.
        steps: Until it is done.
        submitted: When it was submitted.
        started: When it first held accelerators; None if never.
        ended: When it finished, or failed for good; None if it has not.
        succeeded: Whether it finished.
        promised_run: How long its request runs, its own start included; None if nobody knows.
        starting: Accelerator seconds held by its first start.
        switching: Accelerator seconds held by later starts and changes.
        training: Accelerator seconds in which it trained.
        lost: Of these, those whose steps a failure took from it.
        reconfigurations: Planned changes of number, place or plan, by either way.
        recoveries: Starts after a failure.
        slowest_share: Least of its speeds as the step times predict them, as a share of what its
            request gives; None if it never trained, or nobody knows.
    """

    name: str
    model_type: str
    service_class: ServiceClass
    queue: str
    requested: int
    requested_plan: str
    steps: int
    submitted: float
    started: float | None
    ended: float | None
    succeeded: bool
    promised_run: float | None
    starting: float
    switching: float
    training: float
    lost: float
    reconfigurations: int
    recoveries: int
    slowest_share: float | None

    @property
    def completion(self) -> float | None:
        """From its submission to its end; None if it has not succeeded."""
        return self.ended - self.submitted if self.succeeded and self.ended is not None else None

    @property
    def below_promise_as_predicted(self) -> float:
        """How far it fell below the speed of its request at its slowest; 0 if it never did."""
        share = self.slowest_share
        return 0.0 if share is None or share >= 1 - _TOLERANCE else 1 - share

    @property
    def beyond_promised_run(self) -> float:
        """How much longer than promised it took from its first start to its end, waits and changes
        in between included, as a share; 0 if it was not late.
        """
        if self.ended is None or self.started is None or not self.promised_run:
            return 0.0
        more = (self.ended - self.started) / self.promised_run - 1
        return more if more > _TOLERANCE else 0.0


@dataclass(slots=True)
class _Sums:
    starting_ns: int = 0
    switching_ns: int = 0
    training_ns: int = 0
    lost_ns: int = 0
    reconfigurations: int = 0
    recoveries: int = 0
    trained: dict[tuple[str, Shares], None] = field(default_factory=dict)
    last: Happened | None = None


@dataclass(slots=True)
class _Log:
    """What the log tells of each job."""

    sums: dict[JobUid, _Sums] = field(default_factory=dict)

    def of(self, uid: JobUid) -> _Sums:
        found = self.sums.get(uid)
        if found is None:
            found = self.sums[uid] = _Sums()
        return found


def job_outcomes(
    scenario: Scenario, jobs: Mapping[JobUid, JobRecord], rows: Sequence[Row], until: Instant
) -> list[JobOutcome]:
    """What became of each job, in order of submission.

    Args:
        scenario: What was played.
        jobs: Every job, as last seen.
        rows: The allocation log.
        until: When it was over.
    """
    log = _read(rows, until)
    return [
        _outcome(arrival, jobs[arrival.job.uid], log.of(arrival.job.uid), scenario)
        for arrival in scenario.arrivals
        if arrival.job.uid in jobs
    ]


def _read(rows: Sequence[Row], until: Instant) -> _Log:
    log = _Log()
    for row in rows:
        if not row.job:
            continue
        sums = log.of(row.job)
        again = row.event is Happened.STARTED
        if row.event is Happened.CHANGED or (again and sums.last is Happened.RELEASED):
            sums.reconfigurations += 1
        elif again and sums.last is Happened.FAILED:
            sums.recoveries += 1
        elif row.event is Happened.TRAINS:
            sums.trained[row.plan, row.shares] = None
        sums.last = row.event
    seen: set[JobUid] = set()
    for stretch in stretches(rows, until):
        sums, event = log.of(stretch.job), stretch.row.event
        if event is Happened.TRAINS:
            sums.training_ns += stretch.accelerator_ns
        elif event is Happened.STARTED and stretch.job not in seen:
            sums.starting_ns += stretch.accelerator_ns
        else:
            sums.switching_ns += stretch.accelerator_ns
        seen.add(stretch.job)
    for uid, lost in lost_ns(rows).items():
        log.of(uid).lost_ns = lost
    return log


def _outcome(arrival: Arrival, record: JobRecord, sums: _Sums, scenario: Scenario) -> JobOutcome:
    spec = record.job.spec
    times, kind = scenario.step_times, spec.accelerators.type
    asked = requested(spec)
    promised = requested_way(times, spec, kind)
    run = slowest = None
    if promised is not None:
        run = scenario.costs.startSeconds + spec.steps * promised.seconds * arrival.pace
        ways = [
            times.way(spec, kind, ExecutionPlan.parse(plan), shares)
            for plan, shares in sums.trained
        ]
        speeds = [promised.seconds / way.seconds for way in ways if way is not None]
        slowest = min(speeds, default=None)
    return JobOutcome(
        name=record.job.name,
        model_type=spec.model_type,
        service_class=spec.service_class,
        queue=spec.queue,
        requested=spec.accelerators.asked_for,
        requested_plan="" if asked is None else str(asked[1]),
        steps=spec.steps,
        submitted=record.job.submitted_at / SECOND,
        started=_seconds(record.first_started_at),
        ended=_seconds(record.finished_at),
        succeeded=record.stage is Stage.SUCCEEDED,
        promised_run=run,
        starting=sums.starting_ns / SECOND,
        switching=sums.switching_ns / SECOND,
        training=sums.training_ns / SECOND,
        lost=sums.lost_ns / SECOND,
        reconfigurations=sums.reconfigurations,
        recoveries=sums.recoveries,
        slowest_share=slowest,
    )


def _seconds(at: Instant | None) -> float | None:
    return None if at is None else at / SECOND
