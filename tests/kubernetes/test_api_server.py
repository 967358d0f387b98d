"""A real API server answers, validates and forbids, as the tests that build on it expect."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from tests.kubernetes.api_server import ApiServer, CommandFailedError
from tests.kubernetes.fixtures import Command
from tests.kubernetes.waiting import until

pytestmark = pytest.mark.process

WIDGETS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.launcher.headrace.test"},
    "spec": {
        "group": "launcher.headrace.test",
        "names": {"kind": "Widget", "plural": "widgets"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "properties": {
                                    "least": {"type": "integer", "default": 1},
                                    "most": {"type": "integer"},
                                },
                                "x-kubernetes-validations": [
                                    {
                                        "rule": "self.least <= self.most",
                                        "message": "least is above most",
                                    }
                                ],
                            }
                        },
                    }
                },
            }
        ],
    },
}


def widget(name: str, **spec: int) -> str:
    return json.dumps(
        {
            "apiVersion": "launcher.headrace.test/v1",
            "kind": "Widget",
            "metadata": {"name": name},
            "spec": spec,
        }
    )


@pytest.fixture(scope="module")
def widgets(kubectl: Command) -> None:
    """The kind, on the server; others may have put it there too."""
    kubectl("apply", "-f", "-", stdin=json.dumps(WIDGETS))
    kubectl("wait", "--for=condition=Established", f"crd/{WIDGETS['metadata']['name']}")  # type: ignore[index]


def test_kubectl_and_the_official_client_speak_to_the_same_server(
    api_server: ApiServer, kubectl: Command
) -> None:
    said = json.loads(kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"]
    assert client.VersionApi(api_server.client).get_code().git_version == said
    assert re.fullmatch(r"v1\.\d+\.\d+.*", said), "a build without its version in it"


@pytest.mark.usefixtures("widgets")
def test_a_custom_resource_is_defaulted_and_its_rules_hold(
    kubectl: Command, namespace: str
) -> None:
    kubectl("apply", "-n", namespace, "-f", "-", stdin=widget("good", most=3))
    stored = json.loads(kubectl("get", "widget", "good", "-n", namespace, "-o", "json"))
    assert stored["spec"] == {"least": 1, "most": 3}

    with pytest.raises(CommandFailedError, match="least is above most"):
        kubectl("apply", "-n", namespace, "-f", "-", stdin=widget("bad", least=4, most=3))


def test_who_has_no_role_is_denied_and_who_has_one_is_not(
    kubeconfig_of: Callable[..., Path], kubectl: Command, namespace: str
) -> None:
    nobody = str(kubeconfig_of("ann", "readers"))
    asked = ("--kubeconfig", nobody, "get", "configmaps", "-n", namespace)
    with pytest.raises(CommandFailedError, match='User "ann" cannot list resource "configmaps"'):
        kubectl(*asked)

    kubectl("create", "rolebinding", "r", "-n", namespace, "--clusterrole=view", "--group=readers")
    assert "kube-root-ca.crt" in until("the role counts", lambda: _or_empty(kubectl, *asked))


def _or_empty(kubectl: Command, *asked: str) -> str:
    try:
        return kubectl(*asked)
    except CommandFailedError:
        return ""


def test_a_new_namespace_is_ready_for_pods(api_server: ApiServer) -> None:
    core = client.CoreV1Api(api_server.client)
    # One alone might have its service account in time by chance.
    names = [f"ready-{number}" for number in range(10)]
    for name in names:
        api_server.new_namespace(name)
        assert api_server.has_default_account(name)
    container = client.V1Container(name="c", image="localhost/none:test")
    pod = client.V1Pod(
        metadata=client.V1ObjectMeta(name="p"), spec=client.V1PodSpec(containers=[container])
    )
    made = core.create_namespaced_pod(names[0], pod)
    assert made.spec is not None
    assert made.spec.service_account_name == "default"
    for name in names:
        api_server.delete_namespace(name)


def test_each_test_has_a_namespace_of_its_own(namespace: str, api_server: ApiServer) -> None:
    found = client.CoreV1Api(api_server.client).read_namespace(namespace)
    assert found.status is not None
    assert found.status.phase == "Active"
    assert re.fullmatch(r"each-test-has-a-namespace-of-its-own-[0-9a-f]{6}", namespace)


def test_a_namespace_that_is_let_go_goes(api_server: ApiServer) -> None:
    api_server.new_namespace("let-go")
    api_server.delete_namespace("let-go")

    def is_gone() -> bool:
        try:
            client.CoreV1Api(api_server.client).read_namespace("let-go")
        except ApiException as error:
            return bool(error.status == 404)
        return False

    until("it is gone, which only the controllers can do", is_gone)


def test_kubectl_tells_what_it_was_asked_and_what_went_wrong(kubectl: Command) -> None:
    with pytest.raises(
        CommandFailedError, match=r"`kubectl get no-such-kind`.* the server doesn't"
    ):
        kubectl("get", "no-such-kind")


def test_the_users_own_kubectl_settings_are_not_touched(
    kubectl: Command, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    kubectl("get", "namespaces")
    assert list(home.iterdir()) == []
