"""The chart on a real API server: installed by the real helm, with pods made by the controllers."""

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml
from kubernetes import client

from tests.architecture.source_tree import ROOT
from tests.kubernetes import chart
from tests.kubernetes.api_server import ApiServer, CommandFailedError
from tests.kubernetes.fixtures import Command
from tests.kubernetes.waiting import until

pytestmark = pytest.mark.process

# A kind that only this worker's tests know: others put Headrace's own there.
PLURAL = f"gadgets{os.getpid()}"
CRD = f"{PLURAL}.chart.headrace.test"
FAKE_CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": CRD},
    "spec": {
        "group": "chart.headrace.test",
        "names": {"kind": PLURAL.capitalize(), "plural": PLURAL},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object"}},
            }
        ],
    },
}


@dataclass(frozen=True)
class Release:
    """The chart, installed as `demo` in a namespace of its own."""

    folder: Path
    namespace: str
    api_server: ApiServer

    def objects(self) -> dict[tuple[str, str], dict[str, Any]]:
        """What the release consists of, as the API server has it now."""
        text = self.api_server.helm("get", "manifest", "demo", "-n", self.namespace)
        found = json.loads(
            self.api_server.kubectl(
                "get", "-n", self.namespace, "-o", "json", "-f", "-", stdin=text
            )
        )
        return {(one["kind"], one["metadata"]["name"]): one for one in found["items"]}

    def account(self, name: str) -> str:
        return f"system:serviceaccount:{self.namespace}:demo-headrace-{name}"


@pytest.fixture(scope="module")
def a_chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart with a definition of this test's own in the place of ours."""
    folder = tmp_path_factory.mktemp("chart") / "headrace"
    shutil.copytree(chart.CHART, folder, ignore=shutil.ignore_patterns("crds"))
    (folder / "files" / "crds").mkdir()
    (folder / "files" / "crds" / "gadgets.yaml").write_text(yaml.safe_dump(FAKE_CRD))
    return folder


@pytest.fixture(scope="module")
def release(api_server: ApiServer, a_chart: Path) -> Iterator[Release]:
    """Installed with everything."""
    namespace = f"chart-{os.getpid()}-{time.monotonic_ns() % 10**6}"
    api_server.new_namespace(namespace)
    said = api_server.helm("install", "demo", str(a_chart), "-n", namespace)
    assert "kubectl apply -f job.yaml" in said, "NOTES.txt"
    assert "holds its 8 nvidia.com/gpu" in said
    yield Release(a_chart, namespace, api_server)
    api_server.helm("uninstall", "demo", "-n", namespace, "--ignore-not-found")
    api_server.kubectl("delete", "crd", CRD, "--ignore-not-found")
    api_server.delete_namespace(namespace)


def test_an_upgrade_with_the_same_values_changes_nothing(release: Release) -> None:
    def specs() -> dict[tuple[str, str], Any]:
        return {
            name: (one["metadata"].get("generation"), one.get("spec"), one.get("data"))
            for name, one in release.objects().items()
        }

    before = specs()
    assert ("CustomResourceDefinition", CRD) in before
    assert len(before) > 30
    release.api_server.helm("upgrade", "demo", str(release.folder), "-n", release.namespace)
    assert specs() == before


