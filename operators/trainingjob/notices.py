"""What people are told of as events of Kubernetes: transitions, each once. Pure."""

import hashlib
from dataclasses import dataclass
from typing import Any

from controlplane.domain.reason import ReasonCode
from operators.trainingjob.status import ACCEPTED, PODS, Status, condition, holds
from operators.trainingjob.training_job import GROUP_VERSION, KIND, TrainingJob

_NOT_STARTED = ReasonCode.POD_NOT_STARTED.value
CONTROLLER = "headrace.dev/operator"
ABANDONED = "Abandoned"
_NOTE_BYTES = 1024
_NORMAL, _WARNING = "Normal", "Warning"
_PLANNED = frozenset(
    {ReasonCode.PREEMPTED.value, ReasonCode.SUSPENDED.value, ReasonCode.WITHDRAWN.value}
)
"""Why an attempt ends where nothing went wrong."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One event.

    Attributes:
        reason: CamelCase, specific to one situation.
        note: A sentence.
        action: What was done, one word.
        warns: Whether something went wrong.
    """

    reason: str
    note: str
    action: str
    warns: bool = False


def notices(before: Status, after: Status, preempted: str = "") -> list[Notice]:
    """What happened between two statuses that were written one after the other.

    Args:
        before: The one.
        after: The other.
        preempted: Why the last attempt was preempted; by then the job may wait for other reasons.
    """
    found: list[Notice] = []
    refused = condition(after, ACCEPTED)
    if refused.get("status") == "False" and refused != condition(before, ACCEPTED):
        found.append(Notice(refused["reason"], refused["message"], "Submit", warns=True))
    pods, pods_before = condition(after, PODS), condition(before, PODS)
    if pods.get("reason") == _NOT_STARTED and pods_before.get("reason") != _NOT_STARTED:
        found.append(Notice(_NOT_STARTED, pods["message"], "Start", warns=True))
    for end, warns in (("Succeeded", False), ("Failed", True)):
        if holds(after, end) and not holds(before, end):
            told = condition(after, end)
            why = "" if told["reason"] == end else told["reason"]
            note = ": ".join(filter(None, (why, told.get("message", "")))) or "all steps are done"
            return [*found, Notice(end, note, "End", warns=warns)]
    if preempted and holds(before, "Admitted") and not holds(after, "Admitted"):
        return [*found, Notice(ReasonCode.PREEMPTED.value, preempted, "Preempt")]
    found.extend(_of_attempts(before, after))
    return found


def _of_attempts(before: Status, after: Status) -> list[Notice]:
    was, now = before.get("attempt", 0), after.get("attempt", 0)
    plan, plan_before = after.get("plan", ""), before.get("plan", "")
    if holds(before, "Admitted") and not holds(after, "Admitted"):
        told = condition(after, "Admitted")
        note = told.get("message") or f"attempt {was} gave back its accelerators"
        return [Notice(told["reason"], note, "Stop", warns=told["reason"] not in _PLANNED)]
    if holds(after, "Running") and (now != was or not holds(before, "Running")) and plan:
        where = ", ".join(after.get("nodes", ()))
        note = f"attempt {now} runs {plan} on {after.get('accelerators', 0)} accelerators ({where})"
        return [Notice("Started", note, "Start")]
    if plan and plan_before and plan != plan_before:
        told = condition(after, "Reconfiguring")
        why = f": {told['message']}" if told.get("message") else ""
        return [Notice("PlanChanged", f"{plan_before} -> {plan}{why}", "Reconfigure")]
    return []


def event_document(
    notice: Notice, found: TrainingJob, *, about: str, at: str, instance: str
) -> dict[str, Any]:
    """The event as Kubernetes wants it.

    Args:
        notice: What happened.
        found: To which object.
        about: What makes it another one than before, for example attempt and generation: the same
            thing told twice has the same name, and the API server keeps one.
        at: The present, with microseconds.
        instance: Which replica tells.
    """
    told = hashlib.sha256(f"{found.uid} {notice.reason} {notice.note} {about}".encode()).hexdigest()
    note = notice.note.encode()[:_NOTE_BYTES].decode(errors="ignore")
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {
            "name": f"{found.name[:200]}.{told[:16]}",
            "namespace": found.namespace,
        },
        "eventTime": at,
        "reportingController": CONTROLLER,
        "reportingInstance": instance[:128],
        "action": notice.action,
        "reason": notice.reason,
        "type": _WARNING if notice.warns else _NORMAL,
        "note": note,
        "regarding": {
            "apiVersion": GROUP_VERSION,
            "kind": KIND,
            "namespace": found.namespace,
            "name": found.name,
            "uid": found.uid,
            "resourceVersion": str(found.version),
        },
    }
