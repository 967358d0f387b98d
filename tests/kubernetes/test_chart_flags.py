"""What the chart gives its programs is what they take: flags, files and manifests."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from agent.settings import parse as agent_settings
from controlplane.config import ServeSettings, read_settings
from controlplane.edges.grpc_server.roles import Role, RoleMap
from headrace.api.manifest import TrainingJob, parse
from operators.certificates.command import parser as certificates_parser
from operators.certificates.wanted import read_wanted
from operators.config import read_settings as operator_settings
from tests.kubernetes import chart
from tests.kubernetes.chart import WAYS, named, of_kind, render, values_of
from tests.kubernetes.fixtures import expect_programs

pytestmark = pytest.mark.process

NODE = {"$(NODE_NAME)": "gpu-1", "$(HOST_IP)": "10.1.2.3", "$(POD_NAME)": "p-1"}


@pytest.fixture(autouse=True, scope="module")
def helm_is_here() -> None:
    expect_programs(("helm",))


def arguments(objects: list[chart.Object], name: str, module: str) -> list[str]:
    """Of one container, as a kubelet hands them over, without the module that is run."""
    first, *rest = chart.container(objects, name).arguments
    assert first == module
    for variable, value in NODE.items():
        rest = [word.replace(variable, value) for word in rest]
    return rest


@pytest.mark.parametrize("way", WAYS)
def test_the_control_plane_takes_its_flags_and_roles(way: str, tmp_path: Path) -> None:
    objects = render(*values_of(way))
    flags = arguments(objects, "control-plane/control-plane", "controlplane")
    settings = read_settings(flags, {"HEADRACE_DATABASE_URL": "sqlite:///x"})
    assert isinstance(settings, ServeSettings)
    assert settings.tls is not None
    assert settings.listen.endswith(":7460")
    roles = tmp_path / "roles.yaml"
    config = named(objects, "ConfigMap", "demo-headrace-control-plane-roles")
    roles.write_text(config["data"]["roles.yaml"])
    read = RoleMap.read(roles)
    agent = read.find(["spiffe://headrace.local/node/gpu-1"])
    assert agent is not None
    assert agent.speaks_for("gpu-1")
    found = {name.rpartition("/")[2]: who.role for name, who in read.callers.items()}
    operator = {"operator": Role.OPERATOR} if way != "small" else {}
    assert found == {"admin": Role.ADMIN, "test": Role.SUBMITTER, **operator}


@pytest.mark.parametrize("way", [way for way in WAYS if way != "small"])
def test_agents_take_their_flags(way: str, tmp_path: Path) -> None:
    objects = render(*values_of(way))
    for name in ("ca.crt", "tls.crt", "tls.key"):
        (tmp_path / name).write_text("")
    flags = [
        f"{flag.partition('=')[0]}={tmp_path / flag.rpartition('/')[2]}"
        if flag.startswith("--tls-")
        else flag
        for flag in arguments(objects, "agent/agent", "agent")
    ]
    settings = agent_settings(flags, {})
    assert settings.description.name == "gpu-1"
    assert settings.description.address == "10.1.2.3"
    assert settings.ray.auth_mode == "token"
    assert settings.tls is not None
    assert str(settings.units.root) == "/var/lib/headrace/agent/gpu-1"


@pytest.mark.parametrize("way", WAYS)
def test_who_keeps_certificates_takes_flags_and_file(way: str, tmp_path: Path) -> None:
    objects = render(*values_of(way))
    flags = arguments(objects, "certificates/certificates", "operators.certificates")
    assert certificates_parser().parse_args(flags).namespace == "ns"
    file = tmp_path / "wanted.yaml"
    file.write_text(
        named(objects, "ConfigMap", "demo-headrace-certificates")["data"]["wanted.yaml"]
    )
    wanted = read_wanted(file)
    made = {each.secret for each in wanted.certificates} | {each.secret for each in wanted.tokens}
    assert wanted.authority is not None
    assert (wanted.nodes is None) is (way == "small")
    mounted = {
        volume["secret"]["secretName"]
        for pod in chart.pod_templates(objects)
        for volume in pod["spec"]["volumes"]
        if "secret" in volume
    }
    given = {"hub.token", "ray-token"}
    by_others = (
        {name for name in mounted if name.endswith("-tls")} if way == "cert-manager" else set()
    )
    assert mounted - given - by_others <= made | {wanted.authority.secret}


def test_the_sidecar_asks_for_what_the_keeper_signs_and_roles_know(tmp_path: Path) -> None:
    objects = render()
    flags = arguments(objects, "agent/certificate", "operators.certificates")
    asked = certificates_parser().parse_args(flags)
    file = tmp_path / "wanted.yaml"
    file.write_text(
        named(objects, "ConfigMap", "demo-headrace-certificates")["data"]["wanted.yaml"]
    )
    nodes = read_wanted(file).nodes
    assert nodes is not None
    assert (asked.signer, asked.identity) == (nodes.signer, f"{nodes.identity}gpu-1")
    assert nodes.account == "system:serviceaccount:ns:demo-headrace-agent"


def test_ray_takes_its_flags() -> None:
    # In a process of its own: other tests put something else in the place of Ray.
    script = (
        "from ray.scripts.scripts import start; "
        "print(*(name for parameter in start.params for name in parameter.opts))"
    )
    known = set(subprocess.check_output([sys.executable, "-c", script], text=True).split())
    objects = render()
    for name in ("ray-head/ray-head", "ray-worker/ray-worker"):
        word, *flags = arguments(objects, name, "ray.scripts.scripts")
        assert word == "start"
        assert {flag.partition("=")[0] for flag in flags} <= known, name


def test_the_test_job_is_valid() -> None:
    job = yaml.safe_load(chart.chart_file("files/test-job.yaml").read_text())
    assert isinstance(parse(job), TrainingJob)


@pytest.mark.parametrize("way", [way for way in WAYS if way != "small"])
def test_the_operator_takes_its_flags(way: str, tmp_path: Path) -> None:
    objects = render(*values_of(way))
    (made,) = [
        one for one in of_kind(objects, "ConfigMap") if "job-pods.yaml" in one.get("data", {})
    ]
    file = tmp_path / "job-pods.yaml"
    file.write_text(made["data"][file.name])
    flags = [
        f"--job-pods={file}" if flag.startswith("--job-pods=") else flag
        for flag in arguments(objects, "operator/operator", "operators")
    ]
    settings = operator_settings(flags, {})
    assert settings.job_pods is not None
    assert settings.job_pods.uid == 64000
    assert "headrace/agent:" in settings.job_pods.image
    assert settings.control_plane.endswith(":7460")
    assert settings.tls is not None
    assert settings.listen == "0.0.0.0:7465"
