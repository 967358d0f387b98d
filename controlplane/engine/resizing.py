"""When a job's ranks become more or fewer without a restart, and what their units' ends mean. Pure.

Unit 0 stays, because it hosts the rendezvous. Those that stay keep their ranks, so new ones come
after them, and those that leave are the last ones. Whatever else is wanted takes a restart.
"""

from dataclasses import replace

from controlplane.domain.changing import changed
from controlplane.domain.clock import Duration
from controlplane.domain.placement import LaunchUnit, Placement
from controlplane.domain.record import AttemptRecord, JobRecord, Outcome, UnitExit
from headrace.api.plan import ExecutionPlan

_IN_ORDER = frozenset({Outcome.SUCCEEDED, Outcome.STOPPED})


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
    if all(unit.index != end.unit for unit in attempt.leaving):
        return False
    return attempt.plan_change is None or end.outcome in _IN_ORDER


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
    said = end.reason.message.partition("\n")[0] if end.reason is not None else end.outcome.value
    return changed(
        attempt,
        plan_change=changed(
            change, refused=change.refused or f"unit {end.unit} could not join: {said}"
        ),
    )
