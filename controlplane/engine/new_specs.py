"""What becomes of an attempt whose job's spec was replaced. Pure."""

import json
from typing import Any

from controlplane.domain.changing import changed
from controlplane.domain.job import Job
from controlplane.domain.record import AttemptRecord, JobRecord

_LAUNCH_KEYS = ("model", "script", "command", "data", "env", "volumes", "training", "checkpoint")


def launch_part(manifest_json: str) -> Any:
    """What of a manifest reaches the ranks; a change of anything else needs no restart."""
    spec = json.loads(manifest_json).get("spec", {})
    return [spec.get(key) for key in _LAUNCH_KEYS]


def attempt_under_new_spec(known: JobRecord, job: Job) -> AttemptRecord | None:
    """The attempt of a job that has another spec now; None if it has none."""
    attempt, before = known.attempt, known.job
    if attempt is None:
        return None
    new, old = job.spec.manifest_json, before.spec.manifest_json
    if attempt.generation == before.generation and launch_part(new) == launch_part(old):
        return changed(attempt, generation=job.generation)
    # Ranks of one attempt must never differ in what they train, so units that are still to be
    # started get the manifest that the attempt began with.
    return changed(attempt, manifest_json=attempt.manifest_json or old)
