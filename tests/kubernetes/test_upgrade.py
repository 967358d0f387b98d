"""From the chart of each earlier release to the present one, by the real helm on a real API server.

On a cluster of its own: the definitions of the custom resources are those of an earlier release for
a time, and other tests want the present ones.
"""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.architecture.source_tree import ROOT
from tests.kubernetes import chart
from tests.kubernetes.api_server import ApiServer, CommandFailedError
from tests.kubernetes.control_plane import local_cluster
from tests.kubernetes.fixtures import expect_programs
from tests.kubernetes.programs import API_SERVER
from tests.kubernetes.test_chart_installed import account_kubeconfig, run_command

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]

FIXTURES = ROOT / "tests" / "fixtures"
RELEASES = sorted(FIXTURES.glob("*/headrace-*.tgz"))
NAMESPACE = "headrace"
KINDS = ("trainingjobs", "queues", "clusterpolicies")
EXAMPLES = (
    ROOT / "examples" / "cluster" / "queue.yaml",
    ROOT / "examples" / "cluster" / "policy.yaml",
)
DEFINITIONS = sorted((ROOT / "deploy/helm/headrace/files/crds").glob("*.yaml"))

Object = dict[str, Any]


@dataclass(frozen=True)
class Installed:
    """An earlier release that is in use; named as `test_chart_installed.Release` is."""

    namespace: str
    api_server: ApiServer

    def get(self, *words: str) -> Object:
        found: Object = json.loads(self.api_server.kubectl("get", *words, "-o", "json"))
        return found

    def objects(self) -> dict[str, Object]:
        """Every custom resource, by kind and name, as it is stored."""
        items = [each for kind in KINDS for each in self.get(kind, "-A")["items"]]
        return {f"{each['kind']}/{each['metadata']['name']}": each for each in items}

    def secrets(self) -> dict[str, Object]:
        """What the keeper of certificates made."""
        label = "app.kubernetes.io/managed-by=headrace-certificates"
        items = self.get("secrets", "-n", self.namespace, "-l", label)["items"]
        return {each["metadata"]["name"]: each["data"] for each in items}

    def definitions(self) -> dict[str, Object]:
        """The definitions of the custom resources, by name."""
        items = self.get("customresourcedefinitions")["items"]
        return {each["metadata"]["name"]: each for each in items}

    def keep_certificates(self, folder: Path) -> None:
        """Does once what the Deployment of certificates does all the time."""
        folder.mkdir()
        config = self.get("configmap", "demo-headrace-certificates", "-n", self.namespace)
        (folder / "wanted.yaml").write_text(config["data"]["wanted.yaml"])
        kubeconfig = account_kubeconfig(self, "certificates", folder / "kubeconfig")
        run_command(
            *(sys.executable, "-m", "operators.certificates", "keep", "--once"),
            *("--wanted", str(folder / "wanted.yaml"), "--namespace", self.namespace),
            *("--kubeconfig", str(kubeconfig)),
        )


@pytest.fixture(params=RELEASES, ids=lambda file: file.parent.name)
def earlier(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Installed]:
    """With objects of each kind, and certificates."""
    if os.environ.get("HEADRACE_RECOVERIES") != "1":
        pytest.skip("takes half a minute and a cluster of its own: `make recoveries`")
    expect_programs((*API_SERVER, "helm"))
    with local_cluster() as api_server:
        api_server.new_namespace(NAMESPACE)
        api_server.helm("install", "demo", str(request.param), "-n", NAMESPACE)
        for each in KINDS:
            definition = f"customresourcedefinition/{each}.headrace.dev"
            api_server.kubectl("wait", "--for=condition=Established", definition)
        installed = Installed(NAMESPACE, api_server)
        for document in (a_job("small"), a_job("large", **LARGE)):
            api_server.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(document))
        for example in EXAMPLES:
            api_server.kubectl("apply", "--server-side", "-f", str(example))
        status = {"status": {"observedGeneration": 1, "plan": "dp2", "accelerators": 2}}
        api_server.kubectl(
            *("patch", "trainingjob", "large", "--subresource=status", "--type=merge"),
            *("-p", json.dumps(status)),
        )
        installed.keep_certificates(tmp_path / "before")
        yield installed


