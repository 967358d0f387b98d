"""What is kept of a ``TrainingJob`` object, which is little: there may be thousands. Pure."""

import json
import math
from dataclasses import dataclass
from typing import Any

from headrace.api.manifest import MANAGED_BY_HEADRACE

GROUP_VERSION = "headrace.dev/v1alpha1"
KIND = "TrainingJob"
PLURAL = "trainingjobs"
FINALIZER = MANAGED_BY_HEADRACE
"""Keeps the object until the control plane has forgotten its job."""
ABANDON = "headrace.dev/abandon"
"""Annotation: with "true" the finalizer is let go whatever the control plane says."""
KUEUE_QUEUE = "kueue.x-k8s.io/queue-name"
"""Label: the LocalQueue of Kueue that has to admit the job."""
_LABELS_MOST = 64
_EXACT = 2**53


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One object as the API server has it.

    Attributes:
        namespace: Where it is.
        name: Its name there.
        uid: Minted by the API server.
        generation: Counts the changes of its spec.
        version: Its resourceVersion.
        is_ours: Whether nobody else was asked to manage it.
        is_going: Whether its deletion was asked for.
        is_abandoned: Whether it shall go without the control plane's word.
        finalizers: Who wants to be heard before it goes.
        ttl_seconds: When it is deleted after its end; None if nobody said.
        manifest_json: What the control plane is told.
        suspended: Its ``spec.suspend``.
        kueue_queue: The queue of Kueue that it names; empty if it names none.
        status_json: Its status, in one spelling; ``{}`` if it has none.
    """

    namespace: str
    name: str
    uid: str
    generation: int
    version: int
    is_ours: bool
    is_going: bool
    is_abandoned: bool
    finalizers: tuple[str, ...]
    ttl_seconds: int | None
    manifest_json: str
    status_json: str
    suspended: bool = False
    kueue_queue: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.namespace, self.name

    @property
    def has_finalizer(self) -> bool:
        """Whether it waits for us before it goes."""
        return FINALIZER in self.finalizers

    @property
    def status(self) -> dict[str, Any]:
        """Its status, read anew each time."""
        status: dict[str, Any] = json.loads(self.status_json)
        return status

    @property
    def path(self) -> str:
        """Where the API server has it."""
        return f"{collection(self.namespace)}/{self.name}"


def collection(namespace: str = "") -> str:
    """Path of the objects of a namespace; of all namespaces if none is named."""
    where = f"namespaces/{namespace}/" if namespace else ""
    return f"/apis/{GROUP_VERSION}/{where}{PLURAL}"


def canonical(document: object) -> str:
    """One spelling of a document, so that equal ones are equal texts.

    What JSON cannot hold (a loss that is no number) is left out, and a whole number is written as
    one, as the API server does.
    """
    plain = _plain(document)
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        told = {key: _plain(each) for key, each in value.items()}
        return {key: each for key, each in told.items() if each is not None}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return int(value) if value.is_integer() and abs(value) < _EXACT else value
    return value


def training_job(document: dict[str, Any]) -> TrainingJob:
    """What is kept of an object."""
    metadata, spec = document["metadata"], document.get("spec", {})
    annotations = metadata.get("annotations") or {}
    labels = dict(sorted((metadata.get("labels") or {}).items())[:_LABELS_MOST])
    # Annotations are for other tools, and may be larger than a manifest allows.
    manifest = {
        "apiVersion": GROUP_VERSION,
        "kind": KIND,
        "metadata": {
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            **({"labels": labels} if labels else {}),
        },
        "spec": spec,
    }
    return TrainingJob(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=int(metadata["generation"]),
        version=int(metadata["resourceVersion"]),
        is_ours=spec.get("managedBy", MANAGED_BY_HEADRACE) == MANAGED_BY_HEADRACE,
        is_going="deletionTimestamp" in metadata,
        is_abandoned=annotations.get(ABANDON) == "true",
        finalizers=tuple(metadata.get("finalizers") or ()),
        ttl_seconds=spec.get("ttlSecondsAfterFinish"),
        manifest_json=canonical(manifest),
        status_json=canonical(document.get("status") or {}),
        suspended=bool(spec.get("suspend")),
        kueue_queue=labels.get(KUEUE_QUEUE, ""),
    )
