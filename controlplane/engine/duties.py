"""Orders that follow from the rules alone, whatever the policy: they come before it is asked."""

from collections.abc import Iterator

from controlplane.domain.action import Action, EndAttempt, FailJob, ForgetJob, StopAttempt
from controlplane.domain.clock import FOREVER, Instant, after, seconds
from controlplane.domain.ids import AcceleratorId, NodeId
from controlplane.domain.lifecycle import FINISHED, IDLE
from controlplane.domain.policy import PolicySettings
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import AttemptRecord, Intent, JobRecord
from controlplane.engine.state import ClusterState

_NEVER = FOREVER


def duties(state: ClusterState, now: Instant) -> Iterator[Action]:
    """What has to be ordered now: withdrawals, time limits, suspensions, unhealthy hardware."""
    unhealthy = _unhealthy(state)
    for record in state.jobs.values():
        action = _duty(record, now, state.settings, unhealthy)
        if action is not None:
            yield action


def _unhealthy(state: ClusterState) -> dict[tuple[NodeId, AcceleratorId], str]:
    return {
        (node.id, accelerator.id): accelerator.unhealthy
        for node in state.nodes.values()
        for accelerator in node.node.accelerators
        if accelerator.unhealthy
    }


def _duty(
    record: JobRecord,
    now: Instant,
    settings: PolicySettings,
    unhealthy: dict[tuple[NodeId, AcceleratorId], str],
) -> Action | None:
    attempt = record.attempt
    if attempt is None:
        return _duty_of_idle(record, now)
    if attempt.intent is Intent.END:
        return None
    if record.withdrawn:
        reason = Reason(ReasonCode.WITHDRAWN, "its removal was asked for")
        return EndAttempt(record.uid, attempt.number, reason)
    limit = _limit_reached(record, now)
    if limit is not None:
        return EndAttempt(record.uid, attempt.number, limit)
    if unhealthy:
        for slot in attempt.placement.slots():
            if slot in unhealthy:
                text = f"accelerator {slot[1]} of {slot[0]} is quarantined: {unhealthy[slot]}"
                reason = Reason(ReasonCode.ACCELERATOR_UNHEALTHY, text)
                return EndAttempt(record.uid, attempt.number, reason)
    return _overdue(record, attempt, now, settings)


def _overdue(
    record: JobRecord, attempt: AttemptRecord, now: Instant, settings: PolicySettings
) -> Action | None:
    if attempt.intent is Intent.STOP:
        if now >= after(attempt.intent_at, seconds(settings.stop_grace_seconds)):
            reason = attempt.intent_reason or Reason(ReasonCode.PREEMPTED)
            return EndAttempt(record.uid, attempt.number, reason)
        return None
    if record.job.spec.suspend:
        reason = Reason(ReasonCode.SUSPENDED, "spec.suspend is set")
        return StopAttempt(record.uid, attempt.number, reason)
    grace = settings.start_grace_seconds
    expects_steps = record.job.spec.steps > 0 and not attempt.trained
    if expects_steps and grace and now >= after(attempt.started_at, seconds(grace)):
        text = f"it reported no step within {grace:g} s of its start"
        return EndAttempt(record.uid, attempt.number, Reason(ReasonCode.START_REFUSED, text))
    return None


def _duty_of_idle(record: JobRecord, now: Instant) -> Action | None:
    if record.withdrawn:
        return ForgetJob(record.uid, purge=record.purge)
    if record.stage in FINISHED:
        expired = now >= _expiry(record)
        return ForgetJob(record.uid) if expired else None
    limit = _limit_reached(record, now)
    return FailJob(record.uid, limit) if limit is not None else None


def _expiry(record: JobRecord) -> Instant:
    ttl = record.job.spec.ttl_seconds_after_finish
    if ttl < 0 or record.finished_at is None:
        return _NEVER
    return after(record.finished_at, seconds(ttl))


def _deadline(record: JobRecord) -> Instant:
    limit = record.job.spec.deadline_seconds
    return after(record.job.submitted_at, seconds(limit)) if limit else _NEVER


def _end_of_run_time(record: JobRecord) -> Instant:
    limit, attempt = record.job.spec.max_run_seconds, record.attempt
    if not limit or attempt is None:
        return _NEVER
    return Instant(attempt.started_at + seconds(limit) - record.held_ns)


def _limit_reached(record: JobRecord, now: Instant) -> Reason | None:
    spec = record.job.spec
    if now >= _deadline(record):
        text = f"it did not finish within {spec.deadline_seconds} s of its submission"
        return Reason(ReasonCode.DEADLINE_EXCEEDED, text)
    if now >= _end_of_run_time(record):
        text = f"it held accelerators for {spec.max_run_seconds} s, its maximum run time"
        return Reason(ReasonCode.MAX_RUN_TIME_EXCEEDED, text)
    return None


def next_due(state: ClusterState, now: Instant) -> Instant:
    """The next instant at which time alone changes what has to be done."""
    due = _NEVER
    settings = state.settings
    for record in state.jobs.values():
        candidates = [_deadline(record), _end_of_run_time(record), _expiry(record)]
        if record.stage in IDLE:
            candidates.append(record.backoff_until)
        attempt = record.attempt
        if attempt is not None and attempt.intent is Intent.STOP:
            candidates.append(after(attempt.intent_at, seconds(settings.stop_grace_seconds)))
        due = min(due, *(c for c in candidates if c > now), due)
    return due