def a_job(name: str, **spec: Any) -> Object:
    return {
        "apiVersion": "headrace.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name, "finalizers": ["headrace.dev/control-plane"]},
        "spec": {
            "model": {"name": "gpt2", "preset": "tiny"},
            "data": {"source": "python-stdlib"},
            "training": {"globalBatchSize": 8, "steps": 100},
            "checkpoint": {"store": "/checkpoints"},
            **spec,
        },
    }


LARGE = {
    "queue": "research",
    "priority": 7,
    "serviceClass": "Guaranteed",
    "accelerators": {"minimum": 1, "maximum": 4, "topology": "SameNode"},
    "plans": ["dp4", "dp2-tp2", "dp1"],
    "env": [{"name": "A", "value": "1"}],
    "retries": {"max": 2, "backoffSeconds": 5},
    "deadlineSeconds": 3600,
    "suspend": True,
}


def without_versions(found: dict[str, Object]) -> dict[str, Object]:
    """Without what changes when a definition does: who manages which fields, of which version."""
    for each in found.values():
        for key in ("managedFields", "resourceVersion"):
            each["metadata"].pop(key, None)
    return found


def as_stored(version: Object) -> Object:
    """A version of a definition as the API server keeps it: without priorities of 0."""
    columns = [
        {key: value for key, value in column.items() if key != "priority" or value}
        for column in version["additionalPrinterColumns"]
    ]
    return {**version, "additionalPrinterColumns": columns}


def test_an_earlier_release_is_upgraded_in_place_and_removed_as_documented(
    earlier: Installed, tmp_path: Path
) -> None:
    api_server = earlier.api_server
    objects, secrets = without_versions(earlier.objects()), earlier.secrets()
    definitions = earlier.definitions()
    assert {key.partition("/")[0] for key in objects} == {"TrainingJob", "Queue", "ClusterPolicy"}
    assert len(secrets) >= 5, "authority, control plane, operator, admin, test"

    api_server.helm("upgrade", "demo", str(chart.CHART), "-n", earlier.namespace)
    assert without_versions(earlier.objects()) == objects
    for each in objects.values():
        # An update would be let through with what it does not change; whoever makes an object
        # anew is held to all present rules before it is found that the name is taken.
        metadata = {
            key: each["metadata"][key] for key in ("name", "namespace") if key in each["metadata"]
        }
        again = json.dumps({**each, "metadata": metadata})
        with pytest.raises(CommandFailedError, match="AlreadyExists"):
            api_server.kubectl("create", "--dry-run=server", "-f", "-", stdin=again)
    now = earlier.definitions()
    assert {name: each["metadata"]["uid"] for name, each in now.items()} == {
        name: each["metadata"]["uid"] for name, each in definitions.items()
    }
    for file in DEFINITIONS:
        wanted = yaml.safe_load(file.read_text(encoding="utf-8"))
        there = now[wanted["metadata"]["name"]]
        assert there["status"]["storedVersions"] == ["v1alpha1"]
        assert there["spec"]["versions"] == [as_stored(each) for each in wanted["spec"]["versions"]]
    earlier.keep_certificates(tmp_path / "after")
    assert earlier.secrets() == secrets

    # What helm leaves when the release goes (docs/operations/upgrade.md).
    api_server.helm("uninstall", "demo", "-n", earlier.namespace)
    assert without_versions(earlier.objects()) == objects
    assert earlier.definitions().keys() == now.keys()
    assert earlier.secrets() == secrets
    claims = earlier.get("persistentvolumeclaims", "-n", earlier.namespace)["items"]
    assert [each["metadata"]["name"] for each in claims] == ["demo-headrace-control-plane"]
    left = earlier.get("deployments,statefulsets,daemonsets", "-n", earlier.namespace)["items"]
    assert left == []


def test_there_is_an_earlier_release() -> None:
    assert RELEASES
