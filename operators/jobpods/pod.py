"""What is kept of a pod, and how it is with all pods of a job. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.domain.reason import ReasonCode
from operators.jobpods.wanted import JOB, JOB_UID
from operators.runtime.informer import Key
from operators.trainingjob.status import PODS

_TOLD_BYTES = 800
_STILL_COMING = frozenset({"", "ContainerCreating", "PodInitializing"})
Condition = dict[str, Any]


@dataclass(frozen=True, slots=True)
class JobPod:
    """One pod.

    Attributes:
        namespace: Its namespace.
        name: Its name.
        uid: Its uid.
        version: Its resourceVersion.
        job: The name of its job.
        job_uid: Its job's uid.
        is_going: Whether its deletion was asked for.
        is_up: Whether its container runs.
        trouble: Why it does not come up, in the words of scheduler or kubelet; empty if nobody
            says.
    """

    namespace: str
    name: str
    uid: str
    version: int
    job: str
    job_uid: str
    is_going: bool
    is_up: bool
    trouble: str

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.namespace, self.name


def job_pod(document: Mapping[str, Any]) -> JobPod:
    """What is kept of a pod's object."""
    metadata, status = document["metadata"], document.get("status") or {}
    labels = metadata.get("labels") or {}
    states = [each.get("state") or {} for each in status.get("containerStatuses") or ()]
    return JobPod(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        job=labels.get(JOB, ""),
        job_uid=labels.get(JOB_UID, ""),
        is_going="deletionTimestamp" in metadata,
        is_up=bool(states) and all("running" in state for state in states),
        trouble=_trouble(status, states)[:_TOLD_BYTES],
    )


def _trouble(status: Mapping[str, Any], states: Collection[Mapping[str, Any]]) -> str:
    for state in states:
        waiting, ended = state.get("waiting"), state.get("terminated")
        if waiting and waiting.get("reason", "") not in _STILL_COMING:
            return _joined(waiting.get("reason"), waiting.get("message"))
        if ended:
            how = f"its container ended with code {ended.get('exitCode', 0)}"
            return _joined(ended.get("reason"), how, ended.get("message"))
    if status.get("phase") == "Failed":
        return _joined(status.get("reason"), status.get("message")) or "the pod failed"
    # Once there are containers, what the scheduler said before them is over.
    for condition in () if states else status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return _joined(condition.get("reason"), condition.get("message"))
    return ""


def _joined(*parts: str | None) -> str:
    return ": ".join(part.strip() for part in parts if part and part.strip())


def readiness(wanted: Collection[str], pods: Mapping[str, JobPod], generation: int) -> Condition:
    """The condition of a job with pods.

    Args:
        wanted: Names of the pods that it should have.
        pods: Those that it has, by name.
        generation: Of its object.
    """
    troubles = [
        f"{name}: {pods[name].trouble}" for name in sorted(wanted) if _in_trouble(pods, name)
    ]
    up = sum(name in pods and pods[name].is_up for name in wanted)
    code, message = ReasonCode.PODS_STARTING, f"{up} of {len(wanted)} pods are up"
    if troubles:
        more = f", and {len(troubles) - 1} more" if len(troubles) > 1 else ""
        code, message = ReasonCode.POD_NOT_STARTED, f"{troubles[0]}{more}"
    elif up == len(wanted):
        code, message = ReasonCode.PODS_READY, ""
    return {
        "type": PODS,
        "status": "True" if code is ReasonCode.PODS_READY else "False",
        "reason": code.value,
        "message": message,
        "observedGeneration": generation,
    }


def _in_trouble(pods: Mapping[str, JobPod], name: str) -> bool:
    return name in pods and bool(pods[name].trouble)
