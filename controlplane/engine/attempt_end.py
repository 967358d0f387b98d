"""What becomes of an attempt when units of it end, and of its job when all have."""

from collections.abc import Mapping

from controlplane.domain.changing import changed
from controlplane.domain.clock import Duration, Instant, after, seconds
from controlplane.domain.ids import NodeId
from controlplane.domain.job import JobSpec
from controlplane.domain.lifecycle import Stage
from controlplane.domain.offering import plans_left
from controlplane.domain.reason import RECONFIGURES, WITHOUT_A_WORD, Reason, ReasonCode
from controlplane.domain.record import (
    AttemptRecord,
    Intent,
    JobRecord,
    NodeRecord,
    Outcome,
    Progress,
    Raised,
    UnitExit,
)
from controlplane.engine import resizing, suspects, switches

PLANNED = RECONFIGURES | {ReasonCode.PREEMPTED, ReasonCode.SUSPENDED, ReasonCode.WITHDRAWN}
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

SETBACK_BACKOFF_SECONDS = 10
"""Wait after the second setback in a row; doubles with each further one."""

SETBACK_BACKOFF_MAX_SECONDS = 300
"""Longest wait that setbacks cause. It is also how long a command, which reports no steps, must
have run to count as progress.
"""

_SPECIFIC = frozenset(
    {
        ReasonCode.OUT_OF_MEMORY,
        ReasonCode.CANNOT_BE_TRAINED,
        ReasonCode.STORE_NOT_SHARED,
        ReasonCode.LOSS_NOT_FINITE,
        ReasonCode.RANK_HUNG,
        ReasonCode.CHECKPOINT_CORRUPT,
        ReasonCode.CHECKPOINT_STORE_FULL,
        ReasonCode.COMMUNICATION_FAILED,
    }
)

_HOPELESS = frozenset({ReasonCode.CANNOT_BE_TRAINED, ReasonCode.CHECKPOINT_CORRUPT})
"""Failures that come again wherever and whenever it is tried. Of a job's own checkpoints, one that
is corrupt is set aside and costs no attempt.
"""

_ELSEWHERE = suspects.PERHAPS_THE_NODE | suspects.LACKS_SOMETHING | {ReasonCode.OUT_OF_MEMORY}
"""Failures after which nothing speaks for the same place."""


def type_of(nodes: Mapping[NodeId, NodeRecord], attempt: AttemptRecord) -> str:
    """The type of an attempt's accelerators, which are all alike; empty if their node is gone."""
    unit = attempt.placement.units[0]
    node = nodes.get(unit.node)
    own = (a.type for a in (node.node.accelerators if node else ()) if a.id in unit.accelerators)
    return next(own, "")


def with_exit(attempt: AttemptRecord, exit_: UnitExit) -> AttemptRecord:
    """The attempt of which a unit has ended that is not simply one that left."""
    outside = exit_.unit in attempt.outside
    attempt = changed(attempt, exits=(*attempt.exits, exit_))
    if outside:
        return resizing.without(attempt, exit_)
    harmless = exit_.outcome in resizing.IN_ORDER
    if exit_.outcome is Outcome.NEVER_STARTED and attempt.intent is Intent.STOP:
        # It was still assembling. The units that wait for this one see the stop too.
        harmless = True
    return attempt if harmless else resizing.broken(attempt, exit_)


def with_last_step(known: Progress, end: UnitExit) -> Progress:
    """A rank that ended well tells the step that it saved last, whatever progress was told."""
    if end.outcome not in (Outcome.SUCCEEDED, Outcome.STOPPED) or end.step <= known.checkpoint_step:
        return known
    return changed(known, step=max(known.step, end.step), checkpoint_step=end.step, at=end.at)


def conclude(record: JobRecord, attempt: AttemptRecord, at: Instant, kind: str) -> JobRecord:
    """The job after its attempt's last unit was released; see ``_concluded``."""
    wish = attempt.intent_reason
    preempted = wish if wish is not None and wish.code is ReasonCode.PREEMPTED else None
    return changed(_concluded(record, attempt, at, kind), preempted=preempted)


