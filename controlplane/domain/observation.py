"""What plans take, as running jobs told in passing, or as somebody measured it apart from them."""

from dataclasses import dataclass

from controlplane.domain.clock import Instant
from controlplane.domain.ids import Attempt, JobUid
from controlplane.domain.model_type import type_text
from headrace.api.profile_rows import PlanRow


@dataclass(frozen=True, slots=True)
class Observation:
    """The newest about a model under a plan in a place.

    Attributes:
        uid: The job that told it; empty for what was imported.
        attempt: Its attempt.
        step: The last step that was looked at.
        at: When it was told.
        row: What was measured, in the form of a profile's rows.
        who: Identity of who imported it; empty for what a job told.
    """

    uid: JobUid
    attempt: Attempt
    step: int
    at: Instant
    row: PlanRow
    who: str = ""


def subject(row: PlanRow) -> str:
    """What a row is about; of several about the same the newest counts."""
    device = row.machine.device if row.machine is not None else ""
    return f"{type_text(row.asked)} {row.plan} on {row.placement} {device}"


def imported_subject(row: PlanRow) -> str:
    """The same of what was imported, which never takes the place of what jobs told: who measured
    wrongly has then not taken away what was right.
    """
    return f"imported {subject(row)}"
