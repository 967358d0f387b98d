"""When a job's ranks become more or fewer without a restart, and what their units' ends mean. Pure.

Unit 0 stays, because it hosts the rendezvous. Those that stay keep their ranks, so new ones come
after them, and those that leave are the last ones. Whatever else is wanted takes a restart.
"""

from dataclasses import replace

from controlplane.domain.action import ChangePlan
from controlplane.domain.changing import changed
from controlplane.domain.clock import Duration, Instant
from controlplane.domain.placement import LaunchUnit, Placement
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import AttemptRecord, Intent, JobRecord, Outcome, UnitExit
from controlplane.engine import suspects
from headrace.api.plan import ExecutionPlan

IN_ORDER = frozenset({Outcome.SUCCEEDED, Outcome.STOPPED})
"""Ends of units that have done what they were asked for."""


def is_same_place(one: Placement, other: Placement) -> bool:
    """Whether both hold the same accelerators, whatever the order of their ranks."""
    if one.units is other.units:
        return True
    return {unit.place for unit in one.units} == {unit.place for unit in other.units}


def units_for(attempt: AttemptRecord, target: Placement) -> tuple[LaunchUnit, ...] | None:
    """The units with which the ranks can go where they should without leaving; None if they
    cannot.

    Args:
        attempt: Where they are.
        target: Where they should be.
    """
    units = attempt.placement.units
    wanted = {unit.place: unit for unit in target.units}
    stay = [unit.place in wanted for unit in units]
    kept = sum(stay)
    if not kept or not all(stay[:kept]):
        return None
    if kept == len(units):
        held = {unit.place for unit in units}
        coming = [unit for place, unit in wanted.items() if place not in held]
        return suiting(target.plan, (*units, *_joining(coming, attempt.next_unit, kept)))
    return suiting(target.plan, units[:kept]) if kept == len(wanted) else None


def _joining(coming: list[LaunchUnit], first_index: int, first_rank: int) -> list[LaunchUnit]:
    return [
        replace(unit, index=first_index + i, first_rank=first_rank + i, joins=True)
        for i, unit in enumerate(coming)
    ]


def suiting(plan: ExecutionPlan, units: tuple[LaunchUnit, ...]) -> tuple[LaunchUnit, ...] | None:
    """The units, if the plan's tensor-parallel neighbours are on one node each; else None."""
    group = plan.tensor_parallel
    for first in range(0, len(units), group):
        if len({unit.node for unit in units[first : first + group]}) > 1:
            return None
    return units


def is_farewell(attempt: AttemptRecord, end: UnitExit) -> bool:
    """Whether a unit is gone that was to leave, and is missed by nobody: its state was handed over,
    which it says itself, or the others have told so.
    """
    if all(unit.index != end.unit for unit in attempt.leaving) or end.unit in attempt.outside:
        return False
    return attempt.plan_change is None or end.outcome in IN_ORDER


def farewell(record: JobRecord, attempt: AttemptRecord, end: UnitExit) -> JobRecord:
    """The job once that unit has released its accelerators."""
    gone = next(unit for unit in attempt.leaving if unit.index == end.unit)
    held = max(0, end.at - attempt.held_since(gone.index)) * len(gone.accelerators)
    attempt = changed(
        attempt,
        leaving=tuple(unit for unit in attempt.leaving if unit is not gone),
        joined=tuple(known for known in attempt.joined if known[0] != gone.index),
        units_up=attempt.units_up if attempt.plan_change else attempt.units_up - {gone.index},
    )
    return changed(
        record,
        attempt=attempt,
        held_accelerator_ns=Duration(record.held_accelerator_ns + held),
    )


def without(attempt: AttemptRecord, end: UnitExit) -> AttemptRecord:
    """The attempt of which a unit ended that was to join: the others train on as they did."""
    change = attempt.plan_change
    assert change is not None, "a unit joins because of a change of plan"
    if change.given_up:
        return attempt
    said = end.reason.message.partition("\n")[0] if end.reason is not None else end.outcome.value
    return changed(
        attempt,
        plan_change=changed(
            change, refused=change.refused or f"unit {end.unit} could not join: {said}"
        ),
    )


def broken(attempt: AttemptRecord, end: UnitExit) -> AttemptRecord:
    """The attempt that has lost a unit: a gang cannot go on, so the others are told to end now. A
    planned stop keeps its reason, since its cause was not the loss.
    """
    if attempt.intent is Intent.END:
        return attempt
    why = attempt.intent_reason or end.reason
    return changed(attempt, intent=Intent.END, intent_reason=why, intent_at=end.at)


def giving_up(record: JobRecord, attempt: AttemptRecord) -> ChangePlan | None:
    """The order to train on without those that cannot join; None if there is no need for it."""
    change = attempt.plan_change
    if change is None or not change.refused or not attempt.joining:
        return None
    text = f"{change.before} does not become {attempt.placement.plan}: {change.refused}"
    why = Reason(ReasonCode.PLAN_REFUSED, text)
    return ChangePlan(record.uid, attempt.number, change.before, why, units=change.units)


def given_up(
    record: JobRecord, attempt: AttemptRecord, order: ChangePlan, at: Instant
) -> JobRecord:
    """The job once its ranks are to say that they train on as they did. Those that were to join
    hold what they have until they are gone, and what has become of them until that is said.
    """
    change, outside = attempt.plan_change, attempt.outside
    assert change is not None, "there is a change to be given up"
    gone = tuple(unit for unit in attempt.placement.units if unit.index in outside)
    attempt = changed(
        attempt,
        placement=Placement(order.plan, order.units),
        leaving=(*attempt.leaving, *gone),
        plan_change=changed(change, reason=order.reason, ordered_at=at, refused="", given_up=True),
    )
    return changed(record, attempt=attempt, reason=order.reason)


def trains_on(record: JobRecord, attempt: AttemptRecord, at: Instant) -> JobRecord:
    """The job once its ranks have said so: it keeps off where nobody could join it from."""
    outside = attempt.outside
    gone = [known for known in attempt.exits if known.unit in outside]
    record = changed(
        record,
        suspicions=suspects.could_not_join(attempt, at, record.suspicions),
        attempt=changed(
            attempt,
            plan_change=None,
            exits=attempt.own_exits,
            units_up=attempt.units_up - outside,
        ),
    )
    for known in gone:
        assert record.attempt is not None
        record = farewell(record, record.attempt, known)
    return record