def _concluded(record: JobRecord, attempt: AttemptRecord, at: Instant, kind: str) -> JobRecord:
    """The job after its attempt's last unit was released at ``at``.

    Args:
        record: The job before.
        attempt: Its attempt, of which all units have exited.
        at: When the last one did.
        kind: Type of the accelerators that it held.
    """
    setbacks = 0 if _made_progress(record, attempt, at) else record.setbacks
    wish = attempt.intent_reason
    goes_on = wish is not None and wish.code in RECONFIGURES
    restart = switches.stopped(record, attempt) if goes_on else None
    record = _with_time_held(record, attempt)
    record = changed(record, attempt=None, setbacks=setbacks, restart=None)
    outcomes = {known.outcome for known in attempt.own_exits}
    if outcomes == {Outcome.SUCCEEDED}:
        done = Reason(ReasonCode.SUCCEEDED, f"finished at step {record.progress.step}")
        return changed(record, stage=Stage.SUCCEEDED, reason=done, finished_at=at)
    if wish is not None and wish.code in FINAL:
        return changed(record, stage=Stage.FAILED, reason=wish, finished_at=at)
    if wish is not None and wish.code in PLANNED:
        return _after_planned_stop(changed(record, restart=restart), attempt, wish)
    if outcomes <= {Outcome.STOPPED, Outcome.SUCCEEDED}:
        # Someone outside asked the ranks to stop (SIGTERM). They saved; nothing failed.
        return _idle(record)
    cause = cause_of(attempt)
    if cause.code not in _ELSEWHERE:
        record = changed(record, next_placement=attempt.placement.anew)
    record = suspects.suspected(record, attempt, cause, at)
    before = record.out_of_memory
    if attempt.generation == record.job.generation:
        hopeless, record = _learnt(record, attempt, cause, kind)
        if hopeless is not None:
            return changed(
                record,
                stage=Stage.FAILED,
                failures=record.failures + 1,
                reason=hopeless,
                finished_at=at,
            )
    # A plan that is not tried again is a limit already, so it costs no retry.
    return _after_failure(record, cause, at, costs=record.out_of_memory == before)


def _learnt(
    record: JobRecord, attempt: AttemptRecord, cause: Reason, kind: str
) -> tuple[Reason | None, JobRecord]:
    """What a failure says about later attempts, and why there should be none, if that is so."""
    if cause.code in _HOPELESS:
        return cause, record
    if cause.code is ReasonCode.OUT_OF_MEMORY and record.job.spec.steps:
        if attempt.plan_change is not None:
            # On the way from one plan to another both take some, so neither is to blame.
            return None, record
        plan = attempt.placement.plan
        known = (kind, plan)
        if known not in record.out_of_memory:
            record = changed(record, out_of_memory=(*record.out_of_memory, known))
        if not plans_left(record):
            return changed(cause, message=_no_plan_left(record, kind, cause)), record
    if cause.code is ReasonCode.LOSS_NOT_FINITE:
        step = max(known.step for known in attempt.exits)
        if step <= record.came_apart_at:
            text = f"again at the same step, from an older checkpoint: {cause.message}"
            return changed(cause, message=text), record
        record = changed(record, came_apart_at=step)
    raised, before = _raised(attempt, cause), record.raised
    if raised and before and (raised.step, raised.sentence) == (before.step, before.sentence):
        text = (
            f"the same at step {raised.step} in attempts {before.attempt} and {raised.attempt}; it "
            f"is not tried again: {raised.sentence}"
        )
        return Reason(ReasonCode.RANK_FAILED, text), record
    return None, changed(record, raised=raised)


def _raised(attempt: AttemptRecord, cause: Reason) -> Raised | None:
    """How what it trains ended the attempt; None if something else did, or may have.

    Before a first step it may be a service that is not up yet, and who was killed or crashed says
    nothing of its own. Of several ranks that say something, which is heard first is chance.
    """
    if cause.code not in (ReasonCode.RANK_FAILED, ReasonCode.RANK_LOST) or attempt.plan_change:
        return None
    for end in sorted(attempt.own_exits, key=lambda known: known.unit):
        if end.reason is None or end.reason.code is not ReasonCode.RANK_FAILED or end.step < 1:
            continue
        sentence = end.reason.message.partition("\n")[0]
        if not sentence.endswith(WITHOUT_A_WORD):
            return Raised(attempt.number, end.step, sentence)
    return None


def _no_plan_left(record: JobRecord, kind: str, cause: Reason) -> str:
    tried = ", ".join(dict.fromkeys(str(plan) for _, plan in record.out_of_memory))
    return (
        f"memory ran out on {kind or 'its accelerators'} under {tried}, and no other plan is left; "
        "what helps: name plans that take less of it each (more ZeRO, gc, offload, tensor or "
        "pipeline parallelism), a smaller microBatchSizeMax, or accelerators with more memory. "
        f"It said: {cause.message}"
    )


def _after_planned_stop(record: JobRecord, attempt: AttemptRecord, wish: Reason) -> JobRecord:
    """The job is free to be laid out anew. A rank that failed on the way out costs it the steps
    since its last checkpoint, which is said, but no retry: without the wish it might have lived.
    """
    counts = wish.code not in (ReasonCode.SUSPENDED, ReasonCode.WITHDRAWN)
    failed = [known for known in attempt.own_exits if known.outcome is Outcome.FAILED]
    said = next((known.reason.message for known in failed if known.reason is not None), "")
    if said:
        wish = changed(wish, message=f"{wish.message}; it failed while it stopped: {said}")
    return changed(
        _idle(record),
        reason=wish,
        next_placement=attempt.placement.anew
        if wish.code is ReasonCode.SPEC_CHANGED
        else attempt.then,
        reconfigurations=record.reconfigurations + (1 if counts else 0),
        tries=record.tries + (wish.code is ReasonCode.TRIES_PLAN),
    )


