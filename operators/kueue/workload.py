"""Kueue's ``Workload`` of a job: what is kept of one, and what ours looks like. Pure."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from operators.trainingjob.training_job import GROUP_VERSION, KIND, TrainingJob, canonical

GROUP = "kueue.x-k8s.io"
VERSIONS = ("v1beta2", "v1beta1")
"""Those that are spoken, the best first; what is used of them is alike in both."""
JOB_UID_LABEL = "kueue.x-k8s.io/job-uid"
POD_SET = "ranks"
_NAME_MOST = 57
_CPU = "cpu"
Conditions = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Workload:
    """What is kept of an object, whoever made it.

    Attributes:
        namespace: Where it is.
        name: Its name there.
        uid: Minted by the API server.
        version: Its resourceVersion.
        owner_uid: Uid of the ``TrainingJob`` that it is for; empty if it is for something else.
        owner_name: The name of that.
        asks: What it asks for, in one spelling; empty if it is not ours.
        active: Whether people let it be admitted.
        admitted_count: Ranks that Kueue has admitted; 0 while it has not.
        has_quota: Whether quota is held for it.
        conditions_json: Its conditions.
    """

    namespace: str
    name: str
    uid: str
    version: int
    owner_uid: str = ""
    owner_name: str = ""
    asks: str = ""
    active: bool = True
    admitted_count: int = 0
    has_quota: bool = False
    conditions_json: str = "[]"

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.namespace, self.name

    @property
    def conditions(self) -> Conditions:
        """Its conditions, read anew each time."""
        found: Conditions = json.loads(self.conditions_json)
        return found

    def condition(self, kind: str) -> dict[str, Any]:
        """A condition; empty if it has none of that type."""
        return next((each for each in self.conditions if each["type"] == kind), {})

    def holds(self, kind: str) -> bool:
        """Whether a condition is true."""
        return bool(self.condition(kind).get("status") == "True")

    @property
    def may_run(self) -> int:
        """Ranks that may run now; 0 for none."""
        if not self.active or self.holds("Evicted") or not self.holds("Admitted"):
            return 0
        return self.admitted_count


def workload(document: dict[str, Any]) -> Workload:
    """What is kept of an object."""
    metadata, spec = document["metadata"], document.get("spec", {})
    status = document.get("status") or {}
    owner = next((each for each in metadata.get("ownerReferences") or () if _is_job(each)), None)
    if owner is None:
        return Workload(
            metadata["namespace"],
            metadata["name"],
            metadata["uid"],
            int(metadata["resourceVersion"]),
        )
    admission = status.get("admission") or {}
    counts = [each.get("count") or 0 for each in admission.get("podSetAssignments", ())]
    return Workload(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        owner_uid=owner["uid"],
        owner_name=owner["name"],
        asks=_asked(spec),
        active=spec.get("active", True),
        admitted_count=sum(counts),
        has_quota=bool(admission),
        conditions_json=canonical(status.get("conditions") or []),
    )


def _is_job(owner: dict[str, Any]) -> bool:
    return bool(owner.get("controller") and owner["kind"] == KIND) and owner[
        "apiVersion"
    ].startswith(GROUP_VERSION.partition("/")[0])


def _asked(spec: dict[str, Any]) -> str:
    """What of a spec is ours, without what Kueue and the API server fill in."""
    sets = [
        {
            "count": each.get("count"),
            "minCount": each.get("minCount"),
            "requests": each["template"]["spec"]["containers"][0].get("resources", {}),
            "nodeSelector": each["template"]["spec"].get("nodeSelector") or {},
        }
        for each in spec.get("podSets", ())
    ]
    return canonical([sets, spec.get("queueName"), spec.get("priority") or 0])


def asked_by(found: TrainingJob, resource: str) -> str:
    """What the ``Workload`` of an object has to ask for, as ``Workload.asks`` spells it."""
    return _asked(_spec(found, resource))


def _spec(found: TrainingJob, resource: str) -> dict[str, Any]:
    spec = json.loads(found.manifest_json)["spec"]
    wanted = spec.get("accelerators") or {}
    least = wanted.get("minimum", 1)
    most = wanted.get("maximum") or least
    cores, memory = wanted.get("cpuCoresEach", 0), wanted.get("hostMemoryBytesEach", 0)
    requests = {} if wanted.get("type") == _CPU else {resource: "1"}
    if cores or not requests:
        requests[_CPU] = str(cores or 1)
    if memory:
        requests["memory"] = str(memory)
    tolerations = [
        {"key": each["key"], "operator": "Equal", "value": each["value"]}
        if each.get("value")
        else {"key": each["key"], "operator": "Exists"}
        for each in wanted.get("tolerations") or ()
    ]
    rank = {"name": "rank", "image": "headrace.invalid/rank", "resources": {"requests": requests}}
    pod: dict[str, Any] = {"restartPolicy": "Never", "containers": [rank]}
    if wanted.get("selector"):
        pod["nodeSelector"] = wanted["selector"]
    if tolerations:
        pod["tolerations"] = tolerations
    ranks: dict[str, Any] = {"name": POD_SET, "count": most, "template": {"spec": pod}}
    if least < most:
        # Kueue may admit fewer; what it admits is the most that the job is given.
        ranks["minCount"] = least
    return {
        "queueName": found.kueue_queue,
        "priority": spec.get("priority", 0),
        "podSets": [ranks],
    }


def workload_document(found: TrainingJob, resource: str, version: str) -> dict[str, Any]:
    """The ``Workload`` of an object; no pods are ever made of its template.

    Args:
        found: The object.
        resource: What Kubernetes calls an accelerator, for example ``nvidia.com/gpu``.
        version: Of Kueue's API.
    """
    mark = hashlib.sha256(found.uid.encode()).hexdigest()[:5]
    return {
        "apiVersion": f"{GROUP}/{version}",
        "kind": "Workload",
        "metadata": {
            "namespace": found.namespace,
            "name": f"trainingjob-{found.name}"[:_NAME_MOST].rstrip("-.") + f"-{mark}",
            "labels": {JOB_UID_LABEL: found.uid},
            "ownerReferences": [
                {
                    "apiVersion": GROUP_VERSION,
                    "kind": KIND,
                    "name": found.name,
                    "uid": found.uid,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": _spec(found, resource),
    }


def with_condition(
    conditions: Conditions, kind: str, holds: bool, reason: str, message: str, now: str
) -> Conditions:
    """Conditions with one of them set; it keeps its time if it says the same as before."""
    before = next((each for each in conditions if each["type"] == kind), {})
    status = "True" if holds else "False"
    same = before.get("status") == status
    new = {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message[:1024],
        "lastTransitionTime": before.get("lastTransitionTime", now) if same else now,
    }
    return [*(each for each in conditions if each["type"] != kind), new]


def ready(found: Workload, now: str) -> dict[str, Any]:
    """Its status once all ranks run, for a Kueue that waits for that (``waitForPodsReady``)."""
    again = found.condition("PodsReady").get("reason") == "WaitForRecovery"
    reason = "Recovered" if again else "Started"
    conditions = with_condition(found.conditions, "PodsReady", True, reason, "All ranks run", now)
    return {"conditions": conditions}


def not_ready(found: Workload, now: str) -> dict[str, Any]:
    """Its status while ranks that ran do not, though they may."""
    return {"conditions": _without_ranks(found.conditions, "WaitForRecovery", now)}


def _without_ranks(conditions: Conditions, reason: str, now: str) -> Conditions:
    return with_condition(conditions, "PodsReady", False, reason, "Its ranks do not run", now)


def released(found: Workload, now: str) -> dict[str, Any]:
    """Its status once what was evicted runs no more: the quota is free for others."""
    why = found.condition("Evicted")
    again = why.get("reason") in ("Preempted", "NodeFailures")
    reason, message = why.get("reason", "Evicted"), why.get("message", "")
    conditions = with_condition(found.conditions, "Requeued", again, reason, message, now)
    conditions = with_condition(conditions, "QuotaReserved", False, "Pending", message, now)
    if found.condition("Admitted"):
        text = "The workload has no reservation"
        conditions = with_condition(conditions, "Admitted", False, "NoReservation", text, now)
    if found.condition("PodsReady"):
        conditions = _without_ranks(conditions, "WaitForStart", now)
    return {"admission": None, "conditions": conditions}


def finished(found: Workload, reason: str, message: str, now: str) -> dict[str, Any]:
    """Its status once its job has ended."""
    return {"conditions": with_condition(found.conditions, "Finished", True, reason, message, now)}
