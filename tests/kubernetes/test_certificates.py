"""Certificates on a real API server: made once, renewed, signed for agents of their own node."""

import base64
import datetime
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from kubernetes import client

from operators.certificates.authority import Authority, Pair, found_authority
from operators.certificates.fetching import DeniedError, Fetcher
from operators.certificates.keeper import MANAGED_BY, OURS, CannotKeepError, Keeper
from operators.certificates.wanted import Wanted, WantedFileError, read_wanted
from tests.architecture.source_tree import ROOT
from tests.kubernetes.api_server import ApiServer

pytestmark = pytest.mark.process

NOW = datetime.datetime(2026, 11, 28, 12, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
IDENTITY = "spiffe://headrace.test/node/"


class Clock:
    """The time that a test says it is."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime.datetime:
        return self.now


class Installation:
    """One namespace, and who keeps its certificates."""

    def __init__(self, api_server: ApiServer, namespace: str) -> None:
        self.api_server = api_server
        self.namespace = namespace
        self.core = client.CoreV1Api(api_server.client)
        self.requests = client.CertificatesV1Api(api_server.client)
        self.signer = f"headrace.dev/{namespace}"
        self.clock = Clock()

    def wanted(self, **changes: Any) -> Wanted:
        return Wanted.model_validate(
            {
                "authority": {"secret": "ca"},
                "certificates": [
                    {"secret": "server", "uri": "spiffe://headrace.test/server", "dns": ["s", "t"]},
                    {"secret": "operator", "uri": "spiffe://headrace.test/operator"},
                ],
                "tokens": [{"secret": "ray-token", "key": "token"}],
                "nodes": {
                    "signer": self.signer,
                    "account": f"system:serviceaccount:{self.namespace}:default",
                    "identity": IDENTITY,
                },
                **changes,
            }
        )

    def keeper(self, **changes: Any) -> Keeper:
        return Keeper(
            self.api_server.client, self.namespace, self.wanted(**changes), self.clock, {"a": "b"}
        )

    def secret(self, name: str) -> dict[str, bytes]:
        found: Any = self.core.read_namespaced_secret(name, self.namespace)
        return {key: base64.b64decode(value) for key, value in found.data.items()}

    def secrets(self) -> dict[str, dict[str, bytes]]:
        return {name: self.secret(name) for name in ("ca", "server", "operator", "ray-token")}

    def pod_client(self, node: str) -> client.ApiClient:
        """A client with the token of a pod that runs on that node."""
        pod = client.V1Pod(
            metadata=client.V1ObjectMeta(generate_name="agent-"),
            spec=client.V1PodSpec(
                node_name=node, containers=[client.V1Container(name="c", image="localhost/none:t")]
            ),
        )
        made: Any = self.core.create_namespaced_pod(self.namespace, pod)
        bound = client.V1BoundObjectReference(
            api_version="v1", kind="Pod", name=made.metadata.name, uid=made.metadata.uid
        )
        return self.client_of_account(bound)

    def client_of_account(
        self, bound: client.V1BoundObjectReference | None = None
    ) -> client.ApiClient:
        answer: Any = self.core.create_namespaced_service_account_token(
            "default",
            self.namespace,
            client.AuthenticationV1TokenRequest(
                spec=client.V1TokenRequestSpec(audiences=[], bound_object_ref=bound)
            ),
        )
        settings = client.Configuration()
        settings.host = self.api_server.server
        settings.ssl_ca_cert = self.api_server.client.configuration.ssl_ca_cert
        settings.api_key = {"authorization": f"Bearer {answer.status.token}"}
        return client.ApiClient(settings)


@pytest.fixture
def installation(api_server: ApiServer, namespace: str) -> Iterator[Installation]:
    made = Installation(api_server, namespace)
    yield made
    made.requests.delete_collection_certificate_signing_request(
        field_selector=f"spec.signerName={made.signer}"
    )
    made.core.delete_collection_namespaced_pod(namespace)


@pytest.fixture
def node(api_server: ApiServer, namespace: str) -> Iterator[str]:
    """A node that is only an object, which is all that a token needs."""
    core = client.CoreV1Api(api_server.client)
    name = f"node-of-{namespace}"
    core.create_node(client.V1Node(metadata=client.V1ObjectMeta(name=name)))
    yield name
    core.delete_node(name)


@pytest.fixture
def may_ask(api_server: ApiServer, namespace: str) -> Iterator[None]:
    """The namespace's account may make requests, and nothing else."""
    rbac = client.RbacAuthorizationV1Api(api_server.client)
    name = f"asks-{namespace}"
    rule = client.V1PolicyRule(
        api_groups=["certificates.k8s.io"],
        resources=["certificatesigningrequests"],
        verbs=["create", "get"],
    )
    rbac.create_cluster_role(
        client.V1ClusterRole(metadata=client.V1ObjectMeta(name=name), rules=[rule])
    )
    rbac.create_cluster_role_binding(
        client.V1ClusterRoleBinding(
            metadata=client.V1ObjectMeta(name=name),
            role_ref=client.V1RoleRef(
                api_group="rbac.authorization.k8s.io", kind="ClusterRole", name=name
            ),
            subjects=[
                client.RbacV1Subject(kind="ServiceAccount", name="default", namespace=namespace)
            ],
        )
    )
    yield
    rbac.delete_cluster_role_binding(name)
    rbac.delete_cluster_role(name)


def test_all_is_made_once_and_kept(installation: Installation) -> None:
    installation.keeper().look()
    made = installation.secrets()
    server = x509.load_pem_x509_certificate(made["server"]["tls.crt"])
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["s", "t"]
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        "spiffe://headrace.test/server"
    ]
    assert made["server"]["ca.crt"] == made["ca"]["tls.crt"]
    assert len(made["ray-token"]["token"]) == 64
    labels = installation.core.read_namespaced_secret("server", installation.namespace)
    assert labels.metadata is not None
    assert labels.metadata.labels == {"a": "b", MANAGED_BY: OURS}

    installation.keeper().look()
    assert installation.secrets() == made, "another keeper changes nothing"


