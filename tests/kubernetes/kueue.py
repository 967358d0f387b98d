"""Kueue's own manager as a process beside a cluster of ours; its admission webhooks are left out.

Its defaults and checks are webhooks, which need a service; quota, admission, preemption and
eviction are its controllers, and are all there.
"""

import base64
import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client

from tests.kubernetes.api_server import ApiServer
from tests.kubernetes.control_plane import NotStartedError, free_ports
from tests.kubernetes.programs import KUEUE_CRDS, program
from tests.kubernetes.waiting import until

NAMESPACE = "kueue-system"
SECRET = "kueue-webhook-server-cert"
PLACE = ("kueue.x-k8s.io", "v1beta2")
_CONVERTED = ("localqueues", "clusterqueues", "workloads", "cohorts", "multikueueclusters")
_LAST_LINES = 15


@contextlib.contextmanager
def kueue(kubernetes: ApiServer, folder: Path, *, frameworks: tuple[str, ...]) -> Iterator[None]:
    """Runs Kueue for the time of a ``with`` block.

    Args:
        kubernetes: The cluster, on which nobody else runs it.
        folder: For its configuration, certificates and log.
        frameworks: Kinds that others look after, such as ``TrainingJob.v1alpha1.headrace.dev``.

    Raises:
        NotStartedError: It ended; with what it wrote last.
    """
    core = client.CoreV1Api(kubernetes.client)
    kubernetes.new_namespace(NAMESPACE)
    secret = client.V1Secret(metadata=client.V1ObjectMeta(name=SECRET))
    core.create_namespaced_secret(NAMESPACE, secret)
    definitions = folder / "crds.yaml"
    definitions.write_text(yaml.safe_dump_all(_definitions()))
    kubernetes.kubectl("apply", "--server-side", "-f", str(definitions))
    kubernetes.kubectl("wait", "--for=condition=Established", "-f", str(definitions))
    certificates = folder / "certificates"
    certificates.mkdir()
    settings = folder / "kueue.yaml"
    settings.write_text(yaml.safe_dump(_settings(certificates, frameworks)))
    with (folder / "kueue.log").open("wb") as log:
        process = subprocess.Popen(
            [program("kueue"), f"--config={settings}"],
            env={**os.environ, "KUBECONFIG": str(kubernetes.kubeconfig)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:

        def made() -> dict[str, str]:
            if process.poll() is not None:
                last = (folder / "kueue.log").read_text().splitlines()[-_LAST_LINES:]
                raise NotStartedError("\n".join([f"kueue ended with {process.returncode}:", *last]))
            read: Any = core.read_namespaced_secret(SECRET, NAMESPACE)
            return dict(read.data or {})

        # What a kubelet would mount.
        for name, data in until("Kueue has its certificates", made).items():
            (certificates / name).write_bytes(base64.b64decode(data))
        yield
    finally:
        process.kill()
        process.wait()


def _definitions() -> Iterator[dict[str, Any]]:
    webhook = {
        "conversionReviewVersions": ["v1"],
        "clientConfig": {"service": {"name": "kueue-webhook-service", "namespace": NAMESPACE}},
    }
    for document in filter(None, yaml.load_all(program(KUEUE_CRDS).read_bytes(), yaml.CSafeLoader)):
        if document["spec"]["names"]["plural"] in _CONVERTED:
            # Kueue wants it there. Nobody here asks for another version than the stored one.
            document["spec"]["conversion"] = {"strategy": "Webhook", "webhook": webhook}
        yield document


def _settings(certificates: Path, frameworks: tuple[str, ...]) -> dict[str, Any]:
    return {
        "apiVersion": "config.kueue.x-k8s.io/v1beta2",
        "kind": "Configuration",
        "namespace": NAMESPACE,
        "health": {"healthProbeBindAddress": "0"},
        "metrics": {"bindAddress": "0"},
        "webhook": {"host": "127.0.0.1", "port": free_ports(1)[0], "certDir": str(certificates)},
        "leaderElection": {"leaderElect": False},
        # Nothing else is admitted before what was admitted says that it runs.
        "waitForPodsReady": {"timeout": "60s", "blockAdmission": True},
        "featureGates": {"VisibilityOnDemand": False, "MultiKueue": False},
        "integrations": {"frameworks": ["batch/job"], "externalFrameworks": list(frameworks)},
    }


def quota(kubernetes: ApiServer, namespace: str, resource: str, count: int) -> None:
    """A ClusterQueue of so much, in which higher priorities preempt, and a LocalQueue ``team``."""
    objects = client.CustomObjectsApi(kubernetes.client)
    group, version = PLACE
    flavor = {"name": "default", "resources": [{"name": resource, "nominalQuota": count}]}

    def made(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        return {
            "apiVersion": f"{group}/{version}",
            "kind": kind,
            "metadata": {"name": name},
            "spec": spec,
        }

    objects.create_cluster_custom_object(
        *PLACE, "resourceflavors", made("ResourceFlavor", "default", {})
    )
    spec = {
        "namespaceSelector": {},
        "resourceGroups": [{"coveredResources": [resource], "flavors": [flavor]}],
        "preemption": {"withinClusterQueue": "LowerPriority"},
    }
    objects.create_cluster_custom_object(
        *PLACE, "clusterqueues", made("ClusterQueue", "research", spec)
    )
    local = made("LocalQueue", "team", {"clusterQueue": "research"})
    objects.create_namespaced_custom_object(group, version, namespace, "localqueues", local)
