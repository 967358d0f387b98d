"""What becomes of a job when its attempt has ended and all its accelerators are released."""

from dataclasses import replace

from controlplane.domain.clock import Duration, Instant, after, seconds
from controlplane.domain.lifecycle import Stage
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import AttemptRecord, JobRecord, Outcome, UnitExit

PLANNED = frozenset(
    {
        ReasonCode.SHRUNK_FOR_OTHERS,
        ReasonCode.GROWN_INTO_FREE,
        ReasonCode.MOVED_OFF_NODE,
        ReasonCode.SPEC_CHANGED,
        ReasonCode.PREEMPTED,
        ReasonCode.SUSPENDED,
        ReasonCode.WITHDRAWN,
    }
)
"""The control plane's own wish, whatever the ranks made of it on the way out."""

FINAL = frozenset({ReasonCode.DEADLINE_EXCEEDED, ReasonCode.MAX_RUN_TIME_EXCEEDED})
"""The job is not tried again."""

NOT_ITS_FAULT = frozenset(
    {
        ReasonCode.NODE_LOST,
        ReasonCode.RAY_LOST,
        ReasonCode.ACCELERATOR_UNHEALTHY,
        ReasonCode.FENCED,
    }
)
"""Failures that do not count against the job's retries."""


def conclude(record: JobRecord, attempt: AttemptRecord, at: Instant) -> JobRecord:
    """The job after its attempt's last unit was released at ``at``."""
    record = replace(_with_time_held(record, attempt), attempt=None)
    outcomes = {known.outcome for known in attempt.exits}
    wish = attempt.intent_reason
    if outcomes == {Outcome.SUCCEEDED}:
        done = Reason(ReasonCode.SUCCEEDED, f"finished at step {record.progress.step}")
        return replace(record, stage=Stage.SUCCEEDED, reason=done, finished_at=at)
    if wish is not None and wish.code in FINAL:
        return replace(record, stage=Stage.FAILED, reason=wish, finished_at=at)
    if wish is not None and wish.code in PLANNED:
        changed = wish.code not in (ReasonCode.SUSPENDED, ReasonCode.WITHDRAWN)
        return replace(
            _idle(record), reconfigurations=record.reconfigurations + (1 if changed else 0)
        )
    if outcomes <= {Outcome.STOPPED, Outcome.SUCCEEDED, Outcome.NEVER_STARTED}:
        # Someone outside asked the ranks to stop (SIGTERM). They saved; nothing failed.
        return _idle(record)
    return _after_failure(record, cause_of(attempt), at)


def _idle(record: JobRecord) -> JobRecord:
    stage = Stage.SUSPENDED if record.job.spec.suspend else Stage.QUEUED
    return replace(record, stage=stage)


def cause_of(attempt: AttemptRecord) -> Reason:
    """Why the attempt failed: what came first and was no mere consequence."""
    if attempt.intent_reason is not None and attempt.intent_reason.code in NOT_ITS_FAULT:
        return attempt.intent_reason

    def weight(known: UnitExit) -> tuple[bool, bool, int]:
        lost = known.outcome is not Outcome.FAILED
        return (known.reason is None, lost and known.reason is None, known.at)

    first = min(attempt.exits, key=weight)
    return (
        first.reason or attempt.intent_reason or Reason(ReasonCode.RANK_FAILED, "no reason given")
    )


def _after_failure(record: JobRecord, cause: Reason, at: Instant) -> JobRecord:
    spec = record.job.spec
    failures = record.failures + (0 if cause.code in NOT_ITS_FAULT else 1)
    if failures > spec.max_retries:
        message = f"attempt {record.attempts_made} failed and no retry is left: {cause.message}"
        return replace(
            record,
            stage=Stage.FAILED,
            failures=failures,
            reason=Reason(ReasonCode.RETRIES_EXHAUSTED, message),
            finished_at=at,
        )
    if spec.suspend:
        return replace(record, stage=Stage.SUSPENDED, failures=failures, reason=cause)
    doublings = min(max(0, failures - 1), 30)
    wait_seconds = min(spec.backoff_seconds * 2**doublings, spec.backoff_max_seconds)
    return replace(
        record,
        stage=Stage.BACKING_OFF,
        failures=failures,
        backoff_until=after(at, seconds(wait_seconds)),
        reason=cause,
    )


def _with_time_held(record: JobRecord, attempt: AttemptRecord) -> JobRecord:
    last = max(known.at for known in attempt.exits)
    held = max(0, last - attempt.started_at)
    size = {unit.index: len(unit.accelerators) for unit in attempt.placement.units}
    accelerator_ns = sum(
        max(0, known.at - attempt.started_at) * size[known.unit] for known in attempt.exits
    )
    return replace(
        record,
        held_ns=Duration(record.held_ns + held),
        held_accelerator_ns=Duration(record.held_accelerator_ns + accelerator_ns),
    )
