"""When what a job's conditions say began or ended. Pure."""

from typing import Any

from controlplane.domain.changing import changed
from controlplane.domain.clock import Instant
from controlplane.domain.lifecycle import Stage
from controlplane.domain.record import JobRecord


def dated(before: JobRecord, after: JobRecord, at: Instant) -> JobRecord:
    """The changed record with when that ended which it is not any more."""
    was, still = before.attempt, after.attempt
    times: dict[str, Any] = {}
    if was is not None:
        if still is None:
            times["idle_since"] = at
        if was.is_up and (still is None or not still.is_up):
            times["ran_until"] = at
        if was.change is not None and (still is None or still.change is None):
            times["reconfigured_at"] = at
    if (before.stage is Stage.SUSPENDED) != (after.stage is Stage.SUSPENDED):
        times["suspended_at"] = at
    return changed(after, **times) if times else after
