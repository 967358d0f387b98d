"""What an object's status should be, and what of it is worth a write at once. Pure."""

import json
from datetime import UTC, datetime
from typing import Any

from controlplane.domain.reason import ReasonCode
from headrace.api.generated import jobs_pb2
from headrace.api.status_document import status_document
from operators.trainingjob.training_job import TrainingJob

ACCEPTED = "Accepted"
"""Condition: whether the control plane has taken the newest spec."""
PODS = "PodsReady"
"""Condition: whether the pods that a job has for itself are up. Only while it should have some."""
_OF_A_JOB = (
    "Admitted",
    "Scheduled",
    "Running",
    "Reconfiguring",
    "Succeeded",
    "Failed",
    "Suspended",
    "CheckpointMissed",
)
_PACED = ("columns", "estimatedEnd", "estimatedStart", "progress")
"""Fields that change all the time. A change of these alone waits for its turn."""
_NODES_MOST = 1024
Condition = dict[str, Any]
Status = dict[str, Any]


def status_of_job(job: jobs_pb2.Job) -> Status:
    """The status of an object whose job the control plane has; without ``Accepted``."""
    status = status_document(job.status)
    status["nodes"] = status["nodes"][:_NODES_MOST]
    status["columns"] = _columns(job)
    return status


def _columns(job: jobs_pb2.Job) -> dict[str, str]:
    now = job.status.progress
    progress = f"{now.step}" if now.step else ""
    if now.steps_total:
        progress = f"{now.step}/{now.steps_total} {100 * now.step // now.steps_total}%"
    return {"progress": progress, "eta": _eta(job), "throughput": _throughput(job)}


def _eta(job: jobs_pb2.Job) -> str:
    """An interval of instants, which does not go stale; at the pace of the last steps if nobody
    estimates. ``~`` marks what is not calibrated, as that is.
    """
    status, now = job.status, job.status.progress
    if status.finished_at.seconds:
        return ""
    if status.HasField("end"):
        low, high = _minute(status.end.low), _minute(status.end.high)
        mark = "~" if status.end.outcomes_missing else ""
        return mark + (low if low == high else f"{low} to {high}")
    left = now.steps_total - now.step
    if status.stage != "Running" or now.step_seconds <= 0 or left <= 0:
        return ""
    return f"~{_minute(now.reported_at.seconds + left * now.step_seconds)}"


def _minute(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%MZ")


def _throughput(job: jobs_pb2.Job) -> str:
    seconds = job.status.progress.step_seconds
    if seconds <= 0 or not job.status.units:
        return ""
    training = json.loads(job.manifest_json)["spec"].get("training") or {}
    batch = training.get("globalBatchSize", 0)
    return f"{batch / seconds:.1f}/s" if batch else ""


def with_accepted(status: Status, found: TrainingJob) -> Status:
    """The status with the newest spec accepted."""
    return _with(status, found, "True", ReasonCode.ACCEPTED, "")


def with_refusal(status: Status | None, found: TrainingJob, why: str) -> Status:
    """The status with the newest spec refused.

    Args:
        status: Of the job, which goes on under an older spec; None if there is no job.
        found: The object.
        why: What the control plane said.
    """
    code = ReasonCode.SUBMISSION_REFUSED
    base = status if status is not None else _without_job(found, "False", code, why)
    return _with(base, found, "False", code, why)


def unreachable(status: Status | None, found: TrainingJob, why: str) -> Status:
    """The status while the newest spec waits for a control plane that does not answer."""
    code = ReasonCode.CONTROL_PLANE_UNREACHABLE
    base = status if status is not None else _without_job(found, "Unknown", code, why)
    return _with(base, found, "Unknown", code, why)


def _without_job(found: TrainingJob, holds: str, code: ReasonCode, why: str) -> Status:
    conditions = [_condition(each, holds, code, why, found.generation) for each in _OF_A_JOB]
    # Every field, as the schema would fill it in: else what is stored never reads as wanted.
    empty = status_of_job(jobs_pb2.Job(manifest_json=found.manifest_json))
    return {**empty, "observedGeneration": found.generation, "conditions": conditions}


def _condition(kind: str, holds: str, code: ReasonCode, why: str, generation: int) -> Condition:
    return {
        "type": kind,
        "status": holds,
        "reason": code.value,
        "message": why,
        "observedGeneration": generation,
    }


def _with(status: Status, found: TrainingJob, holds: str, code: ReasonCode, why: str) -> Status:
    return with_condition(status, _condition(ACCEPTED, holds, code, why, found.generation))


def with_condition(status: Status, added: Condition) -> Status:
    """The status with a condition in the place of that of its type."""
    others = [each for each in status["conditions"] if each["type"] != added["type"]]
    return {**status, "conditions": [*others, added]}


def dated(status: Status, before: Status, now: str) -> Status:
    """The status with a time of transition for each condition that has none.

    Args:
        status: What it should be.
        before: What the object says now: a condition that stays keeps its time.
        now: The present, as Kubernetes writes it.
    """
    known = {each.get("type"): each for each in before.get("conditions", ())}
    conditions = []
    for each in status["conditions"]:
        if "lastTransitionTime" not in each:
            was = known.get(each["type"], {})
            same = was.get("status") == each["status"]
            each = {
                **each,
                "lastTransitionTime": was.get("lastTransitionTime", now) if same else now,
            }
        conditions.append(each)
    return {**status, "conditions": conditions}


def transition(status: Status) -> object:
    """What of a status is worth a write at once. Words that only tell more wait like progress."""
    steady = {key: value for key, value in status.items() if key not in _PACED}
    steady["conditions"] = sorted(
        (each["type"], each["status"], each["reason"], each.get("observedGeneration", 0))
        for each in status.get("conditions", ())
    )
    return steady


def condition(status: Status, kind: str) -> Condition:
    """A condition of a status; an empty one if it has none of that type."""
    return next((each for each in status.get("conditions", ()) if each["type"] == kind), {})


def holds(status: Status, kind: str) -> bool:
    """Whether a condition of a status is true."""
    return bool(condition(status, kind).get("status") == "True")