def _idle(record: JobRecord) -> JobRecord:
    stage = Stage.SUSPENDED if record.job.spec.suspend else Stage.QUEUED
    return changed(record, stage=stage)


def cause_of(attempt: AttemptRecord) -> Reason:
    """Why the attempt failed.

    What came first is the cause, with three exceptions. The ranks beside a node that died see their
    connections break long before the node counts as lost: then that is the cause. And a rank that
    names what it lacked explains more than one that lost its neighbour; so does what became of that
    neighbour.
    """
    in_order = sorted(attempt.own_exits, key=lambda known: known.at)
    reasons = [known.reason for known in in_order if known.reason is not None]
    if attempt.intent_reason is not None:
        reasons.insert(0, attempt.intent_reason)
    # A unit that was about to join may have been taken in already, and been why all broke.
    others = [known.reason for known in attempt.exits if known.reason is not None]
    for telling, said in (
        (NOT_ITS_FAULT, [*reasons, *others]),
        (_SPECIFIC, reasons),
        (suspects.LACKS_SOMETHING, reasons),
    ):
        for reason in said:
            if reason.code in telling:
                return reason
    if reasons:
        return _with_fate_of_the_lost(reasons[0], [*reasons, *others])
    if all(known.outcome is Outcome.NEVER_STARTED for known in attempt.own_exits):
        return Reason(ReasonCode.START_REFUSED, "no agent started it, none said why")
    return Reason(ReasonCode.RANK_FAILED, "no reason given")


def _with_fate_of_the_lost(first: Reason, said: list[Reason]) -> Reason:
    """Who lost contact with a rank does not know why; it is a lost rank all the same."""
    died = [reason for reason in said if reason.code is ReasonCode.RANK_FAILED]
    if first.code is not ReasonCode.RANK_LOST or not died:
        return first
    return changed(first, message=died[0].message)


def _after_failure(record: JobRecord, cause: Reason, at: Instant, *, costs: bool) -> JobRecord:
    spec = record.job.spec
    if cause.code in NOT_ITS_FAULT:
        record = changed(record, setbacks=record.setbacks + 1)
        failures = record.failures
    else:
        failures = record.failures + (1 if costs else 0)
    if failures > spec.max_retries:
        message = f"attempt {record.attempts_made} failed and no retry is left: {cause.message}"
        return changed(
            record,
            stage=Stage.FAILED,
            failures=failures,
            reason=Reason(ReasonCode.RETRIES_EXHAUSTED, message),
            finished_at=at,
        )
    if spec.suspend:
        return changed(record, stage=Stage.SUSPENDED, failures=failures, reason=cause)
    return changed(
        record,
        stage=Stage.BACKING_OFF,
        failures=failures,
        backoff_until=after(at, seconds(_wait_seconds(spec, failures, record.setbacks))),
        reason=cause,
    )


def _made_progress(record: JobRecord, attempt: AttemptRecord, at: Instant) -> bool:
    """Whether the attempt did what it was started for before it ended."""
    if record.job.spec.steps:
        return attempt.trained
    proven = seconds(SETBACK_BACKOFF_MAX_SECONDS)
    return attempt.running_at is not None and at >= after(attempt.running_at, proven)


def _wait_seconds(spec: JobSpec, failures: int, setbacks: int) -> int:
    """How long the job backs off. The manifest sets the wait for failures of the job's own, and
    may set it to nothing; nobody chose how often nodes and Ray break, so repeated setbacks have a
    wait that no manifest takes away.
    """
    own = min(_doubled(spec.backoff_seconds, failures), spec.backoff_max_seconds)
    if setbacks < 2:
        return own
    wait = min(_doubled(SETBACK_BACKOFF_SECONDS, setbacks - 1), SETBACK_BACKOFF_MAX_SECONDS)
    return max(own, wait)


def _doubled(first_seconds: int, times: int) -> int:
    return first_seconds << min(max(0, times - 1), 30)


def _with_time_held(record: JobRecord, attempt: AttemptRecord) -> JobRecord:
    last = max(known.at for known in attempt.exits)
    held = max(0, last - attempt.started_at)
    size = {unit.index: len(unit.accelerators) for unit in attempt.units}
    accelerator_ns = sum(
        max(0, known.at - attempt.held_since(known.unit)) * size[known.unit]
        for known in attempt.exits
    )
    return changed(
        record,
        held_ns=Duration(record.held_ns + held),
        held_accelerator_ns=Duration(record.held_accelerator_ns + accelerator_ns),
    )
