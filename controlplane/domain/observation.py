"""What plans take, as running jobs told in passing."""

from dataclasses import dataclass

from controlplane.domain.clock import Instant
from controlplane.domain.ids import Attempt, JobUid
from controlplane.domain.model_type import type_text
from headrace.api.profile_rows import PlanRow


@dataclass(frozen=True, slots=True)
class Observation:
    """The newest about a model under a plan in a place.

    Attributes:
        uid: The job that told it.
        attempt: Its attempt.
        step: The last step that was looked at.
        at: When it was told.
        row: What was measured, in the form of a profile's rows.
    """

    uid: JobUid
    attempt: Attempt
    step: int
    at: Instant
    row: PlanRow


def subject(row: PlanRow) -> str:
    """What a row is about; of several about the same the newest counts."""
    device = row.machine.device if row.machine is not None else ""
    return f"{type_text(row.asked)} {row.plan} on {row.placement} {device}"
