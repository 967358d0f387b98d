"""What was observed of a training job, as its manifest shows it."""

from typing import Annotated, Literal

from pydantic import Field

from headrace.api.manifest_fields import Count, Timestamp
from headrace.api.manifest_part import Part
from headrace.api.manifest_setback import OutOfMemoryStatus, SuspectedNodeStatus
from headrace.api.manifest_switch import SwitchStatus


class Condition(Part):
    """One observed state, as Kubernetes writes it."""

    type: Annotated[str, Field(min_length=1, max_length=316, pattern=r"^[A-Z][A-Za-z]*$")]
    """Admitted, Scheduled, Running, Reconfiguring, Succeeded, Failed, Suspended or
    CheckpointMissed."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[A-Z][A-Za-z0-9]*$")]
    """Why, as one word from the closed set of reasons."""
    message: Annotated[str, Field(max_length=32768)] = ""
    """Why, as a sentence with numbers."""
    observed_generation: Count = 0
    """Generation of the spec that this was observed for."""
    last_transition_time: Timestamp | None = None
    """When the status of this condition last changed."""


class ProgressStatus(Part):
    """How far the job has come."""

    step: Count = 0
    """Optimizer steps done."""
    steps_total: Count = 0
    """Optimizer steps until it is done; 0 where unknown."""
    checkpoint_step: Count = 0
    """Step of the last committed checkpoint."""
    loss: float | None = None
    """Last training loss."""
    step_seconds: Annotated[float, Field(ge=0)] = 0.0
    """Recent time of one step; 0 where unknown."""
    reported_at: Timestamp | None = None
    """When this was reported."""


class EstimateStatus(Part):
    """A predicted instant: an interval with its coverage."""

    low: Timestamp
    """Lower end."""
    high: Timestamp
    """Upper end."""
    median: Timestamp | None = None
    """As likely before as after."""
    coverage: Annotated[float, Field(gt=0, lt=1)]
    """Share of cases in which the truth lies inside."""
    made_at: Timestamp
    """When it was predicted."""
    outcomes_missing: Count = 0
    """Outcomes of earlier estimates that are missing until the interval is known to hold as often
    as its coverage says; 0 once it is."""


class ColumnsStatus(Part):
    """What kubectl shows of a job that it cannot make of numbers itself: its columns are texts or
    single fields.
    """

    progress: Annotated[str, Field(max_length=64)] = ""
    """Steps done of all, with the share, for example 120/600 20%."""
    eta: Annotated[str, Field(max_length=64)] = ""
    """When it will be done, in UTC and to the minute; an instant, so that it does not go stale."""
    throughput: Annotated[str, Field(max_length=64)] = ""
    """Samples a second over all ranks at the pace of the last steps, for example 35.2/s."""


class Status(Part):
    """What was observed; written by Headrace, never by people."""

    observed_generation: Count = 0
    """Generation of the spec that this status was observed for."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16, strict=False)] = ()
    """Observed states, one of each type."""
    plan: Annotated[str, Field(max_length=64)] = ""
    """Execution plan that runs now, for example dp4-ga2; empty while the job holds nothing."""
    accelerators: Annotated[int, Field(ge=0, le=65536)] = 0
    """Accelerators held now."""
    nodes: Annotated[
        tuple[Annotated[str, Field(max_length=253)], ...], Field(max_length=1024, strict=False)
    ] = ()
    """Nodes that the job runs on now."""
    attempt: Count = 0
    """Number of the newest attempt."""
    failures: Count = 0
    """Failed attempts so far."""
    reconfigurations: Count = 0
    """Planned changes of plan or place so far."""
    plan_asked_for: Annotated[str, Field(max_length=64)] | None = None
    """Plan that the ranks were asked for and have not taken up yet."""
    switches: Annotated[tuple[SwitchStatus, ...], Field(max_length=16, strict=False)] = ()
    """The last changes of plan or place that are over, oldest first, and what each one cost."""
    out_of_memory: Annotated[tuple[OutOfMemoryStatus, ...], Field(max_length=64, strict=False)] = ()
    """Plans that ran out of memory under the present spec; the last 64."""
    suspected_nodes: Annotated[
        tuple[SuspectedNodeStatus, ...], Field(max_length=64, strict=False)
    ] = ()
    """Nodes that the job keeps off while there is room elsewhere; the last 64."""
    progress: ProgressStatus = ProgressStatus()
    """How far the job has come."""
    started_at: Timestamp | None = None
    """When it first got accelerators."""
    finished_at: Timestamp | None = None
    """When it succeeded or failed."""
    estimated_start: EstimateStatus | None = None
    """When it gets accelerators first; absent once it has, or until that can be said."""
    estimated_end: EstimateStatus | None = None
    """When it will be done; absent until that can be said with a coverage."""
    columns: ColumnsStatus = ColumnsStatus()
    """The same for tables: text made of the fields above."""