def test_a_certificate_is_renewed_after_two_thirds_and_the_authority_stays(
    installation: Installation,
) -> None:
    installation.keeper().look()
    made = installation.secrets()
    installation.clock.now += 59 * DAY
    installation.keeper().look()
    assert installation.secrets() == made
    installation.clock.now += 2 * DAY
    installation.keeper().look()
    renewed = installation.secrets()
    assert renewed["server"]["tls.crt"] != made["server"]["tls.crt"]
    assert renewed["server"]["tls.key"] != made["server"]["tls.key"]
    assert (renewed["ca"], renewed["ray-token"]) == (made["ca"], made["ray-token"])


def test_other_names_or_another_authority_make_another_certificate(
    installation: Installation,
) -> None:
    installation.keeper().look()
    made = installation.secrets()
    operator = {"secret": "operator", "uri": "spiffe://headrace.test/other"}
    installation.keeper(certificates=[operator]).look()
    renamed = installation.secrets()
    assert renamed["operator"] != made["operator"]
    installation.core.delete_namespaced_secret("ca", installation.namespace)
    installation.keeper().look()
    anew = installation.secrets()
    assert anew["server"]["ca.crt"] == anew["ca"]["tls.crt"] != made["ca"]["tls.crt"]


def test_what_is_not_ours_is_not_overwritten(installation: Installation) -> None:
    foreign = client.V1Secret(
        metadata=client.V1ObjectMeta(name="server"), data={"a": "Yg=="}, type="Opaque"
    )
    installation.core.create_namespaced_secret(installation.namespace, foreign)
    with pytest.raises(CannotKeepError, match="made by somebody else"):
        installation.keeper().look()
    assert installation.secret("server") == {"a": b"b"}


