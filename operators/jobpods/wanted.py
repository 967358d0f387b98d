"""Which pods a job should have now, from its object and what it holds. Pure.

One pod for each node of an attempt, under a name made of the three: whoever makes it twice makes
one, and a pod of another attempt is never taken for this one's.
"""

import hashlib
import json
from typing import Any

from operators.jobpods.settings import PodSettings
from operators.trainingjob.reconcile import KnownJob
from operators.trainingjob.training_job import GROUP_VERSION, KIND, TrainingJob

COMPONENT = "job-pod"
SELECTOR = f"app.kubernetes.io/component={COMPONENT},app.kubernetes.io/managed-by=headrace-operator"
JOB, JOB_UID, ATTEMPT = "headrace.dev/job", "headrace.dev/job-uid", "headrace.dev/attempt"

_FOLDER = "/run/headrace"
"""Where ``agent.pod_init`` speaks with the agent."""
_TEMPORARY, _SHARED_MEMORY = "/tmp", "/dev/shm"  # noqa: S108 - the pod's own volumes
_PROGRAM = ("python3", "-m", "agent.pod_init")
_LIKE_A_GPU = ("GPU-", "MIG-")
_GRACE_SECONDS = 10
Document = dict[str, Any]


def wants_pods(manifest_json: str, settings: PodSettings) -> bool:
    """Whether a job has an image, a claim, or a secret that the nodes' Ray workers do not have."""
    spec = json.loads(manifest_json)["spec"]
    own_secrets = {name for name, _ in _secrets(spec)} - set(settings.shared_secrets)
    return bool(_image(spec) or _claims(spec) or own_secrets)


def wanted_pods(
    found: TrainingJob, job: KnownJob | None, settings: PodSettings
) -> dict[str, Document]:
    """The pods that there should be, by name."""
    if job is None or not job.attempt_in_pods:
        return {}
    made = {}
    for node, accelerators in job.places:
        name = _name(job, node)
        made[name] = _pod(found, job, settings, name, node, accelerators)
    return made


def _name(job: KnownJob, node: str) -> str:
    what = hashlib.sha256(f"{job.uid} {node}".encode()).hexdigest()[:10]
    return f"{job.name[:40].rstrip('-')}-{job.attempt_in_pods}-{what}"


def _pod(
    found: TrainingJob,
    job: KnownJob,
    settings: PodSettings,
    name: str,
    node: str,
    accelerators: tuple[str, ...],
) -> Document:
    spec = json.loads(found.manifest_json)["spec"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": found.namespace,
            "labels": {
                "app.kubernetes.io/name": "headrace",
                "app.kubernetes.io/component": COMPONENT,
                "app.kubernetes.io/managed-by": "headrace-operator",
                JOB: found.name,
                JOB_UID: found.uid,
                ATTEMPT: str(job.attempt_in_pods),
            },
            "ownerReferences": [
                {
                    "apiVersion": GROUP_VERSION,
                    "kind": KIND,
                    "name": found.name,
                    "uid": found.uid,
                    "controller": True,
                }
            ],
        },
        "spec": {
            # Who was started once is not started again: that is the control plane's to decide.
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": _GRACE_SECONDS,
            "affinity": _on(node),
            "tolerations": list(settings.tolerations),
            **_named("runtimeClassName", settings.runtime_class_name),
            **_named("priorityClassName", settings.priority_class_name),
            "imagePullSecrets": [{"name": each} for each in settings.image_pull_secrets],
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": settings.uid,
                "runAsGroup": settings.uid,
                "fsGroup": settings.uid,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [_container(spec, job, settings, accelerators)],
            "volumes": [volume for volume, _ in _volumes(spec, settings)],
        },
    }


