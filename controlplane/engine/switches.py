"""How a job's changes of plan or place become part of its record. Pure."""

from controlplane.domain.action import ChangePlan
from controlplane.domain.changing import changed
from controlplane.domain.clock import Instant, after, seconds
from controlplane.domain.event import PlanChanged, PlanRefused
from controlplane.domain.placement import Placement
from controlplane.domain.reason import ReasonCode
from controlplane.domain.record import AttemptRecord, JobRecord
from controlplane.domain.switch import (
    SWITCHES_KEPT,
    PlanChange,
    Restart,
    Switch,
    SwitchKind,
)
from controlplane.engine import resizing

ANSWER_STEPS = 20
"""How many steps ranks may take to tell of a change of plan that they were asked for, if that is
longer than the settings say: it begins after a step and is told four steps later.
"""

JOIN_SECONDS = 600.0
"""How much longer if others are to join them, which are started first. Training goes on."""


def asked(record: JobRecord, attempt: AttemptRecord, order: ChangePlan, at: Instant) -> JobRecord:
    """The job once its ranks are to take up another plan."""
    change = attempt.plan_change
    if change is not None and change.units and order.units == change.units:
        return resizing.given_up(record, attempt, order, at)
    before = attempt.placement.units
    units = order.units or before
    known, kept = {unit.index for unit in before}, {unit.index for unit in units}
    coming = [unit.index for unit in units if unit.index not in known]
    attempt = changed(
        attempt,
        placement=Placement(order.plan, units),
        leaving=(*attempt.leaving, *(unit for unit in before if unit.index not in kept)),
        units_made=attempt.next_unit + len(coming),
        joined=(*attempt.joined, *((index, at) for index in coming)),
        plan_change=PlanChange(
            attempt.plan_in_force, order.reason, at, units=before if order.units else ()
        ),
    )
    tries = record.tries + (order.reason.code is ReasonCode.TRIES_PLAN)
    return changed(record, attempt=attempt, reason=order.reason, tries=tries)


def told(
    record: JobRecord, attempt: AttemptRecord, said: PlanChanged | PlanRefused
) -> JobRecord | None:
    """The job after its ranks told what became of the change; None if they told so before."""
    change, placement = attempt.plan_change, attempt.placement
    plan = said.after if isinstance(said, PlanChanged) else said.plan
    if change is None or plan != str(placement.plan):
        return None
    if isinstance(said, PlanRefused):
        change = changed(change, refused=said.message or "no reason given")
        return changed(record, attempt=changed(attempt, plan_change=change))
    if change.given_up:
        return resizing.trains_on(record, attempt, said.at)
    present = {unit.index for unit in placement.units}
    switch = Switch(
        kind=SwitchKind.MEMORY,
        before=change.before,
        after=placement.plan,
        accelerators_before=_accelerators(attempt),
        accelerators_after=placement.accelerator_count,
        reason=change.reason.code,
        step=said.step,
        ordered_at=change.ordered_at,
        done_at=said.at,
        stood_still_seconds=said.stood_still_seconds,
        phases=said.phases,
    )
    attempt = changed(attempt, plan_change=None, units_up=attempt.units_up & present)
    for end in attempt.exits:
        # One that joined has failed since, of which its node told sooner than rank 0 of the change.
        if end.unit in present and end.outcome not in resizing.IN_ORDER:
            attempt = resizing.broken(attempt, end)
    return changed(
        _with(record, switch),
        attempt=attempt,
        reconfigurations=record.reconfigurations + 1,
    )


def answer_limit(record: JobRecord, change: PlanChange, answer_seconds: float) -> Instant:
    """When ranks that have not answered, though they could tell, get the new plan by a restart."""
    steps = ANSWER_STEPS * record.progress.step_seconds
    attempt = record.attempt
    joins = JOIN_SECONDS if attempt is not None and attempt.joining else 0.0
    since = max(change.ordered_at, change.heard_at)
    return after(since, seconds(joins + max(answer_seconds, steps)))


def stopped(record: JobRecord, attempt: AttemptRecord) -> Restart:
    """What is known of a restart once the last unit of the attempt before it has left."""
    if record.restart is not None and not attempt.trained:
        # It was laid out anew before it trained: the job stands still since the stop before.
        return record.restart
    left = [known.at for known in attempt.exits]
    why = attempt.intent_reason
    assert why is not None, "a planned stop has a reason"
    return Restart(
        before=attempt.plan_in_force,
        accelerators=_accelerators(attempt),
        reason=why.code,
        step=record.progress.step,
        ordered_at=attempt.intent_at,
        trained_at=attempt.last_step_at,
        first_exit_at=min(left),
        last_exit_at=max(left),
    )


def trains(record: JobRecord, attempt: AttemptRecord, at: Instant) -> JobRecord:
    """The job when its attempt has begun to train at ``at``."""
    restart = record.restart
    if restart is None:
        return record
    switch = restart.over(
        attempt.placement.plan,
        attempt.placement.accelerator_count,
        started_at=attempt.started_at,
        # A step can be reported before the last unit is.
        up_at=attempt.up_at or at,
        trains_at=at,
    )
    return changed(_with(record, switch), restart=None)


def _accelerators(attempt: AttemptRecord) -> int:
    """How many its ranks train on, as far as they have told."""
    return sum(len(unit.accelerators) for unit in attempt.units_in_force)


def _with(record: JobRecord, switch: Switch) -> JobRecord:
    return changed(record, switches=(*record.switches, switch)[-SWITCHES_KEPT:])
