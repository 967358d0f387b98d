"""What becomes of a cluster's jobs, played to their end in virtual time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from controlplane.domain.changing import changed
from controlplane.domain.clock import SECOND, Instant
from controlplane.domain.ids import JobUid
from controlplane.domain.lifecycle import Stage
from controlplane.domain.node import Contact
from controlplane.domain.policy import Policy
from controlplane.domain.record import JobRecord
from controlplane.engine.state import ClusterState
from simulator.results.allocation_log import Stretch, stretches
from simulator.run import Result, continue_to_the_end
from simulator.scenario import Arrival, Costs, Scenario
from simulator.what_if.question import Changes

_HOUR = 3600 * SECOND


@dataclass(frozen=True, slots=True)
class Held:
    """For how long a job holds the same accelerators under the same plan.

    Attributes:
        start_seconds: From when on, after the snapshot.
        end_seconds: Until when.
        accelerators: How many.
        plan: Under which plan.
        nodes: Where.
    """

    start_seconds: float
    end_seconds: float
    accelerators: int
    plan: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JobForecast:
    """What becomes of one job. Times are seconds after the snapshot.

    Attributes:
        job: Its namespace and name.
        queue: Its queue.
        start_seconds: When it holds accelerators first; 0 if it does now, None if it never does.
        end_seconds: When it ends; None if it does not as far as is known.
        outcome: ``Succeeded``, ``Failed``, ``Endless`` if it runs and no end of it is known, or
            ``Waits`` if it is left without accelerators.
        reason: Why, where it does not succeed.
        completion_seconds: From its submission to its end; None without an end.
        accelerator_hours: What it holds from the snapshot on, to its end.
        reconfigurations: Planned changes of number, place or plan from the snapshot on.
        held: What it holds, one after the other.
    """

    job: str
    queue: str
    start_seconds: float | None
    end_seconds: float | None
    outcome: str
    reason: str
    completion_seconds: float | None
    accelerator_hours: float
    reconfigurations: int
    held: tuple[Held, ...]


@dataclass(frozen=True, slots=True)
class Forecast:
    """What becomes of all jobs that have not ended.

    Attributes:
        policy: Who decides.
        jobs: By uid, in order of submission.
        decisions_sha256: Hash of all decisions.
        refused: Decisions that could not be used; should be empty.
        stalled: Why it ended before all jobs did; empty if they did.
    """

    policy: str
    jobs: Mapping[JobUid, JobForecast]
    decisions_sha256: str
    refused: tuple[str, ...]
    stalled: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """What is played on.

    Attributes:
        state: The snapshot.
        at: Its instant.
        costs: What starts and changes take.
        policies: By name.
        known: How fast each job trains, those that would be submitted too.
        period_seconds: Longest virtual time between two decisions.
    """

    state: ClusterState
    at: Instant
    costs: Costs
    policies: Mapping[str, Policy]
    known: Mapping[JobUid, Arrival]
    period_seconds: float = 60.0


def forecast(
    cluster: Cluster, changes: Changes, progress: Callable[[int, Instant], None] | None = None
) -> Forecast:
    """Plays the cluster with these changes to the end of all jobs that have a known one.

    Args:
        cluster: What is played on; it stays as it is.
        changes: What changes at once.
        progress: Told, whenever a job has ended, how many have, and when.
    """
    start = _heard(cluster.state)
    arrivals = tuple(cluster.known[job.uid] for job in changes.jobs)
    there = {uid: known for uid, known in cluster.known.items() if uid in start.jobs}
    result = continue_to_the_end(
        Scenario(0, changes.nodes, arrivals, changes.queues, costs=cluster.costs),
        start,
        start_at=cluster.at,
        policy=changes.policy,
        policies=cluster.policies,
        known=there,
        changes=changes.events,
        progress=progress,
        period_seconds=cluster.period_seconds,
    )
    held: dict[JobUid, list[Stretch]] = {}
    for stretch in stretches(result.rows, result.ended_at):
        held.setdefault(stretch.job, []).append(stretch)
    asked = [*start.jobs, *(job.uid for job in changes.jobs)]
    jobs = {
        uid: _of_job(cluster, result.jobs[uid], held.get(uid, []))
        for uid in asked
        if uid in result.jobs and _is_asked_about(start.jobs.get(uid))
    }
    return Forecast(
        changes.policy, jobs, result.decisions_hash, tuple(_once(result)), result.stalled
    )


def _heard(state: ClusterState) -> ClusterState:
    """The cluster once every node has spoken that has not since the control plane started."""
    nodes = {
        name: changed(record, contact=Contact.ONLINE)
        if record.contact is Contact.SILENT
        else record
        for name, record in state.nodes.items()
    }
    return replace(state, nodes=nodes)


def _once(result: Result) -> list[str]:
    return list(dict.fromkeys(result.refused))


def _is_asked_about(record: JobRecord | None) -> bool:
    """Whether it is a job that has not ended and shall, or one that would be submitted."""
    return record is None or (record.finished_at is None and not record.withdrawn)


def _of_job(cluster: Cluster, record: JobRecord, held: Sequence[Stretch]) -> JobForecast:
    at, end = cluster.at, record.finished_at
    before = cluster.state.jobs.get(record.uid)
    succeeded = record.stage is Stage.SUCCEEDED
    if end is not None:
        outcome = str(record.stage)
    elif record.attempt is not None and cluster.known[record.uid].endless:
        outcome = "Endless"
    else:
        outcome = "Waits"
    told = record.reason is not None and outcome in ("Failed", "Waits")
    return JobForecast(
        job=record.job.full_name,
        queue=record.job.spec.queue,
        start_seconds=_seconds(held[0].start - at) if held else None,
        end_seconds=_seconds(end - at) if end is not None else None,
        outcome=outcome,
        reason=record.reason.message if told and record.reason is not None else "",
        completion_seconds=_seconds(end - record.job.submitted_at)
        if end is not None and succeeded
        else None,
        accelerator_hours=round(sum(each.accelerator_ns for each in held) / _HOUR, 6),
        reconfigurations=record.reconfigurations - (before.reconfigurations if before else 0),
        held=tuple(_joined(at, held)),
    )


def _joined(at: Instant, held: Sequence[Stretch]) -> list[Held]:
    """What was held; stretches that differ in speed alone are one."""
    found: list[Held] = []
    for each in held:
        row = each.row
        now = Held(
            _seconds(each.start - at),
            _seconds(each.end - at),
            row.accelerators,
            row.plan,
            tuple(node for node, _ in row.held),
        )
        last = found[-1] if found else None
        if (
            last is not None
            and last.end_seconds == now.start_seconds
            and (last.accelerators, last.plan, last.nodes)
            == (now.accelerators, now.plan, now.nodes)
        ):
            found[-1] = replace(last, end_seconds=now.end_seconds)
        else:
            found.append(now)
    return found


def _seconds(nanoseconds: int) -> float:
    return round(nanoseconds / SECOND, 3)
