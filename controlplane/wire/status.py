"""A job's record -> the status that people and operators see: conditions, never a phase.

Conditions say what is true *now*. ``Unknown`` is said of a job whose nodes have not been heard
since the control plane started: it trains on, or it does not.
"""

from collections.abc import Collection
from dataclasses import dataclass

from controlplane.domain.clock import SECOND, Instant
from controlplane.domain.forecast import JobForecast
from controlplane.domain.ids import JobUid, NodeId
from controlplane.domain.job import Job
from controlplane.domain.lifecycle import FINISHED, Stage
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import AttemptRecord, JobRecord
from controlplane.domain.switch import Switch
from controlplane.wire.forecasts import tell_forecast
from controlplane.wire.translate import progress_to_wire, reason_to_wire, timestamp, unit_to_wire
from headrace.api.generated import common_pb2, jobs_pb2

_TOLD_MOST = 64
"""Entries of a status, of what may be many."""

_DEFAULT_REASON = {
    Stage.QUEUED: ReasonCode.WAITING_FOR_ACCELERATORS,
    Stage.SUSPENDED: ReasonCode.SUSPENDED,
    Stage.STARTING: ReasonCode.STARTED,
    Stage.RUNNING: ReasonCode.RUNNING,
    Stage.STOPPING: ReasonCode.RUNNING,
    Stage.BACKING_OFF: ReasonCode.BACKING_OFF,
    Stage.SUCCEEDED: ReasonCode.SUCCEEDED,
    Stage.FAILED: ReasonCode.RANK_FAILED,
}


@dataclass(frozen=True, slots=True)
class _Claim:
    type: str
    status: str
    reason: ReasonCode
    message: str
    since: Instant | None


def _truth(holds: bool) -> str:
    return "True" if holds else "False"


def _claims(record: JobRecord, unheard: Collection[NodeId]) -> list[_Claim]:
    stage, attempt = record.stage, record.attempt
    reason = record.reason or Reason(_DEFAULT_REASON[stage])
    why, says = reason.code, reason.message
    up = attempt is not None and attempt.is_up
    # A condition changed when what it says began or ended; where that never was, at submission.
    ended = {stage: record.finished_at}
    admission = attempt.started_at if attempt else record.idle_since
    up_since = (attempt.up_at or attempt.started_at) if attempt and up else record.ran_until
    trains = up and stage in (Stage.RUNNING, Stage.STOPPING)
    runs = _truth(trains)
    run_reason, run_says = (ReasonCode.RUNNING, "") if trains else (why, says)
    silent = sorted(attempt.placement.nodes & set(unheard)) if attempt else []
    if silent:
        runs, run_reason = "Unknown", ReasonCode.RECOVERING
        run_says = f"{', '.join(silent)} not heard of since the control plane started"
    change = attempt.change if attempt else None
    changes, changes_since = change or (reason, record.reconfigured_at)
    return [
        _Claim("Admitted", _truth(attempt is not None), why, says, admission),
        _Claim("Scheduled", _truth(up), why, says, up_since),
        _Claim("Running", runs, run_reason, run_says, up_since),
        _Claim(
            "Reconfiguring",
            _truth(change is not None),
            changes.code,
            changes.message,
            changes_since,
        ),
        _Claim(
            "Succeeded",
            _truth(stage is Stage.SUCCEEDED),
            why,
            says,
            ended.get(Stage.SUCCEEDED),
        ),
        _failed(record, why, says),
        _suspended(record, says),
        _missed(record),
    ]


def _failed(record: JobRecord, why: ReasonCode, says: str) -> _Claim:
    if record.stage is Stage.FAILED:
        return _Claim("Failed", "True", why, says, record.finished_at)
    return _Claim("Failed", "False", ReasonCode.NOT_FAILED, "", None)


def _suspended(record: JobRecord, says: str) -> _Claim:
    since = record.suspended_at
    if record.stage is Stage.SUSPENDED:
        return _Claim("Suspended", "True", ReasonCode.SUSPENDED, says, since)
    if record.job.spec.suspend and record.stage not in FINISHED:
        # Asked for, and on its way: it still holds something.
        return _Claim("Suspended", "False", ReasonCode.SUSPENDED, says, since)
    return _Claim("Suspended", "False", ReasonCode.NOT_SUSPENDED, "", since)


def _missed(record: JobRecord) -> _Claim:
    """Whether the newest checkpoint that was due is missing."""
    gap = record.missed
    if gap is not None and gap.until is None:
        says = f"no checkpoint of step {gap.step}: {gap.reason.message}"
        return _Claim("CheckpointMissed", "True", gap.reason.code, says, gap.since)
    over = gap.until if gap is not None else None
    return _Claim("CheckpointMissed", "False", ReasonCode.CHECKPOINT_NOT_MISSED, "", over)


