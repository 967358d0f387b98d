"""Units in a pod of their job's own: a PID and a mount namespace that only the agent sees into."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.beneath import Beneath
from agent.control_folder import ControlFolder
from agent.desired import Assignment, UnitKey, WantedLaunch, WantedUnit
from agent.job_pods import JobPods
from agent.journal import Journal
from agent.launching import LaunchSettings
from agent.outbox import Outbox
from agent.output_log import last_lines
from agent.units import Units, UnitSettings
from controlplane.domain.ids import AcceleratorId
from controlplane.domain.node import Accelerator
from controlplane.domain.reason import ReasonCode
from controlplane.domain.record import Intent, Outcome
from headrace.api.processes import pid_namespace
from headrace.api.variables import JOB_POD_ADDRESS_VARIABLE, JOB_POD_VARIABLE
from tests.agent.ray.cluster import gone

UID = f"job-{os.getpid()}"
"""Pods are looked for among all processes of the machine, so each process of tests has its own."""
KEY = UnitKey(UID, 1, 0)
TINY = Path(__file__).parents[1] / "ray"
NAMESPACES = ["unshare", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]
INIT = (
    "mount -t tmpfs tmpfs /run && mkdir -p /run/headrace/secrets/login && "
    'echo swordfish > /run/headrace/secrets/login/word && exec "$0" -m agent.pod_init'
)
PATIENCE_SECONDS = 60
NOTHING = (None, None, "")


def _namespaces_can_be_made() -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = [*NAMESPACES, "mount", "-t", "tmpfs", "tmpfs", "/run"]
    return subprocess.run(tried, capture_output=True, check=False).returncode == 0


pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(
        not _namespaces_can_be_made(), reason="this user cannot make PID and mount namespaces here"
    ),
]


class NoRay:
    """Nobody asks it anything."""

    async def wait_joined(self, seconds: float) -> bool:
        raise AssertionError("a unit in a pod needs no Ray")

    async def start_unit(self, name: str, spec: dict[str, Any]) -> str:
        raise AssertionError("a unit in a pod needs no Ray")

    async def kill(self, name: str) -> None:
        raise AssertionError("a unit in a pod has no actor")

    async def head_answers(self) -> bool:
        raise AssertionError("a unit in a pod needs no Ray")

    def rejoin(self) -> None:
        raise AssertionError("a unit in a pod needs no Ray")


@dataclass
class World:
    """One node: what the agent keeps, and pods that a test starts."""

    root: Path
    patience_seconds: float = 600.0
    outbox: Outbox = field(default_factory=Outbox)
    journals: list[Journal] = field(default_factory=list)
    pods: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def pod(self, uid: str = UID, attempt: int = 1) -> subprocess.Popen[bytes]:
        made = subprocess.Popen(
            [*NAMESPACES, "sh", "-c", INIT, sys.executable],
            env={
                **os.environ,
                "PYTHONPATH": f"{TINY}{os.pathsep}{TINY.parents[2]}",
                JOB_POD_VARIABLE: f"{uid}/{attempt}",
                JOB_POD_ADDRESS_VARIABLE: "127.0.0.23",
            },
        )
        self.pods.append(made)
        return made

    def units(self) -> Units:
        settings = UnitSettings(
            "n",
            self.root,
            LaunchSettings(module="tiny_child"),
            end_grace_seconds=0.2,
            supervisor_grace_seconds=0.2,
            pod_patience_seconds=self.patience_seconds,
        )
        self.journals.append(Journal(self.root / "journal.jsonl"))
        slot = Accelerator(AcceleratorId("a"), "cpu")
        made = Units(settings, {"a": slot}, self.journals[-1], self.outbox, NoRay(), lambda: None)
        made.adopt()
        return made

    @property
    def copy(self) -> ControlFolder:
        return ControlFolder(self.root / "units", KEY)

    def end(self) -> tuple[Outcome, ReasonCode | None, str] | None:
        for told, end in self.outbox.batch().exits:
            if told == KEY:
                why = end.reason
                return end.outcome, why.code if why else None, why.message if why else ""
        return None

    def rank(self) -> psutil.Process | None:
        rank = self.copy.observe().rank
        return psutil.Process(rank.pid) if rank is not None else None

    def trains(self) -> bool:
        return bool(self.outbox.batch().progress)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    for pod in made.pods:
        pod.kill()
        pod.wait()
    for journal in made.journals:
        journal.close()


def wanted(*wishes: str, intent: Intent = Intent.RUN, plan: str = "dp1", **spec: Any) -> Assignment:
    told = {"command": {"program": list(wishes)}, **spec}
    launch = WantedLaunch(
        uid=UID,
        attempt=1,
        intent=intent,
        units=(WantedUnit(0, ("a",)),),
        manifest_json=json.dumps({"spec": told}),
        plan=plan,
        own_pod=True,
    )
    return Assignment(1, 1, (launch,))


async def ticking(units: Units, what: str, look: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not look():
            units.tick()
            await asyncio.sleep(0.02)
    assert look(), what


def played(story: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await story()

    asyncio.run(whole())


def test_a_unit_waits_for_its_pod_and_runs_in_it_to_its_end(world: World) -> None:
    async def story() -> None:
        units = world.units()
        secret = {"secretKeyRef": {"name": "login", "key": "word"}}
        units.obey(
            wanted(
                "show-environment",
                training={"steps": 20},
                env=[{"name": "WORD", "valueFrom": secret}],
            )
        )
        assert not units.running(), "nothing is begun before there is a pod"
        pod = world.pod()
        await ticking(units, "it ends", world.end)
        await units.close(end_units=False)
        assert world.end() == (Outcome.SUCCEEDED, None, "")
        assert b"leaving as Succeeded at step 20" in (world.copy.path / "output.log").read_bytes()
        assert pod.poll() is None

    played(story)
    assert len((world.copy.path / "progress.jsonl").read_text().splitlines()) == 20
    assert "127.0.0.23:" in world.copy.rendezvous()


def test_the_rank_sees_its_secret_and_runs_in_the_pods_namespaces(world: World) -> None:
    async def story() -> None:
        units = world.units()
        secret = {"secretKeyRef": {"name": "login", "key": "word"}}
        units.obey(wanted("show-environment", env=[{"name": "WORD", "valueFrom": secret}]))
        world.pod()
        await ticking(units, "it trains", world.trains)
        rank = world.rank()
        assert rank is not None
        assert pid_namespace(rank.pid) != pid_namespace(os.getpid())
        environment = rank.environ()
        assert environment["WORD"] == "swordfish"
        assert environment["HEADRACE_CONTROL_DIR"] == f"/run/headrace/units/{UID}/1/0"
        assert JOB_POD_VARIABLE not in environment
        await units.close(end_units=False)

    played(story)


def test_a_secret_that_is_not_there_is_told(world: World) -> None:
    async def story() -> None:
        units = world.units()
        secret = {"secretKeyRef": {"name": "other", "key": "word"}}
        units.obey(wanted(env=[{"name": "WORD", "valueFrom": secret}]))
        world.pod()
        await ticking(units, "it ends", world.end)
        outcome, code, message = world.end() or NOTHING
        assert (outcome, code) == (Outcome.FAILED, ReasonCode.START_REFUSED)
        assert "secret other/word cannot be read" in message
        assert "has to be in the job's own namespace" in message
        await units.close(end_units=False)

    played(story)


def test_stop_and_plan_reach_the_ranks(world: World) -> None:
    async def story() -> None:
        units = world.units()
        units.obey(wanted())
        world.pod()
        await ticking(units, "it trains", world.trains)
        units.obey(wanted(plan="dp2"))
        await ticking(units, "it goes over", lambda: world.outbox.batch().plans)
        assert [line.after for line in world.outbox.batch().plans[0][1].lines] == ["dp2"]  # type: ignore[union-attr]
        units.obey(wanted(plan="dp2", intent=Intent.STOP))
        await ticking(units, "it stops", world.end)
        assert (world.end() or NOTHING)[0] is Outcome.STOPPED
        await units.close(end_units=False)

    played(story)


def test_a_pod_that_does_not_come_is_told_and_one_that_is_waited_for_can_be_taken_back(
    world: World,
) -> None:
    async def story() -> None:
        units = world.units()
        units.obey(wanted())
        units.obey(wanted(intent=Intent.STOP))
        assert (world.end() or NOTHING)[0] is Outcome.NEVER_STARTED
        await units.close(end_units=False)

    played(story)
    world.journals.pop().close()
    (world.root / "journal.jsonl").unlink()
    shutil.rmtree(world.root / "units")
    world.outbox = Outbox()
    world.patience_seconds = 0.0

    async def late() -> None:
        units = world.units()
        units.obey(wanted())
        await ticking(units, "it is given up", world.end)
        outcome, code, message = world.end() or NOTHING
        assert (outcome, code) == (Outcome.FAILED, ReasonCode.POD_NOT_STARTED)
        assert "kubectl describe pods -n default -l headrace.dev/job-uid=job" in message
        await units.close(end_units=False)

    played(late)


def test_a_pod_that_is_deleted_is_a_lost_rank_and_its_output_stays(world: World) -> None:
    async def story() -> None:
        units = world.units()
        units.obey(wanted())
        pod = world.pod()
        await ticking(units, "it trains", world.trains)
        rank = world.rank()
        pod.kill()
        await ticking(units, "it ends", world.end)
        outcome, code, message = world.end() or NOTHING
        assert (outcome, code) == (Outcome.LOST, ReasonCode.RANK_LOST)
        assert "the pod of unit 0 ended" in message
        assert "attempt 1 unit 0" in last_lines(world.copy.path)
        assert gone(rank)
        await units.close(end_units=False)

    played(story)


def test_the_next_agent_finds_the_pod_and_ends_what_runs_there(world: World) -> None:
    async def story() -> None:
        units = world.units()
        units.obey(wanted("ignore-sigterm", "grandchild"))
        pod = world.pod()
        await ticking(units, "it trains", world.trains)
        rank = world.rank()
        await units.close(end_units=False)
        world.outbox = Outbox()
        units = world.units()
        assert list(units.running()) == [KEY]
        await ticking(units, "it goes on", world.trains)
        units.obey(wanted("ignore-sigterm", "grandchild", intent=Intent.END))
        await ticking(units, "it ends", world.end)
        assert (world.end() or NOTHING)[0] is Outcome.FAILED
        assert gone(rank)
        assert pod.poll() is None
        await units.close(end_units=False)

    played(story)


def test_an_agent_that_comes_when_the_pod_has_gone_says_so(world: World) -> None:
    async def story() -> None:
        units = world.units()
        units.obey(wanted())
        pod = world.pod()
        await ticking(units, "it trains", world.trains)
        await units.close(end_units=False)
        pod.kill()
        pod.wait()
        units = world.units()
        await ticking(units, "it ends", world.end)
        assert (world.end() or NOTHING)[:2] == (Outcome.LOST, ReasonCode.RANK_LOST)
        await units.close(end_units=False)

    played(story)


def test_who_only_says_that_it_is_a_pod_is_none() -> None:
    """It has all of one but a PID namespace of its own."""
    furnish = (
        "mount -t tmpfs tmpfs /run && mkdir /run/headrace && "
        "echo '{\"protocol\": 1}' > /run/headrace/pod.json && echo ready && exec sleep 1000"
    )
    pretender = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", furnish],
        env={**os.environ, JOB_POD_VARIABLE: f"{UID}/1"},
        stdout=subprocess.PIPE,
    )
    try:
        assert pretender.stdout is not None
        assert pretender.stdout.readline() == b"ready\n"
        assert JobPods().find(UID, 1) is None
    finally:
        pretender.kill()
        pretender.communicate()


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("the agent's key")
    there = tmp_path / "there"
    there.mkdir()
    (there / "output.log").symlink_to(tmp_path / "mine")
    (there / "down").symlink_to(tmp_path)
    (there / "plan").symlink_to(tmp_path / "mine")
    os.mkfifo(there / "pipe")
    beneath = Beneath(os.open(there, os.O_RDONLY))
    try:
        assert beneath.read("output.log") is None
        assert beneath.size("output.log") is None
        assert beneath.read("pipe") is None, "and a pipe is not waited for"
        with pytest.raises(OSError, match="down"):
            beneath.folder(["down"])
        beneath.write("plan", "dp2")
    finally:
        beneath.close()
    assert (there / "plan").read_text() == "dp2"
    assert (tmp_path / "mine").read_text() == "the agent's key"
