"""What is kept of an object that is in no namespace, and what its status should be. Pure."""

from dataclasses import dataclass
from typing import Any

from controlplane.domain.reason import ReasonCode
from headrace.api.manifest import API_VERSION
from operators.trainingjob.training_job import FINALIZER, canonical


@dataclass(frozen=True, slots=True)
class ClusterObject:
    """One object as the API server has it.

    Attributes:
        plural: Its kind, as it is called in paths.
        document: Its kind, name and spec, as a manifest.
    """

    plural: str
    name: str
    uid: str
    generation: int
    version: int
    is_going: bool
    finalizers: tuple[str, ...]
    document: dict[str, Any]
    status: dict[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        """No namespace, and the name."""
        return "", self.name

    @property
    def has_finalizer(self) -> bool:
        """Whether it waits for us before it goes."""
        return FINALIZER in self.finalizers

    @property
    def path(self) -> str:
        """Where the API server has it."""
        return f"/apis/{API_VERSION}/{self.plural}/{self.name}"


def cluster_object(plural: str, kind: str, document: dict[str, Any]) -> ClusterObject:
    """What is kept of an object."""
    metadata = document["metadata"]
    return ClusterObject(
        plural=plural,
        name=metadata["name"],
        uid=metadata["uid"],
        generation=int(metadata["generation"]),
        version=int(metadata["resourceVersion"]),
        is_going="deletionTimestamp" in metadata,
        finalizers=tuple(metadata.get("finalizers") or ()),
        document={
            "apiVersion": API_VERSION,
            "kind": kind,
            "metadata": {"name": metadata["name"]},
            "spec": document.get("spec", {}),
        },
        status=document.get("status") or {},
    )


def ready(
    found: ClusterObject, problem: str, says: str, now: str, more: dict[str, Any]
) -> dict[str, Any]:
    """The status: whether the control plane has it so.

    Args:
        found: The object.
        problem: Why it was refused; empty if it was not.
        says: What whoever set it should know all the same.
        now: The present, as Kubernetes writes it.
        more: Fields of this kind alone.
    """
    code = ReasonCode.SUBMISSION_REFUSED if problem else ReasonCode.ACCEPTED
    holds = "False" if problem else "True"
    before: dict[str, Any] = next((each for each in found.status.get("conditions", ())), {})
    same = before.get("status") == holds
    condition = {
        "type": "Ready",
        "status": holds,
        "reason": code.value,
        "message": problem or says,
        "observedGeneration": found.generation,
        "lastTransitionTime": before.get("lastTransitionTime", now) if same else now,
    }
    return {"observedGeneration": found.generation, "conditions": [condition], **more}


def is_told(found: ClusterObject, status: dict[str, Any]) -> bool:
    """Whether the object says so already."""
    return canonical(found.status) == canonical(status)