def conditions(record: JobRecord, unheard: Collection[NodeId] = ()) -> list[common_pb2.Condition]:
    """Every condition of a job.

    Args:
        record: The job.
        unheard: Nodes that have not spoken since the control plane started.
    """
    generation = record.attempt.generation if record.attempt else record.job.generation
    return [
        common_pb2.Condition(
            type=claim.type,
            status=claim.status,
            reason=claim.reason.value,
            message=claim.message,
            observed_generation=generation,
            last_transition_time=timestamp(claim.since or record.job.submitted_at),
        )
        for claim in _claims(record, unheard)
    ]


def held_seconds(record: JobRecord, now: Instant) -> float:
    """Accelerator-seconds held so far, the present attempt included."""
    held: int = record.held_accelerator_ns
    attempt = record.attempt
    if attempt is not None:
        released = {known.unit: known.at for known in attempt.exits}
        for unit in attempt.units:
            until = released.get(unit.index, now)
            held += len(unit.accelerators) * max(0, until - attempt.held_since(unit.index))
    return held / SECOND


def job_to_wire(
    record: JobRecord,
    now: Instant,
    unheard: Collection[NodeId] = (),
    forecast: JobForecast | None = None,
) -> jobs_pb2.Job:
    """A job with its status at ``now``.

    Args:
        record: The job.
        now: The present instant.
        unheard: Nodes that have not spoken since the control plane started.
        forecast: When it is predicted to start and to end; None if nobody can say.
    """
    job, attempt = record.job, record.attempt
    status = jobs_pb2.JobStatus(
        stage=record.stage.value,
        reason=reason_to_wire(record.reason),
        preempted=reason_to_wire(record.preempted),
        conditions=conditions(record, unheard),
        attempt=record.attempts_made,
        plan=str(attempt.plan_in_force) if attempt else "",
        units=[unit_to_wire(unit) for unit in attempt.units] if attempt else (),
        progress=progress_to_wire(record.progress, job.spec.steps),
        failures=record.failures,
        reconfigurations=record.reconfigurations,
        first_started_at=timestamp(record.first_started_at),
        finished_at=timestamp(record.finished_at),
        withdrawn=record.withdrawn,
        observed_generation=attempt.generation if attempt else job.generation,
        held_accelerator_seconds=held_seconds(record, now),
        switches=[_switch_to_wire(switch) for switch in record.switches],
        plan_asked_for=_plan_asked_for(attempt),
        out_of_memory=[
            jobs_pb2.OutOfMemory(plan=str(plan), type=kind)
            for kind, plan in record.out_of_memory[-_TOLD_MOST:]
        ],
        suspected_nodes=_suspected(record, now),
    )
    wire = identity_to_wire(job)
    wire.manifest_json = job.spec.manifest_json
    wire.attempt_in_pods = attempt.number if attempt and job.spec.own_pod else 0
    wire.status.CopyFrom(status)
    if forecast is not None and record.finished_at is None and not record.withdrawn:
        tell_forecast(wire.status, record, forecast)
    return wire


def _plan_asked_for(attempt: AttemptRecord | None) -> str:
    if attempt is None or attempt.placement.plan == attempt.plan_in_force:
        return ""
    return str(attempt.placement.plan)


def _suspected(record: JobRecord, now: Instant) -> list[jobs_pb2.SuspectedNode]:
    kept_off = [each for each in record.suspicions if now < each.until]
    return [
        jobs_pb2.SuspectedNode(
            node=each.node,
            reason=each.code.value,
            attempt=each.attempt,
            until=timestamp(each.until),
        )
        for each in kept_off[-_TOLD_MOST:]
    ]


def _switch_to_wire(switch: Switch) -> jobs_pb2.Switch:
    return jobs_pb2.Switch(
        kind=switch.kind.value,
        before=str(switch.before),
        after=str(switch.after),
        accelerators_before=switch.accelerators_before,
        accelerators_after=switch.accelerators_after,
        reason=switch.reason.value,
        step=switch.step,
        ordered_at=timestamp(switch.ordered_at),
        done_at=timestamp(switch.done_at),
        stood_still_seconds=switch.stood_still_seconds,
        phases=[common_pb2.Phase(name=name, seconds=took) for name, took in switch.phases],
    )


def identity_to_wire(job: Job) -> jobs_pb2.Job:
    """Who a job is, without manifest and status."""
    return jobs_pb2.Job(
        uid=job.uid,
        namespace=job.namespace,
        name=job.name,
        generation=job.generation,
        owner=job.owner.value,
        submitted_at=timestamp(job.submitted_at),
        submitter=job.submitter,
        queue=job.spec.queue,
        priority=job.spec.priority,
    )


def gone_to_wire(uid: JobUid, namespace: str, name: str) -> jobs_pb2.Job:
    """A job that was forgotten."""
    return jobs_pb2.Job(uid=uid, namespace=namespace, name=name)
