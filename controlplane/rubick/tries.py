"""Which plans jobs have tried, and whether that was learnt from yet: read off their records."""

from controlplane.domain.clock import SECOND
from controlplane.domain.model_type import type_text
from controlplane.domain.observation import Observation
from controlplane.domain.reason import ReasonCode
from controlplane.domain.record import JobRecord
from controlplane.domain.snapshot import ClusterSnapshot
from controlplane.domain.step_time_fit import fit_key
from controlplane.domain.switch import Switch
from headrace.api.accelerator_type import type_label

STEPS_OF_A_TRY = 20
"""So many steps under a plan and its ranks have told what one takes."""

_STEPS_WAITED = 3 * STEPS_OF_A_TRY
"""So many steps without a word, and it is not waited for."""

_LEARNT_WITHIN_SECONDS = 10.0
"""So long after a plan's time was told it should be part of the fit."""


def trying(record: JobRecord) -> Switch | None:
    """The change with which the job began to try the plan that it has; None if it does not."""
    attempt = record.attempt
    if attempt is None or attempt.plan_change is not None or not record.switches:
        return None
    last = record.switches[-1]
    tries = last.reason is ReasonCode.TRIES_PLAN and last.after == attempt.placement.plan
    return last if tries else None


def is_unlearnt(record: JobRecord, snapshot: ClusterSnapshot) -> bool:
    """Whether the job still tries a plan, so that going back now would have been for nothing."""
    last, attempt = trying(record), record.attempt
    if last is None or attempt is None:
        return False
    if attempt.observed_step <= last.step:
        return record.progress.step - last.step < _STEPS_WAITED
    told = _last_told(record, snapshot)
    if told is None or told.row.machine is None:
        return False
    kind = type_label(told.row.machine.device)
    fit = snapshot.fits.get(fit_key(type_text(told.row.asked), kind))
    is_new = fit is None or fit.at < told.at
    return is_new and snapshot.at - told.at < _LEARNT_WITHIN_SECONDS * SECOND


def _last_told(record: JobRecord, snapshot: ClusterSnapshot) -> Observation | None:
    mine = (each for each in snapshot.observations.values() if each.uid == record.uid)
    return max(mine, key=lambda each: each.at, default=None)


def begins_to_try(record: JobRecord) -> bool:
    """Whether the job is on its way to a plan that it is to try."""
    attempt = record.attempt
    change = attempt.plan_change if attempt is not None else None
    return change is not None and change.reason.code is ReasonCode.TRIES_PLAN
