"""What a job's status tells of its changes of plan or place."""

from typing import Annotated

from pydantic import Field

from headrace.api.manifest_fields import Count, Timestamp
from headrace.api.manifest_part import Part

Seconds = Annotated[float, Field(ge=0)]
PlanText = Annotated[str, Field(max_length=64)]


class PhaseStatus(Part):
    """A part of the time that a change took."""

    name: Annotated[str, Field(max_length=64)]
    """What was done."""
    took_seconds: Seconds
    """How long it took."""


class SwitchStatus(Part):
    """A change of plan or place that is over."""

    kind: Annotated[str, Field(max_length=64)]
    """Memory if the ranks stayed; Restart if they saved and ended, and others went on."""
    before: PlanText
    """Plan that was left."""
    after: PlanText
    """Plan that was taken up."""
    accelerators_before: Count = 0
    """Accelerators held under the one."""
    accelerators_after: Count = 0
    """Accelerators held under the other."""
    reason: Annotated[str, Field(max_length=64)] = ""
    """What it was for."""
    step: Count = 0
    """Last step under the plan that was left."""
    ordered_at: Timestamp | None = None
    """When it was decided."""
    done_at: Timestamp | None = None
    """When the job was known to train again."""
    stood_still_seconds: Seconds = 0.0
    """For how long the job did not train."""
    phases: Annotated[tuple[PhaseStatus, ...], Field(max_length=64, strict=False)] = ()
    """Where the time went, in order."""
