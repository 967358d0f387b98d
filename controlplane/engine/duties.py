"""Orders that follow from the rules alone, whatever the policy: they come before it is asked."""

import heapq
from collections.abc import Iterator, Sequence

from controlplane.domain.action import Action, EndAttempt, FailJob, ForgetJob, StopAttempt
from controlplane.domain.clock import FOREVER, SECOND, Instant, after, seconds
from controlplane.domain.conditions import Unhealthy
from controlplane.domain.job import Owner
from controlplane.domain.lifecycle import FINISHED
from controlplane.domain.policy import PolicySettings
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import AttemptRecord, Intent, JobRecord
from controlplane.engine import resizing
from controlplane.engine.state import ClusterState
from controlplane.engine.switches import answer_limit

FORGOTTEN_AT_ONCE = 1_000
"""So many finished jobs make room in one cycle at most: a store that comes from a time when all
were kept would else decide about all of them at once.
"""

_NEVER = FOREVER

SUSPENDED = Reason(ReasonCode.SUSPENDED, "spec.suspend is set")
_WITHDRAWN = Reason(ReasonCode.WITHDRAWN, "its removal was asked for")


def duties(state: ClusterState, now: Instant) -> Iterator[Action]:
    """What has to be ordered now: withdrawals, time limits, suspensions, unhealthy hardware."""
    unhealthy = state.conditions.unhealthy
    kept: list[JobRecord] = []
    for record in state.jobs.values():
        if _only_waits(record) or (not unhealthy and _runs_undisturbed(record)):
            continue
        action = _duty(record, now, state.settings, unhealthy)
        if action is not None:
            yield action
        elif record.finished_at is not None and _is_ours(record):
            kept.append(record)
    yield from _making_room(kept, state.settings.finished_jobs_kept)


def _is_ours(record: JobRecord) -> bool:
    """Whether we may forget it unasked. An object of Kubernetes that is forgotten while it is
    there would come back as a new job, and train again.
    """
    return record.job.owner is not Owner.KUBERNETES


def _making_room(finished: Sequence[JobRecord], kept: int) -> Iterator[Action]:
    """The jobs that finished first go while there are too many."""
    surplus = min(len(finished) - kept, FORGOTTEN_AT_ONCE)
    if surplus > 0:
        text = f"{kept} finished jobs are kept (finished_jobs_kept), and it finished before them"
        made_room = Reason(ReasonCode.MADE_ROOM, text)
        for record in heapq.nsmallest(surplus, finished, key=lambda each: each.finished_at or 0):
            yield ForgetJob(record.uid, record.purge, record.reason, made_room)


def _only_waits(record: JobRecord) -> bool:
    """Whether no duty can apply: most jobs of a long queue, so they are told apart quickly."""
    if record.attempt is not None or record.withdrawn or record.finished_at is not None:
        return False
    spec = record.job.spec
    return not spec.deadline_seconds and not spec.max_run_seconds


def _runs_undisturbed(record: JobRecord) -> bool:
    """Whether it trains, and nothing that time alone brings can apply to it."""
    attempt = record.attempt
    if attempt is None or attempt.intent is not Intent.RUN or not attempt.trained:
        return False
    if record.withdrawn or attempt.exits or attempt.plan_change is not None:
        return False
    job = record.job
    spec = job.spec
    return (
        attempt.generation == job.generation
        and not spec.suspend
        and not spec.deadline_seconds
        and not spec.max_run_seconds
    )


def _duty(
    record: JobRecord, now: Instant, settings: PolicySettings, unhealthy: Unhealthy
) -> Action | None:
    attempt = record.attempt
    if attempt is None:
        return _duty_of_idle(record, now, settings)
    if attempt.intent is Intent.END:
        return None
    if record.withdrawn:
        return EndAttempt(record.uid, attempt.number, _WITHDRAWN)
    limit = _limit_reached(record, now)
    if limit is not None:
        return EndAttempt(record.uid, attempt.number, limit)
    quarantined = _quarantined(attempt, unhealthy) if unhealthy else None
    if quarantined is not None:
        return EndAttempt(record.uid, attempt.number, quarantined)
    return _overdue(record, attempt, now, settings)


def _quarantined(attempt: AttemptRecord, unhealthy: Unhealthy) -> Reason | None:
    # Those whose ranks train: one that is yet to join, or has left, is no loss.
    for unit in attempt.units_in_force:
        problems = unhealthy.get(unit.node, {})
        for slot in unit.accelerators:
            if slot in problems:
                text = f"accelerator {slot} of {unit.node} is quarantined: {problems[slot]}"
                return Reason(ReasonCode.ACCELERATOR_UNHEALTHY, text)
    return None


