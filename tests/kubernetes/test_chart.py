"""Rules that whatever the chart renders must keep, for every way to install it."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from controlplane.edges.telemetry import Telemetry
from deploy.helm.generate_readme import documented, leaves, readme
from tests.architecture.source_tree import ROOT
from tests.kubernetes import chart
from tests.kubernetes.chart import CHART, WAYS, containers, named, of_kind, render, values_of
from tests.kubernetes.fixtures import expect_programs

pytestmark = pytest.mark.process

WORKS_ON_NODES = {"agent", "ray-worker"}
KIND = "CustomResourceDefinition"
SECRET = "--set=controlPlane.database.existingSecret=db"


@pytest.fixture(autouse=True, scope="module")
def helm_is_here() -> None:
    expect_programs(("helm",))


@pytest.fixture(params=WAYS)
def objects(request: pytest.FixtureRequest) -> list[chart.Object]:
    return render(*values_of(request.param))


def test_it_is_the_same_each_time(objects: list[chart.Object]) -> None:
    again = values_of("default")
    chart.template.cache_clear()
    first = chart.template(*again)
    chart.template.cache_clear()
    assert chart.template(*again) == first
    names = [
        (one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in objects
    ]
    assert len(set(names)) == len(names)


def test_rights_have_no_wildcards_and_name_known_things(objects: list[chart.Object]) -> None:
    roles = of_kind(objects, "Role", "ClusterRole")
    assert roles
    for role in roles:
        for rule in role["rules"]:
            words = [word for part in rule.values() for word in part]
            assert not any("*" in word for word in words), (role["metadata"]["name"], rule)
    made = {(role["kind"], role["metadata"]["name"]) for role in roles}
    accounts = {one["metadata"]["name"] for one in of_kind(objects, "ServiceAccount")}
    for binding in of_kind(objects, "RoleBinding", "ClusterRoleBinding"):
        assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) in made
        assert {subject["name"] for subject in binding["subjects"]} <= accounts


def test_containers_may_do_little_and_say_what_they_take(objects: list[chart.Object]) -> None:
    for one in containers(objects):
        security = one.spec["securityContext"]
        assert security["readOnlyRootFilesystem"] is True, one.name
        assert security["allowPrivilegeEscalation"] is False, one.name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, one.name
        assert security["capabilities"]["drop"] == ["ALL"], one.name
        # Folders of nodes are given to their user by root, who may do that alone.
        is_folder = one.spec["name"] == "folder"
        assert security["capabilities"].get("add", []) == (["CHOWN"] if is_folder else []), one.name
        assert security["runAsNonRoot"] is not is_folder, one.name
        assert one.spec["resources"]["requests"].keys() >= {"cpu", "memory"}, one.name
        if one.name != "ray-worker/ray-worker":  # ranks take what their node has
            assert "memory" in one.spec["resources"]["limits"], one.name
        assert one.pod["spec"]["automountServiceAccountToken"] is False, one.name
        assert one.pod["spec"]["securityContext"]["runAsUser"] > 0, one.name
        mounted = {mount["name"] for mount in one.spec.get("volumeMounts", ())}
        assert mounted <= {volume["name"] for volume in one.pod["spec"]["volumes"]}, one.name


def test_only_what_works_on_nodes_shares_them(objects: list[chart.Object]) -> None:
    for pod in chart.pod_templates(objects):
        component, spec = pod["metadata"]["labels"]["app.kubernetes.io/component"], pod["spec"]
        shares = {"hostPID", "hostNetwork"} & spec.keys()
        paths = [volume for volume in spec["volumes"] if "hostPath" in volume]
        assert bool(shares or paths) is (component in WORKS_ON_NODES), component


def test_policies_choose_pods_that_there_are(objects: list[chart.Object]) -> None:
    pods = [pod["metadata"]["labels"] for pod in chart.pod_templates(objects)]
    ours = {"app.kubernetes.io/name", "app.kubernetes.io/instance"}

    def chosen(selector: dict[str, Any]) -> list[dict[str, str]]:
        return [labels for labels in pods if selector["matchLabels"].items() <= labels.items()]

    policies = of_kind(objects, "NetworkPolicy")
    for policy in policies:
        spec = policy["spec"]
        assert spec["policyTypes"] == ["Ingress", "Egress"]
        assert chosen(spec["podSelector"]), policy["metadata"]["name"]
        for flow in (*spec.get("ingress", ()), *spec.get("egress", ())):
            assert flow["ports"], policy["metadata"]["name"]
            for peer in flow.get("from", flow.get("to", ())):
                selector = peer.get("podSelector", {})
                if (
                    ours <= selector.get("matchLabels", {}).keys()
                    and "namespaceSelector" not in peer
                ):
                    known = chosen(selector) or "operator" in str(selector)
                    assert known, policy["metadata"]["name"]
    if policies:
        [denies] = [one for one in policies if not {"ingress", "egress"} & one["spec"].keys()]
        assert len(chosen(denies["spec"]["podSelector"])) == len(pods)


def test_services_budgets_and_monitors_choose_what_there_is(objects: list[chart.Object]) -> None:
    pods = [pod["metadata"]["labels"] for pod in chart.pod_templates(objects)]
    services = [one["metadata"]["labels"] for one in of_kind(objects, "Service")]
    for one in of_kind(objects, "Service"):
        assert any(one["spec"]["selector"].items() <= labels.items() for labels in pods)
    for one in of_kind(objects, "PodDisruptionBudget"):
        wanted = one["spec"]["selector"]["matchLabels"].items()
        assert any(wanted <= labels.items() for labels in pods)
    for one in of_kind(objects, "ServiceMonitor"):
        wanted = one["spec"]["selector"]["matchLabels"].items()
        assert any(wanted <= labels.items() for labels in services)


def test_budgets_come_with_replicas() -> None:
    def budgets(*flags: str) -> list[str]:
        return [one["metadata"]["name"] for one in of_kind(render(*flags), "PodDisruptionBudget")]

    assert budgets() == ["demo-headrace-operator"]
    assert budgets("--set=operator.replicas=1") == []
    both = budgets(SECRET, "--set=controlPlane.replicas=2")
    assert both == ["demo-headrace-control-plane", "demo-headrace-operator"]


def test_several_control_planes_want_a_database_and_are_found_by_name() -> None:
    said = chart.refusal("--set=controlPlane.replicas=2")
    assert "wanted 1 with SQLite" in said
    assert "controlPlane.database.existingSecret" in said
    many = render(SECRET, "--set=controlPlane.replicas=2")
    arguments = chart.container(many, "agent/agent").arguments
    assert "--control-plane=dns:///demo-headrace-control-plane-replicas.ns.svc:7460" in arguments
    assert not of_kind(many, "PersistentVolumeClaim")
    deployment = named(many, "Deployment", "demo-headrace-control-plane")
    assert deployment["spec"]["strategy"]["type"] == "RollingUpdate"
    alone = named(render(), "Deployment", "demo-headrace-control-plane")
    assert alone["spec"]["strategy"]["type"] == "Recreate"


def test_ray_workers_hold_their_nodes_gpus_and_roll_on_delete() -> None:
    sets = of_kind(render(*values_of("postgresql")), "DaemonSet")
    by_name = {one["metadata"]["name"].removeprefix("demo-headrace-"): one["spec"] for one in sets}
    assert set(by_name) == {"agent-h100", "agent-cpu", "ray-worker-h100", "ray-worker-cpu"}

    def gpus(name: str) -> list[Any]:
        main = by_name[name]["template"]["spec"]["containers"]
        return [each["resources"].get("limits", {}).get("nvidia.com/gpu", 0) for each in main]

    assert {name: gpus(name) for name in by_name} == {
        "agent-h100": [0],
        "agent-cpu": [0],
        "ray-worker-h100": [8],
        "ray-worker-cpu": [0],
    }
    for name, spec in by_name.items():
        kind = spec["updateStrategy"]["type"]
        assert kind == ("OnDelete" if name.startswith("ray-worker") else "RollingUpdate")


def test_with_a_ray_cluster_of_others_there_is_none_of_ours() -> None:
    objects = render(*values_of("kuberay"))
    made = {
        pod["metadata"]["labels"]["app.kubernetes.io/component"]
        for pod in chart.pod_templates(objects)
    }
    assert made == {"agent", "certificates", "control-plane", "operator", "test"}
    assert (
        "--ray-address=raycluster-head-svc:6379"
        in chart.container(objects, "agent/agent").arguments
    )


def test_in_namespaces_the_operator_has_roles_there_and_no_cluster_role() -> None:
    objects = render(*values_of("namespaced"))
    name = "ns:demo-headrace-operator"
    assert not [one for one in of_kind(objects, "ClusterRole") if one["metadata"]["name"] == name]
    scopes = {
        one["metadata"]["namespace"]
        for one in of_kind(objects, "Role")
        if one["metadata"]["name"] == name
    }
    assert scopes == {"team-a", "team-b"}
    arguments = chart.container(objects, "operator/operator").arguments
    assert {"--namespaces=team-a,team-b", "--cluster-objects=no", "--nodes=no"} <= set(arguments)
    with_queues = render(*values_of("namespaced"), "--set=operator.clusterObjects=yes")
    rules = named(with_queues, "ClusterRole", name)["rules"]
    assert {what for rule in rules for what in rule["resources"]} == {
        *("queues", "clusterpolicies", "queues/status", "clusterpolicies/status")
    }
    with_nodes = render(*values_of("namespaced"), "--set=operator.nodes=yes")
    (rule,) = named(with_nodes, "ClusterRole", name)["rules"]
    assert (rule["resources"], rule["verbs"]) == (["nodes"], ["get", "list", "watch"])


def test_images_are_named_by_registry_tag_or_digest() -> None:
    objects = render(*values_of("postgresql"))
    digest = f"sha256:{'0123456789abcdef' * 4}"
    image = chart.container(objects, "control-plane/control-plane").spec["image"]
    assert image == f"headrace/control-plane@{digest}"
    mirrored = render(*values_of("cert-manager"), "--set=image.tag=1.2")
    for one in containers(mirrored):
        assert one.spec["image"].startswith("registry.example.org/mirror/headrace/"), one.name
        assert one.spec["image"].endswith(":1.2"), one.name
        assert one.pod["spec"]["imagePullSecrets"] == [{"name": "pull"}]


def test_what_a_cluster_does_not_know_is_left_out_or_told() -> None:
    kinds = {one["kind"] for one in render(apis=())}
    assert kinds.isdisjoint({"ServiceMonitor", "PrometheusRule", "Certificate", "Issuer"})
    assert {"ServiceMonitor", "PrometheusRule"} <= {one["kind"] for one in render()}
    assert "install cert-manager" in chart.refusal(*values_of("cert-manager"))


def test_another_issuer_makes_what_pods_mount() -> None:
    objects = render(*values_of("cert-manager"))
    made = {one["spec"]["secretName"] for one in of_kind(objects, "Certificate")}
    wanted = {
        volume["secret"]["secretName"]
        for pod in chart.pod_templates(objects)
        for volume in pod["spec"]["volumes"]
        if "secret" in volume
    }
    assert wanted - made == {"demo-headrace-ray-token"}, "which is no certificate"
    keeper = named(objects, "Role", "demo-headrace-certificates")["rules"]
    assert not any("update" in rule["verbs"] for rule in keeper)


@pytest.mark.parametrize("version", ["1.30.0", "1.33.4", "1.37.2", "v1.34.1-gke.100"])
def test_it_is_for_these_versions_of_kubernetes(version: str) -> None:
    assert render("--kube-version", version)


def test_an_older_kubernetes_is_refused() -> None:
    assert "1.30.0" in chart.refusal("--kube-version", "1.29.9")


def test_helm_finds_nothing_to_lint(helm: Any) -> None:
    for way in WAYS:
        if way != "cert-manager":  # lint knows no APIs but Kubernetes' own
            assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), *values_of(way))


def exported_names() -> set[str]:
    """Every name under which the control plane exports something."""
    endings = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"], "gauge": [""]}
    names = set()
    for family in Telemetry("1", lambda: 0).registry.collect():
        names |= {family.name + ending for ending in endings.get(family.type, [""])}
    return names


def test_alerts_and_dashboard_ask_for_what_is_exported() -> None:
    alerts = yaml.safe_load(chart.chart_file("files/alerts.yaml").read_text())
    dashboard = json.loads(chart.chart_file("files/dashboard.json").read_text())
    asked = [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
    asked += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(asked) > 20
    exported = exported_names()
    for expression in asked:
        names = set(re.findall(r"\bheadrace_\w+", expression))
        assert names, expression
        assert names <= exported, expression


def test_the_schema_is_closed_and_the_values_are_by_it() -> None:
    schema = json.loads(chart.chart_file("values.schema.json").read_text())
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(schema)
    values = yaml.safe_load(chart.chart_file("values.yaml").read_text())
    jsonschema.Draft202012Validator(schema).validate(values)

    def open_ones(part: Any, path: str) -> list[str]:
        if isinstance(part, list):
            return [found for one in part for found in open_ones(one, path)]
        if not isinstance(part, dict):
            return []
        found = [x for key, one in part.items() for x in open_ones(one, f"{path}/{key}")]
        # What is not ours to list says whose it is.
        is_open = part.get("type") == "object" and part.get("additionalProperties") is not False
        return [*found, path] if is_open and "$comment" not in part else found

    assert open_ones(schema, "") == []
    assert values.keys() == schema["properties"].keys() - {"global"}


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("controlPlane.replica=2", "additional properties 'replica' not allowed"),
        ("ray.worker.nodeSelector.a=b", "additional properties 'nodeSelector' not allowed"),
        ("colour=red", "additional properties 'colour' not allowed"),
        ("controlPlane.image.digest=latest", "/controlPlane/image/digest"),
        ("controlPlane.replicas=0", "/controlPlane/replicas"),
        ("nodes.stateFolder=/a/folder/that/is/too/long/for/sockets", "/nodes/stateFolder"),
        ("certificates.provider=magic", "/certificates/provider"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(flag: str, told: str) -> None:
    assert told in chart.refusal("--set", flag)


def test_every_value_is_described_and_the_readme_is_current() -> None:
    text = chart.chart_file("values.yaml").read_text()
    described = frozenset(value.path for value in documented(text))
    assert set(leaves(yaml.safe_load(text), described)) == described
    assert chart.chart_file("README.md").read_text() == readme(CHART), "make chart-docs"


def test_our_row_of_the_audit_is_what_is_counted() -> None:
    kinds = {one["kind"] for one in render()}
    text = chart.chart_file("values.yaml").read_text()
    described = [value.path for value in documented(text)]
    every = list(leaves(yaml.safe_load(text), frozenset(described)))
    hooks = [one for one in render() if "helm.sh/hook" in one["metadata"].get("annotations", {})]
    there = {
        "values.schema.json": (CHART / "values.schema.json").exists(),
        "NOTES.txt": (CHART / "templates" / "NOTES.txt").exists(),
        "CRDs": "templates" if (CHART / "templates" / "crds.yaml").exists() else "-",
        "README": "Y (generated)",  # which another test compares
        "chart unit tests": True,
        "`helm test`": any(one["kind"] == "Pod" for one in hooks),
        "PDB": "PodDisruptionBudget" in kinds,
        "ServiceMonitor": "ServiceMonitor" in kinds,
        "PrometheusRule": "PrometheusRule" in kinds,
        "NetworkPolicy": "NetworkPolicy" in kinds,
        "RO rootfs / nonroot / seccomp": "Y/Y/Y",  # of every container, as another test sees
        "documented values (`# --`)": f"{len(described)}/{len(every)}",
    }
    lines = (ROOT / "docs/kubernetes/chart-audit.md").read_text(encoding="utf-8").splitlines()
    header = next(line for line in lines if line.startswith("| chart "))
    row = next(line for line in lines if line.startswith("| **headrace** "))
    columns = [cell.strip() for cell in header.strip("|").split("|")]
    told = dict(zip(columns, (cell.strip() for cell in row.strip("|").split("|")), strict=True))
    assert told.pop("chart") == "**headrace**"
    assert told == {name: "Y" if found is True else found for name, found in there.items()}


def test_definitions_are_rendered_as_they_are_and_kept_if_wanted(tmp_path: Path) -> None:
    folder = tmp_path / "headrace"
    shutil.copytree(CHART, folder)
    kept = {"helm.sh/resource-policy": "keep"}
    planted = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "planted.headrace.test", "annotations": kept, "labels": {"a": "b"}},
        # Helm counts in floats, and a large number must not come out as 1.048576e+06.
        "spec": {"maxLength": 1048576, "maximum": 9007199254740991, "text": "{{ no template }}"},
    }
    files = folder / "files" / "crds"
    files.mkdir(exist_ok=True)
    (files / "planted.yaml").write_text(yaml.safe_dump(planted))

    def definitions(*flags: str) -> dict[str, Any]:
        text = chart.template(*flags, folder=folder)
        found = of_kind([one for one in yaml.safe_load_all(text) if one], KIND)
        return {one["metadata"]["name"]: one for one in found}

    made = definitions()
    for file in files.iterdir():
        wanted = yaml.safe_load(file.read_text())
        found = made.pop(wanted["metadata"]["name"])
        assert found["spec"] == wanted["spec"]
        assert found["metadata"]["annotations"].items() >= kept.items()
        assert found["metadata"]["labels"].items() >= wanted["metadata"]["labels"].items()
    assert made == {}
    for one in definitions("--set=crds.keep=false").values():
        assert "helm.sh/resource-policy" not in one["metadata"]["annotations"]
    assert definitions("--set=crds.install=false") == {}


def test_an_agent_goes_only_when_its_successor_is_there_and_waits() -> None:
    objects = chart.render()
    agents = [one for one in chart.of_kind(objects, "DaemonSet") if "agent" in _name(one)]
    assert agents
    for agent in agents:
        strategy = agent["spec"]["updateStrategy"]["rollingUpdate"]
        assert strategy == {"maxSurge": "10%", "maxUnavailable": 0}
        assert agent["spec"]["minReadySeconds"] > 0
    assert "--wait-for-predecessor" in chart.container(objects, "agent/agent").arguments


def _name(one: chart.Object) -> str:
    return str(one["metadata"]["name"])
