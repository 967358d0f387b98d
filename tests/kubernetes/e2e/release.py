"""The chart on a real node, as people install and use it."""

import base64
import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.architecture.source_tree import ROOT
from tests.kubernetes.api_server import ApiServer
from tests.kubernetes.chart import CHART
from tests.kubernetes.programs import program
from tests.kubernetes.waiting import until

HERE = Path(__file__).parent
NAMESPACE = "headrace"
VALUES = (HERE / "values.yaml",)
NEXT = "next"
"""Another tag of the same images: an upgrade to it replaces every pod that an upgrade replaces."""
PATIENCE_SECONDS = 300.0
"""How long the pods may take on a loaded machine before it counts as never."""

_COMPONENT = "app.kubernetes.io/component"


@dataclass(frozen=True)
class Release:
    """The release `headrace` on one node.

    Attributes:
        api_server: Its API server, as administrator.
        within: What to put before a command to run it as root of the node.
    """

    api_server: ApiServer
    within: list[str]

    def prepare(self) -> None:
        """What a cluster has before the chart comes: storage, and a namespace for it."""
        for volume in ("first", "second"):
            subprocess.run([*self.within, "mkdir", "-p", f"/var/lib/volumes/{volume}"], check=True)
        kubectl = self.api_server.kubectl
        kubectl("apply", "-f", str(HERE / "storage.yaml"))
        self.api_server.new_namespace(NAMESPACE)
        level = "pod-security.kubernetes.io/enforce=privileged"
        kubectl("label", "namespace", NAMESPACE, level)
        kubectl("apply", "-n", NAMESPACE, "-f", str(HERE / "checkpoints.yaml"))

    def helm(self, verb: str, *flags: str) -> str:
        """`helm install` or `helm upgrade` with the values of these tests, and until all is up."""
        values = [word for file in VALUES for word in ("--values", str(file))]
        told = self.api_server.helm(verb, "headrace", str(CHART), "-n", NAMESPACE, *values, *flags)
        self.wait_ready()
        return told

    def wait_ready(self) -> None:
        """Until every pod that should be there is, and is ready."""
        until("every pod is ready", self._is_ready, PATIENCE_SECONDS)

    def _is_ready(self) -> bool:
        kinds = "deployments,statefulsets,daemonsets"
        found = self._read("get", kinds, "-n", NAMESPACE, "-o", "json")
        return all(_rolled_out(one) for one in found["items"]) and all(
            pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
            for pod in self.pods()
        )

    def pods(self) -> list[dict[str, Any]]:
        """Those of the release, without that of `helm test`."""
        found = self._read("get", "pods", "-n", NAMESPACE, "-o", "json")["items"]
        return [pod for pod in found if pod["metadata"]["labels"].get(_COMPONENT) != "test"]

    def uids(self) -> dict[str, set[str]]:
        """Which pods each component has."""
        told: dict[str, set[str]] = {}
        for pod in self.pods():
            component = pod["metadata"]["labels"][_COMPONENT]
            told.setdefault(component, set()).add(pod["metadata"]["uid"])
        return told

    def apply(self, name: str, steps: int, **spec: Any) -> None:
        """`kubectl apply` of a job that trains a tiny GPT-2."""
        self.api_server.kubectl("apply", "-f", "-", stdin=json.dumps(manifest(name, steps, **spec)))

    def status(self, name: str) -> dict[str, Any]:
        """The status of a job's object."""
        return dict(self._read("get", "trainingjob", name, "-o", "json").get("status", {}))

    def wait_status(self, name: str, what: str, holds: Callable[[dict[str, Any]], Any]) -> None:
        """Until the status of a job's object is so."""
        try:
            until(f"{name} {what}", lambda: holds(self.status(name)), PATIENCE_SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{error}: {json.dumps(self.status(name))}") from None

    @contextlib.contextmanager
    def command_line(self, folder: Path) -> Iterator[Callable[..., str]]:
        """`headrace` as helm's notes say: through a port-forward, as the admin."""
        secret = self._read("get", "secret", "headrace-admin-tls", "-n", NAMESPACE, "-o", "json")
        for name, value in secret["data"].items():
            (folder / name).write_bytes(base64.b64decode(value))
        with _forwarded(self.api_server, "service/headrace-control-plane") as port:

            def headrace(*words: str) -> str:
                ended = subprocess.run(
                    [
                        *(sys.executable, "-m", "headrace.cli.entry"),
                        *(f"--server=localhost:{port}", f"--tls-ca={folder / 'ca.crt'}"),
                        *(f"--tls-cert={folder / 'tls.crt'}", f"--tls-key={folder / 'tls.key'}"),
                        *words,
                    ],
                    cwd=ROOT,
                    capture_output=True,
                    check=False,
                    text=True,
                )
                assert ended.returncode == 0, ended.stderr
                return ended.stdout

            yield headrace

    def _read(self, *words: str) -> dict[str, Any]:
        return dict(json.loads(self.api_server.kubectl(*words)))


def manifest(name: str, steps: int, **spec: Any) -> dict[str, Any]:
    """A job that trains a tiny GPT-2 on one CPU slot; ``spec`` replaces parts of its spec."""
    return {
        "apiVersion": "headrace.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name},
        "spec": {
            "accelerators": {"minimum": 1, "maximum": 1},
            "model": {"name": "gpt2", "preset": "tiny"},
            "data": {"source": "python-stdlib"},
            "training": {"globalBatchSize": 8, "steps": steps},
            "checkpoint": {"store": "/checkpoints", "everySteps": 500, "keep": 2},
            **spec,
        },
    }


def condition(status: dict[str, Any], kind: str) -> str:
    """`True`, `False` or `Unknown`; empty if it is not there."""
    told = {each["type"]: str(each["status"]) for each in status.get("conditions", ())}
    return told.get(kind, "")


def step(status: dict[str, Any]) -> int:
    """How far the job is."""
    return int(status.get("progress", {}).get("step", 0))


def _rolled_out(one: dict[str, Any]) -> bool:
    """Whether the controller has seen the newest spec, and every pod of it is ready."""
    status = one["status"]
    if status.get("observedGeneration") != one["metadata"]["generation"]:
        return False
    if one["kind"] == "DaemonSet":
        wanted = status["desiredNumberScheduled"]
        on_delete = one["spec"]["updateStrategy"]["type"] == "OnDelete"
        current = wanted if on_delete else status.get("updatedNumberScheduled")
        return bool(wanted == current == status.get("numberReady"))
    wanted = one["spec"]["replicas"]
    if one["kind"] == "StatefulSet":
        return bool(wanted == status.get("readyReplicas"))
    told = (status.get(name) for name in ("replicas", "updatedReplicas", "availableReplicas"))
    return all(number == wanted for number in told)


@contextlib.contextmanager
def _forwarded(api_server: ApiServer, target: str) -> Iterator[int]:
    """A port of loopback that leads to the API of the control plane."""
    command = [str(program("kubectl")), "port-forward", "-n", NAMESPACE, target, ":7460"]
    with subprocess.Popen(
        command,
        env={**os.environ, "KUBECONFIG": str(api_server.kubeconfig)},
        stdout=subprocess.PIPE,
        text=True,
    ) as forwarding:
        try:
            assert forwarding.stdout is not None
            told = forwarding.stdout.readline()
            found = re.search(r"127\.0\.0\.1:(\d+)", told)
            assert found, f"kubectl port-forward said {told!r}"
            yield int(found[1])
        finally:
            forwarding.terminate()
