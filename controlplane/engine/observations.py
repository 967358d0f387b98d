"""What jobs tell of their plans in passing, and what is fitted to that, becomes part of the state,
for predictions. Pure.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from controlplane.domain.changing import changed
from controlplane.domain.event import MeasurementsImported, ModelFitted, PlanObserved
from controlplane.domain.ids import Attempt, JobUid
from controlplane.domain.observation import Observation, imported_subject, subject
from controlplane.domain.placement import LaunchUnit
from controlplane.domain.record import AttemptRecord, JobRecord
from controlplane.domain.step_time_fit import StepTimeFit
from headrace.api.model_choice import model_name
from headrace.api.plan import ExecutionPlan

OBSERVATIONS_KEPT = 2_000
"""Those that were told longest ago make room for new ones."""

FITS_KEPT = 128
"""Those that were fitted longest ago make room for new ones: each takes some 12 kB."""

MOST_OF_AN_ATTEMPT = 100
"""So many of an attempt are taken. Our trainer tells fewer; what runs in its place may not."""


def is_news(attempt: AttemptRecord, said: PlanObserved) -> bool:
    """Whether it is later than all that the attempt told before, which is not too much yet."""
    return said.step > attempt.observed_step and attempt.observations < MOST_OF_AN_ATTEMPT


def told(
    kept: dict[str, Observation], record: JobRecord, attempt: AttemptRecord, said: PlanObserved
) -> AttemptRecord:
    """Puts it among those that are ``kept``, and returns the attempt that has told it.

    One of another number of ranks than train now came late: where those were is not known here.
    """
    if not is_news(attempt, said):
        return attempt
    units = attempt.units_in_force
    if _ranks(said.row.plan) == sum(len(unit.accelerators) for unit in units):
        asked = replace(said.row.asked, model=model_of(record.job.spec.manifest_json))
        row = replace(said.row, asked=asked, placement=_placement(units))
        _keep(kept, subject(row), Observation(said.uid, said.attempt, said.step, said.at, row))
    return changed(attempt, observations=attempt.observations + 1, observed_step=said.step)


def imported(kept: dict[str, Observation], said: MeasurementsImported) -> None:
    """Puts rows that were measured apart from any job among those that are ``kept``."""
    for row in said.rows:
        about = imported_subject(row)
        known = Observation(JobUid(""), Attempt(0), row.steps, said.at, row, said.who)
        _keep(kept, about, known)


def _keep(kept: dict[str, Observation], about: str, known: Observation) -> None:
    kept.pop(about, None)
    kept[about] = known
    while len(kept) > OBSERVATIONS_KEPT:
        del kept[next(iter(kept))]


def fitted(kept: dict[str, StepTimeFit], said: ModelFitted) -> None:
    """Puts a fit in the place of the one before."""
    kept.pop(said.fit.key, None)
    kept[said.fit.key] = changed(said.fit, fitted_at=said.at)
    while len(kept) > FITS_KEPT:
        del kept[next(iter(kept))]


@lru_cache(maxsize=4096)
def model_of(manifest_json: str) -> str:
    """What the model of a job is called, by its manifest, which keeps its model for life."""
    return model_name(json.loads(manifest_json).get("spec", {}))


def _ranks(plan: str) -> int:
    """Ranks of a plan; 0 for one of a release that knows more plans."""
    try:
        return ExecutionPlan.parse(plan).ranks
    except ValueError:
        return 0


def _placement(units: Sequence[LaunchUnit]) -> str:
    """Accelerators of each node, in the order of the ranks."""
    held: dict[str, int] = {}
    for unit in sorted(units, key=lambda each: each.first_rank):
        held[unit.node] = held.get(unit.node, 0) + len(unit.accelerators)
    return "+".join(map(str, held.values()))