def _container(
    spec: Document, job: KnownJob, settings: PodSettings, accelerators: tuple[str, ...]
) -> Document:
    return {
        "name": "ranks",
        "image": _image(spec) or settings.image,
        **_named("imagePullPolicy", settings.image_pull_policy),
        "command": list(_PROGRAM),
        "env": [
            {"name": "HEADRACE_JOB_POD", "value": f"{job.uid}/{job.attempt_in_pods}"},
            {
                "name": "HEADRACE_POD_ADDRESS",
                "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}},
            },
            {"name": "HOME", "value": _TEMPORARY},
            {"name": "USER", "value": "headrace"},
            {"name": "NVIDIA_VISIBLE_DEVICES", "value": _visible(spec, accelerators)},
            {"name": "NVIDIA_DRIVER_CAPABILITIES", "value": "compute,utility"},
        ],
        "resources": settings.resources,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        # Why an image cannot do it is in its last lines, and so in the pod's status.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [mount for _, mount in _volumes(spec, settings)],
    }


def _on(node: str) -> Document:
    """By the scheduler, which binds claims and respects taints, onto one node alone."""
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    required = {"nodeSelectorTerms": [{"matchFields": [field]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


def _volumes(spec: Document, settings: PodSettings) -> list[tuple[Document, Document]]:
    """Each volume with its mount."""
    made: list[tuple[Document, Document]] = [
        ({"name": "headrace", "emptyDir": {}}, {"name": "headrace", "mountPath": _FOLDER}),
        (
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": settings.shared_memory}},
            {"name": "shm", "mountPath": _SHARED_MEMORY},
        ),
        ({"name": "tmp", "emptyDir": {}}, {"name": "tmp", "mountPath": _TEMPORARY}),
    ]
    keys: dict[str, list[str]] = {}
    for secret, key in _secrets(spec):
        keys.setdefault(secret, []).append(key)
    for number, (secret, wanted) in enumerate(sorted(keys.items())):
        items = [{"key": key, "path": key} for key in sorted(set(wanted))]
        # One that is missing is told by the rank's supervisor, in a sentence; the kubelet would
        # only go on waiting for it.
        told = {"secretName": secret, "items": items, "optional": True, "defaultMode": 0o440}
        name = f"secret-{number}"
        where = {"name": name, "mountPath": f"{_FOLDER}/secrets/{secret}", "readOnly": True}
        made.append(({"name": name, "secret": told}, where))
    for number, (mount_path, claim) in enumerate(_claims(spec)):
        name = f"claim-{number}"
        made.append(
            (
                {"name": name, "persistentVolumeClaim": claim},
                {"name": name, "mountPath": mount_path, "readOnly": claim["readOnly"]},
            )
        )
    return made


def _visible(spec: Document, accelerators: tuple[str, ...]) -> str:
    """Which GPUs the container runtime shows.

    A program of the user's own keeps what it has. Other ranks come and go in an attempt, and so do
    the GPUs of its pod on a node: it is shown all, and each rank uses its own.
    """
    gpus = [slot for slot in accelerators if slot.startswith(_LIKE_A_GPU)]
    if not gpus:
        return "void"
    return ",".join(gpus) if "command" in spec else "all"


def _image(spec: Document) -> str:
    return str((spec.get("command") or {}).get("image") or "")


def _claims(spec: Document) -> list[tuple[str, Document]]:
    """Where claims are mounted, and what Kubernetes is told of them."""
    found = []
    for volume in spec.get("volumes") or ():
        claim = volume.get("persistentVolumeClaim")
        if claim:
            told = {"claimName": claim["claimName"], "readOnly": bool(claim.get("readOnly"))}
            found.append((str(volume["mountPath"]), told))
    return found


def _secrets(spec: Document) -> list[tuple[str, str]]:
    """Secrets and keys that variables take their values from."""
    references = [
        (variable.get("valueFrom") or {}).get("secretKeyRef") for variable in spec.get("env") or ()
    ]
    return [(each["name"], each["key"]) for each in references if each]


def _named(field: str, value: str) -> Document:
    return {field: value} if value else {}