# Who may what, beyond what everybody may: verbs by (group, resource, name, scope).
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
KINDS = (
    *itertools.product(["headrace.dev"], ["trainingjobs", "trainingjobs/status"]),
    *itertools.product(["headrace.dev"], ["queues", "queues/status"]),
    *itertools.product(["headrace.dev"], ["clusterpolicies", "clusterpolicies/status"]),
    ("", "secrets"),
    ("", "configmaps"),
    ("", "pods"),
    ("", "nodes"),
    ("apps", "deployments"),
    ("events.k8s.io", "events"),
    ("coordination.k8s.io", "leases"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    *itertools.product(
        ["certificates.k8s.io"],
        [
            "certificatesigningrequests",
            "certificatesigningrequests/approval",
            "certificatesigningrequests/status",
        ],
    ),
)
JOBS = ("headrace.dev", "trainingjobs")
OPERATOR = {
    JOBS: {"get", "list", "watch", "patch", "delete"},
    ("headrace.dev", "trainingjobs/status"): {"patch"},
    ("headrace.dev", "queues"): {"get", "list", "watch", "patch"},
    ("headrace.dev", "clusterpolicies"): {"get", "list", "watch", "patch"},
    ("headrace.dev", "queues/status"): {"patch"},
    ("headrace.dev", "clusterpolicies/status"): {"patch"},
    ("", "nodes"): {"get", "list", "watch"},
    ("events.k8s.io", "events"): {"create"},
    ("coordination.k8s.io", "leases"): {"create"},
}
CERTIFICATES = {
    ("", "secrets"): {"create"},
    ("certificates.k8s.io", "certificatesigningrequests"): {"list", "watch"},
    ("certificates.k8s.io", "certificatesigningrequests/approval"): {"update"},
    ("certificates.k8s.io", "certificatesigningrequests/status"): {"update"},
}
AGENT = {("certificates.k8s.io", "certificatesigningrequests"): {"create", "get"}}


class Reviews:
    """Asks the API server who may what."""

    def __init__(self, release: Release) -> None:
        self._api = client.AuthorizationV1Api(release.api_server.client)
        self._namespace = release.namespace

    def allowed(self, user: str, verb: str, kind: tuple[str, str], name: str = "") -> bool:
        group, _, _ = kind[0].partition(" ")
        resource, _, part = kind[1].partition("/")
        asked = client.V1ResourceAttributes(
            namespace=self._namespace,
            verb=verb,
            group=group,
            resource=resource,
            subresource=part or None,
            name=name or None,
        )
        groups = ["system:authenticated"]
        if user.startswith("system:serviceaccount:"):
            groups.append("system:serviceaccounts")
        answer: Any = self._api.create_subject_access_review(
            client.V1SubjectAccessReview(
                spec=client.V1SubjectAccessReviewSpec(
                    user=user, groups=groups, resource_attributes=asked
                )
            )
        )
        return bool(answer.status.allowed)

    def rights(self, user: str) -> dict[tuple[str, str], set[str]]:
        found = {kind: {verb for verb in VERBS if self.allowed(user, verb, kind)} for kind in KINDS}
        return {kind: verbs for kind, verbs in found.items() if verbs}


@pytest.mark.parametrize(
    ("account", "rights"),
    [
        ("operator", OPERATOR),
        ("certificates", CERTIFICATES),
        ("agent", AGENT),
        ("control-plane", {}),
        ("ray", {}),
    ],
)
def test_an_account_may_what_it_needs_and_nothing_else(
    release: Release, account: str, rights: dict[tuple[str, str], set[str]]
) -> None:
    assert Reviews(release).rights(release.account(account)) == rights


def test_secrets_and_leases_are_rights_by_name(release: Release) -> None:
    reviews, secrets = Reviews(release), ("", "secrets")

    def verbs(account: str, kind: tuple[str, str], name: str) -> set[str]:
        user = release.account(account)
        return {verb for verb in VERBS if reviews.allowed(user, verb, kind, name)}

    own = "demo-headrace-"
    create = {"create"}
    assert verbs("certificates", secrets, f"{own}operator-tls") == create | {"get", "update"}
    assert verbs("certificates", secrets, f"{own}authority") == create | {"get"}
    assert verbs("certificates", secrets, f"{own}ray-token") == create | {"get"}
    assert verbs("certificates", secrets, "of-somebody-else") == create
    leases = ("coordination.k8s.io", "leases")
    assert verbs("operator", leases, f"{own}operator") == create | {"get", "update"}
    assert verbs("operator", leases, "of-somebody-else") == create
    signers = ("certificates.k8s.io", "signers")
    mine = f"headrace.dev/{release.namespace}.demo-headrace"
    for signer, expected in ((mine, True), ("headrace.dev/another", False)):
        for verb in ("approve", "sign"):
            user = release.account("certificates")
            assert reviews.allowed(user, verb, signers, signer) is expected


PEOPLE = {
    "view": {"get", "list", "watch"},
    "edit": set(VERBS),
    "admin": set(VERBS),
}


@pytest.mark.parametrize("role", PEOPLE)
def test_peoples_own_roles_reach_our_kinds(release: Release, role: str, kubectl: Command) -> None:
    user = f"{role}-{release.namespace}"
    kubectl("create", "clusterrolebinding", user, f"--clusterrole={role}", f"--user={user}")
    try:
        reviews = Reviews(release)
        until("roles are aggregated", lambda: reviews.allowed(user, "get", JOBS))
        if role != "view":
            until("roles are aggregated", lambda: reviews.allowed(user, "create", JOBS))
        queues = ("headrace.dev", "queues")
        if role == "admin":
            until("roles are aggregated", lambda: reviews.allowed(user, "create", queues))
        rights = {
            kind: verbs for kind, verbs in reviews.rights(user).items() if kind[0] == "headrace.dev"
        }
        look = {"get", "list", "watch"}
        of_queues = set(VERBS) if role == "admin" else look
        status = {
            ("headrace.dev", f"{kind}/status"): {"get"} for kind in ("trainingjobs", "queues")
        }
        assert rights == {
            JOBS: PEOPLE[role],
            queues: of_queues,
            ("headrace.dev", "clusterpolicies"): of_queues,
            ("headrace.dev", "clusterpolicies/status"): {"get"},
            **status,
        }
    finally:
        kubectl("delete", "clusterrolebinding", user)


@pytest.fixture(params=["restricted", "baseline", "privileged"])
def level(request: pytest.FixtureRequest, release: Release) -> Iterator[tuple[str, str]]:
    """A level of Pod Security, and a namespace that enforces it."""
    name = f"{release.namespace}-{request.param}"
    release.api_server.new_namespace(name)
    label = f"pod-security.kubernetes.io/enforce={request.param}"
    release.api_server.kubectl("label", "namespace", name, label)
    yield request.param, name
    release.api_server.delete_namespace(name)


def test_only_what_works_on_nodes_needs_a_privileged_namespace(
    release: Release, level: tuple[str, str]
) -> None:
    enforced, namespace = level
    refused = {}
    for pod in chart.pod_templates(chart.render()):
        component = pod["metadata"]["labels"]["app.kubernetes.io/component"]
        spec = {**pod["spec"], "serviceAccountName": "default"}
        made = {"apiVersion": "v1", "kind": "Pod", "spec": spec, "metadata": {"name": component}}
        try:
            release.api_server.kubectl(
                *("create", "-n", namespace, "--dry-run=server", "-f", "-"), stdin=json.dumps(made)
            )
        except CommandFailedError as error:
            refused[component] = error.stderr
    on_nodes = {"agent", "ray-worker"}
    assert set(refused) == (set() if enforced == "privileged" else on_nodes), refused
    for why in refused.values():
        assert "host namespaces" in why
        assert "hostPath" in why


def test_without_nodes_all_pods_are_made_where_only_restricted_ones_may_be(
    release: Release, a_chart: Path
) -> None:
    api_server, namespace = release.api_server, f"{release.namespace}-r"
    api_server.new_namespace(namespace)
    api_server.kubectl(
        "label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted"
    )
    try:
        api_server.helm(
            *("install", "demo", str(a_chart), "-n", namespace, "--set=crds.install=false"),
            "--set=nodes.enabled=false",
        )
        core = client.CoreV1Api(api_server.client)

        def pods() -> list[str]:
            found: Any = core.list_namespaced_pod(namespace).items
            label = "app.kubernetes.io/component"
            return sorted(pod.metadata.labels[label] for pod in found)

        all_of_them = ["certificates", "control-plane", "operator", "operator"]
        until("the controllers have made them", lambda: pods() == all_of_them)
    finally:
        api_server.helm("uninstall", "demo", "-n", namespace)
        api_server.delete_namespace(namespace)


class Placed(Protocol):
    """Where a release is."""

    @property
    def namespace(self) -> str: ...
    @property
    def api_server(self) -> ApiServer: ...


def account_kubeconfig(release: Placed, account: str, file: Path) -> Path:
    """A kubeconfig of one of the release's accounts."""
    token = release.api_server.kubectl(
        "create", "token", f"demo-headrace-{account}", "-n", release.namespace
    )
    known = yaml.safe_load(release.api_server.kubeconfig.read_text())
    known["users"] = [{"name": user["name"], "user": {"token": token}} for user in known["users"]]
    file.touch(mode=0o600)
    file.write_text(yaml.safe_dump(known))
    return file


def test_the_parts_work_together_with_what_the_chart_has_made(
    release: Release, tmp_path: Path
) -> None:
    """No kubelet is here: their processes are started as one would, with files from the cluster."""
    objects = release.objects()
    wanted = objects["ConfigMap", "demo-headrace-certificates"]["data"]["wanted.yaml"]
    (tmp_path / "wanted.yaml").write_text(wanted)
    kubeconfig = account_kubeconfig(release, "certificates", tmp_path / "kubeconfig")
    run_command(
        *(sys.executable, "-m", "operators.certificates", "keep", "--once"),
        *("--wanted", str(tmp_path / "wanted.yaml"), "--namespace", release.namespace),
        *("--kubeconfig", str(kubeconfig)),
    )
    for part in ("control-plane", "test"):
        _mount(release, f"demo-headrace-{part}-tls", tmp_path / part)
    roles = objects["ConfigMap", "demo-headrace-control-plane-roles"]["data"]["roles.yaml"]
    (tmp_path / "roles.yaml").write_text(roles)
    (tmp_path / "job.yaml").write_text(chart.chart_file("files/test-job.yaml").read_text())
    made = [json.loads(json.dumps(one)) for one in objects.values()]
    flags = chart.container(made, "control-plane/control-plane").arguments
    replaced = {
        "/etc/headrace/tls": str(tmp_path / "control-plane"),
        "/etc/headrace/roles": str(tmp_path),
        "0.0.0.0:7460": "127.0.0.1:0",
        "0.0.0.0:7461": "127.0.0.1:0",
    }
    with subprocess.Popen(
        [sys.executable, "-m", *(_replaced(flag, replaced) for flag in flags)],
        env={**os.environ, "HEADRACE_DATABASE_URL": f"sqlite:///{tmp_path / 'headrace.db'}"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as plane:
        try:
            assert plane.stdout is not None
            ready = json.loads(plane.stdout.readline())
            for name in ("test/reach", "test/dry-run"):
                words = chart.container(chart.render(), name).arguments
                port = ready["grpc"].rpartition(":")[2]
                own = {
                    "demo-headrace-control-plane.ns.svc:7460": f"localhost:{port}",
                    "/etc/headrace/tls": str(tmp_path / "test"),
                    "/etc/headrace/job": str(tmp_path),
                }
                said = run_command(
                    *(sys.executable, "-m", "headrace.cli.entry"),
                    *(_replaced(word, own) for word in words),
                )
            assert "would be accepted" in said
        finally:
            plane.terminate()


def _replaced(word: str, by: dict[str, str]) -> str:
    for old, new in by.items():
        word = word.replace(old, new)
    return word


def run_command(*command: str) -> str:
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def _mount(release: Release, secret: str, folder: Path) -> None:
    """Writes what a kubelet would mount."""
    import base64

    text = release.api_server.kubectl(
        "get", "secret", secret, "-n", release.namespace, "-o", "json"
    )
    folder.mkdir()
    for name, value in json.loads(text)["data"].items():
        (folder / name).write_bytes(base64.b64decode(value))


def test_what_is_worth_keeping_stays_when_the_release_goes(
    api_server: ApiServer, a_chart: Path, release: Release, kubectl: Command
) -> None:
    namespace = f"{release.namespace}-u"
    api_server.new_namespace(namespace)
    crd = f"kept-{CRD}"
    folder = a_chart.parent / "other" / "headrace"
    shutil.copytree(a_chart, folder)
    told = json.dumps(FAKE_CRD).replace("gadgets", "kept-gadgets").replace("Gadgets", "Kept")
    spec = json.loads(told)
    (folder / "files" / "crds" / "gadgets.yaml").write_text(yaml.safe_dump(spec))
    try:
        api_server.helm("install", "demo", str(folder), "-n", namespace)
        gone = api_server.helm("uninstall", "demo", "-n", namespace)
        assert "were kept" in gone
        assert crd in kubectl("get", "crd", crd, "-o", "name")
        claims = kubectl("get", "persistentvolumeclaims", "-n", namespace, "-o", "name")
        assert "demo-headrace-control-plane" in claims
        left = kubectl("get", "deployments,statefulsets,daemonsets", "-n", namespace, "-o", "name")
        assert left == ""
        # Installed again, it finds them.
        api_server.helm("install", "demo", str(folder), "-n", namespace, "--take-ownership")
        api_server.helm("uninstall", "demo", "-n", namespace)
    finally:
        kubectl("delete", "crd", crd, "--ignore-not-found")
        api_server.delete_namespace(namespace)