def _overdue(
    record: JobRecord, attempt: AttemptRecord, now: Instant, settings: PolicySettings
) -> Action | None:
    if attempt.intent is Intent.STOP:
        if now >= after(attempt.intent_at, seconds(settings.stop_grace_seconds)):
            reason = attempt.intent_reason or Reason(ReasonCode.PREEMPTED)
            return EndAttempt(record.uid, attempt.number, reason)
        return None
    if record.job.spec.suspend:
        return StopAttempt(record.uid, attempt.number, SUSPENDED)
    if attempt.generation != record.job.generation:
        # Not the policy's business: a broken one must not keep a job on a spec that is gone.
        reason = Reason(ReasonCode.SPEC_CHANGED, "it restarts with its new spec")
        return StopAttempt(record.uid, attempt.number, reason)
    given_up = resizing.giving_up(record, attempt)
    if given_up is not None and not attempt.own_exits:
        return given_up
    unanswered = _plan_not_taken_up(record, attempt, now, settings)
    if unanswered is not None:
        # Whatever keeps the ranks from it, others can begin with it.
        return StopAttempt(record.uid, attempt.number, unanswered, then=attempt.placement.anew)
    if now >= _start_limit(record, attempt, settings):
        text = f"it reported no step within {settings.start_grace_seconds:g} s of its start"
        return EndAttempt(record.uid, attempt.number, Reason(ReasonCode.START_REFUSED, text))
    if now >= _stragglers_limit(attempt, settings):
        text = (
            f"{len(attempt.units) - len(attempt.exits)} units did not exit within "
            f"{settings.stop_grace_seconds:g} s of the others, which were done"
        )
        return EndAttempt(record.uid, attempt.number, Reason(ReasonCode.RANK_LOST, text))
    return None


def _plan_not_taken_up(
    record: JobRecord, attempt: AttemptRecord, now: Instant, settings: PolicySettings
) -> Reason | None:
    """Why a change of plan has to be made by a restart; None while it need not."""
    change = attempt.plan_change
    if change is None or attempt.own_exits:
        return None
    text = f"{change.before} -> {attempt.placement.plan} by a restart: "
    if change.refused:
        return Reason(ReasonCode.PLAN_REFUSED, f"{text}the ranks refused it, {change.refused}")
    limit = answer_limit(record, change, settings.answer_seconds)
    if now < limit:
        return None
    waited = (limit - max(change.ordered_at, change.heard_at)) / SECOND
    return Reason(ReasonCode.PLAN_NOT_TAKEN_UP, f"{text}no answer from the ranks in {waited:.0f} s")


def _start_limit(record: JobRecord, attempt: AttemptRecord, settings: PolicySettings) -> Instant:
    """When an attempt that reported no step counts as failed. A user's command reports none."""
    grace = settings.start_grace_seconds
    if attempt.trained or not grace or not record.job.spec.steps:
        return _NEVER
    return after(attempt.started_at, seconds(grace))


def _stragglers_limit(attempt: AttemptRecord, settings: PolicySettings) -> Instant:
    """When units that outlive the others of a finished gang are ended."""
    ended = attempt.own_exits
    if not ended:
        return _NEVER
    return after(ended[0].at, seconds(settings.stop_grace_seconds))


def _duty_of_idle(record: JobRecord, now: Instant, settings: PolicySettings) -> Action | None:
    if record.stage in FINISHED:
        cause = _WITHDRAWN if record.withdrawn else _time_to_live_over(record, now, settings)
        return ForgetJob(record.uid, record.purge, record.reason, cause) if cause else None
    if record.withdrawn:
        return ForgetJob(record.uid, record.purge, _WITHDRAWN, _WITHDRAWN)
    limit = _limit_reached(record, now)
    return FailJob(record.uid, limit) if limit is not None else None


def _expiry(record: JobRecord, settings: PolicySettings) -> Instant:
    """When a finished job is forgotten: when its manifest says, or else the settings."""
    if record.finished_at is None or not _is_ours(record):
        return _NEVER
    ttl = record.job.spec.ttl_seconds_after_finish
    if ttl >= 0:
        return after(record.finished_at, seconds(ttl))
    kept = settings.finished_kept_seconds
    return after(record.finished_at, seconds(kept)) if kept else _NEVER


def _time_to_live_over(record: JobRecord, now: Instant, settings: PolicySettings) -> Reason | None:
    if now < _expiry(record, settings):
        return None
    ttl = record.job.spec.ttl_seconds_after_finish
    kept, rule = (
        (ttl, "its ttlSecondsAfterFinish")
        if ttl >= 0
        else (settings.finished_kept_seconds, "finished_kept_seconds of this cluster")
    )
    text = f"it finished {kept:g} s ago, which is {rule}"
    return Reason(ReasonCode.TIME_TO_LIVE_OVER, text)


def _deadline(record: JobRecord) -> Instant:
    limit = record.job.spec.deadline_seconds
    return after(record.job.submitted_at, seconds(limit)) if limit else _NEVER


def _end_of_run_time(record: JobRecord) -> Instant:
    limit, attempt = record.job.spec.max_run_seconds, record.attempt
    if not limit:
        return _NEVER
    left = seconds(limit) - record.held_ns
    if attempt is None:
        return Instant(0) if left <= 0 else _NEVER
    return Instant(attempt.started_at + left)


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
        if (not record.backoff_until and _only_waits(record)) or _runs_undisturbed(record):
            continue
        for moment in _moments(record, settings):
            if now < moment < due:
                due = moment
    return due


def _moments(record: JobRecord, settings: PolicySettings) -> Iterator[Instant]:
    """Instants at which something becomes due for this job; many have passed or never come."""
    spec, attempt = record.job.spec, record.attempt
    if record.stage in FINISHED:
        yield _expiry(record, settings)
        return
    if spec.deadline_seconds:
        yield _deadline(record)
    if attempt is None:
        if record.backoff_until:
            yield record.backoff_until
        return
    if attempt.intent is Intent.END:
        return
    yield _end_of_run_time(record)
    if attempt.intent is Intent.STOP:
        yield after(attempt.intent_at, seconds(settings.stop_grace_seconds))
    else:
        yield _start_limit(record, attempt, settings)
        yield _stragglers_limit(attempt, settings)
        if attempt.plan_change is not None:
            yield answer_limit(record, attempt.plan_change, settings.answer_seconds)
