"""Jobs with an image, a secret and a claim of their own, in pods on a real node."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kubernetes.real_node.derived_image import derive_image
from tests.kubernetes.waiting import until

pytestmark = [pytest.mark.process, pytest.mark.timeout(900)]

HERE = Path(__file__).parent
NAMESPACE = "team-own-pods"
VOLUME = "/var/lib/volumes/own-pods"
IMAGE = "localhost/team/own-pods:1"
PATIENCE_SECONDS = 400
PROGRAM = """
import os, pathlib, torch
assert os.environ["WORD"] == "swordfish"
print(pathlib.Path("/opt/team/greeting").read_text(), flush=True)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
for step in range(50):
    x = torch.randn(16, 4)
    loss = ((model(x) - x.sum(1, keepdim=True)) ** 2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
torch.save(model.state_dict(), "/data/model.pt")
"""
DATA = {
    "name": "data",
    "mountPath": "/data",
    "persistentVolumeClaim": {"claimName": "disk"},
}


class Team:
    """A namespace with what its jobs need, beside the chart on its node."""

    def __init__(self, release: Any) -> None:
        self.kubectl = release.api_server.kubectl
        self.within: list[str] = release.within

    def prepare(self, base: str) -> None:
        self.on_the_node("mkdir", "-p", VOLUME)
        self.on_the_node("chmod", "777", VOLUME)
        derive_image(self.within, base, IMAGE, {"opt/team/greeting": b"hello from our image\n"})
        self.kubectl("apply", "-f", str(HERE / "own_pods.yaml"))

    def on_the_node(self, *command: str) -> str:
        return subprocess.run(
            [*self.within, *command], check=True, text=True, stdout=subprocess.PIPE
        ).stdout

    def apply(self, name: str, **spec: Any) -> None:
        document = {
            "apiVersion": "headrace.dev/v1alpha1",
            "kind": "TrainingJob",
            "metadata": {"name": name},
            "spec": {"accelerators": {"minimum": 1}, **spec},
        }
        self.kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(document))

    def condition(self, name: str, kind: str) -> dict[str, str]:
        path = f'jsonpath={{.status.conditions[?(@.type=="{kind}")]}}'
        told = self.kubectl("get", "hrjob", name, "-n", NAMESPACE, "-o", path)
        return dict(json.loads(told)) if told else {}

    def wait_for(self, name: str, kind: str) -> None:
        def is_so() -> bool:
            return self.condition(name, kind).get("status") == "True"

        until(f"{name} is {kind}", is_so, PATIENCE_SECONDS)

    def pods(self) -> str:
        return str(self.kubectl("get", "pods", "-n", NAMESPACE, "-o", "name"))


@pytest.fixture
def team(release: Any) -> Iterator[Team]:
    made = Team(release)
    workers = ("get", "pods", "-A", "-l", "app.kubernetes.io/component=ray-worker")
    images = made.kubectl(*workers, "-o", "jsonpath={.items[*].spec.containers[0].image}")
    made.prepare(images.split()[0])
    yield made
    made.kubectl("delete", "hrjob", "--all", "-n", NAMESPACE, "--timeout=100s")
    made.kubectl("delete", "-f", str(HERE / "own_pods.yaml"), "--timeout=100s")


def test_a_program_in_its_own_image_reads_its_secret_and_writes_to_its_claim(team: Team) -> None:
    secret = {"secretKeyRef": {"name": "login", "key": "word"}}
    team.apply(
        "own",
        command={"image": IMAGE, "program": ["python3", "-c", PROGRAM]},
        env=[{"name": "WORD", "valueFrom": secret}],
        volumes=[DATA],
    )
    team.wait_for("own", "Succeeded")
    assert int(team.on_the_node("stat", "-c", "%s", f"{VOLUME}/model.pt")) > 1000
    until("its pod is gone", lambda: not team.pods(), PATIENCE_SECONDS)


def test_a_model_trains_in_a_pod_with_its_checkpoints_on_a_claim(team: Team) -> None:
    team.apply(
        "builtin",
        model={"name": "gpt2", "preset": "tiny"},
        data={"source": "python-stdlib"},
        training={"globalBatchSize": 4, "steps": 10},
        checkpoint={"store": "/data/jobs", "everySteps": 5},
        volumes=[DATA],
    )
    team.wait_for("builtin", "Succeeded")
    uid = team.kubectl("get", "hrjob", "builtin", "-n", NAMESPACE, "-o", "jsonpath={.metadata.uid}")
    assert "COMMITTED" in team.on_the_node("ls", f"{VOLUME}/jobs/{uid}/step-00000010")


def test_an_image_and_a_secret_that_are_not_there_are_told(team: Team) -> None:
    program = ["python3", "-c", "pass"]
    team.apply("no-image", command={"image": "localhost/team/absent:1", "program": program})
    until(
        "the kubelet's words are told",
        lambda: "absent:1" in team.condition("no-image", "PodsReady").get("message", ""),
        PATIENCE_SECONDS,
    )
    secret = {"secretKeyRef": {"name": "login", "key": "nothing"}}
    team.apply(
        "no-secret",
        command={"program": program},
        env=[{"name": "WORD", "valueFrom": secret}],
        retries={"max": 0},
    )
    team.wait_for("no-secret", "Failed")
    assert "secret login/nothing cannot be read" in team.condition("no-secret", "Failed")["message"]