def test_an_authority_of_somebody_else_is_waited_for_and_must_be_one(
    installation: Installation,
) -> None:
    authority = {"secret": "given", "make": False}
    with pytest.raises(CannotKeepError, match="is not there yet"):
        installation.keeper(authority=authority).look()
    root = Authority.read(found_authority("root", NOW, DAY * 90))
    leaf = root.issue("spiffe://x/y", (), NOW, DAY)
    for pair, told in ((leaf, "no certificate of an authority"), (Pair(root.pem, leaf.key), "not")):
        given = client.V1Secret(
            metadata=client.V1ObjectMeta(name="given"),
            string_data={"tls.crt": pair.certificate.decode(), "tls.key": pair.key.decode()},
        )
        installation.core.create_namespaced_secret(installation.namespace, given)
        with pytest.raises(CannotKeepError, match=told):
            installation.keeper(authority=authority).look()
        installation.core.delete_namespaced_secret("given", installation.namespace)


@pytest.mark.usefixtures("may_ask")
def test_an_agent_gets_the_certificate_of_its_node_from_a_keeper_that_runs(
    installation: Installation, node: str, tmp_path: Path
) -> None:
    wanted = tmp_path / "wanted.yaml"
    wanted.write_text(yaml.safe_dump(installation.wanted().model_dump(mode="json")))
    kubeconfig = str(installation.api_server.kubeconfig)
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "operators.certificates", "keep"),
            *("--kubeconfig", kubeconfig, "--wanted", str(wanted)),
            *("--namespace", installation.namespace),
        ],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    ) as keeper:
        try:
            with installation.pod_client(node) as api:
                clock = Clock()
                clock.now = datetime.datetime.now(datetime.UTC)
                fetcher = Fetcher(api, tmp_path, installation.signer, IDENTITY + node, clock)
                assert fetcher.due()
                fetcher.fetch(60)
                first = (tmp_path / "tls.crt").read_bytes()
                assert not fetcher.due()
                clock.now += 61 * DAY
                assert fetcher.due()
                fetcher.fetch(60)
        finally:
            keeper.terminate()
        # It watches for requests, which it would do for a minute; as pid 1 it would be killed then.
        assert keeper.wait(20) == 0
    second = (tmp_path / "tls.crt").read_bytes()
    assert second != first
    key = (tmp_path / "tls.key").read_bytes()
    assert b"PRIVATE KEY" in key
    assert len([one for one in tmp_path.iterdir() if one.name.startswith("pair-")]) == 1
    authority = Authority.read(
        Pair(installation.secret("ca")["tls.crt"], installation.secret("ca")["tls.key"])
    )
    assert authority.why_renew(second, IDENTITY + node, (), clock.now - 61 * DAY) == ""


@pytest.mark.usefixtures("may_ask")
def test_nobody_gets_the_certificate_of_another_node(
    installation: Installation, node: str, tmp_path: Path
) -> None:
    def asked(api: client.ApiClient, identity: str) -> str:
        """What the keeper answers."""
        fetcher = Fetcher(api, tmp_path, installation.signer, identity, Clock())
        with pytest.raises(DeniedError, match="nobody signed"):
            fetcher.fetch(0)
        installation.keeper().look()
        found = installation.requests.list_certificate_signing_request(
            field_selector=f"spec.signerName={installation.signer}"
        ).items
        answered: list[Any] = list(found)
        newest = max(answered, key=lambda one: int(one.metadata.resource_version))
        assert newest.status.certificate is None
        [condition] = newest.status.conditions
        assert condition.type == "Denied"
        return str(condition.message)

    with installation.pod_client(node) as api:
        assert f"wanted the identity {IDENTITY}{node}" in asked(api, IDENTITY + "another")
        assert "wanted the identity" in asked(api, "spiffe://headrace.test/admin")
    with installation.client_of_account() as api:
        assert "does not say on which node" in asked(api, IDENTITY + node)
    assert "wanted a request of" in asked(installation.api_server.client, IDENTITY + node)


def test_what_is_wanted_by_halves_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "wanted.yaml"
    with pytest.raises(WantedFileError, match="cannot be read"):
        read_wanted(file)
    file.write_text("{tokens: [{secret: x}], colour: red}")
    with pytest.raises(WantedFileError, match=r"tokens.0.key: Field required; colour: Extra"):
        read_wanted(file)
