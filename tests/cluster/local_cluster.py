"""A whole local cluster under test: every part a real process, started by ``headrace up``."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

from headrace.api.generated import jobs_pb2
from headrace.cli.local_cluster import read_record
from headrace.cli.processes import marked
from headrace.client.client import Client
from headrace.client.context import load

T = TypeVar("T")

PATIENCE_SECONDS = 300.0
"""How long anything may take on a loaded machine before it counts as never."""

STEPS = 100

LIGHT_STEPS = Path(__file__).with_name("light_steps.py")

ALONE = {"minimum": 1, "maximum": 1}
"""For jobs whose number of ranks is not what is tried: a rank takes seconds to start."""


def manifest(name: str, store: Path, **spec: Any) -> dict[str, Any]:
    """A byte-level GPT on real text that does some twenty steps a second."""
    return {
        "apiVersion": "headrace.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name},
        "spec": {
            "accelerators": {"minimum": 1, "maximum": 2},
            "model": {"name": "gpt2", "preset": "small"},
            "data": {"source": "python-stdlib"},
            "training": {"globalBatchSize": 4, "steps": STEPS, "learningRate": 0.002, "seed": 7},
            "checkpoint": {"store": str(store), "everySteps": 20, "keep": 2},
            "retries": {"max": 3, "backoffSeconds": 1},
            **spec,
        },
    }


def scripted(name: str, store: Path, script: Path = LIGHT_STEPS, **spec: Any) -> dict[str, Any]:
    """A job that trains by a script of the user's own, some twenty steps a second."""
    described = manifest(name, store, **spec)
    del described["spec"]["model"], described["spec"]["data"]
    described["spec"]["script"] = {"file": str(script)}
    return described


def command(name: str, store: Path, *program: str, **spec: Any) -> dict[str, Any]:
    """A rigid job that runs a program of the user's own."""
    described = manifest(name, store, **spec)
    for part in ("model", "data", "training", "checkpoint"):
        del described["spec"][part]
    described["spec"]["accelerators"] = spec.get("accelerators", ALONE)
    described["spec"]["command"] = {"program": list(program)}
    return described


def occupant(name: str, store: Path) -> dict[str, Any]:
    """A job that holds two accelerators until it is withdrawn, and trains nothing."""
    endless = "import signal; signal.pause()"
    two = {"minimum": 2, "maximum": 2}
    return command(name, store, sys.executable, "-c", endless, accelerators=two)


def until(what: str, condition: Callable[[], T], seconds: float = PATIENCE_SECONDS) -> T:
    """Waits for something to become true, and returns it."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds:g} s it is still not true that {what}")
        time.sleep(0.1)  # between two looks at another process


@dataclass
class LocalCluster:
    """One cluster of two nodes with two CPU slots each.

    Attributes:
        home: Its HEADRACE_HOME.
        client: Speaks to its control plane, patiently.
        luck: Seeded; printed by the fixture, so that a failure can be repeated.
    """

    home: Path
    client: Client
    luck: random.Random

    @classmethod
    def up(cls, home: Path, seed: int) -> "LocalCluster":
        """Starts it, or fails with what the command said."""
        run(home, "up", "--no-dashboard")
        client = Client(load(home, {}, {}), patience_seconds=PATIENCE_SECONDS)
        return cls(home, client, random.Random(seed))

    def down(self) -> None:
        """Ends it; nothing may survive."""
        self.client.close()
        run(self.home, "down")

    @property
    def store(self) -> Path:
        """Where its jobs save."""
        return self.home / "checkpoints"

    def submit(self, described: dict[str, Any]) -> str:
        """Submits a manifest; the job's uid."""
        return self.client.submit(json.dumps(described)).uid

    def job(self, uid: str) -> jobs_pb2.Job:
        """The job as the control plane sees it."""
        return self.client.get_job_by_uid(uid)

    def step(self, uid: str) -> int:
        """Steps done so far."""
        return self.job(uid).status.progress.step

    def trains(self, uid: str, step: int = 1) -> None:
        """Waits until the job has done ``step`` steps."""
        until(f"{uid} reaches step {step}", lambda: self.ended(uid) or self.step(uid) >= step)

    def ended(self, uid: str) -> bool:
        """Whether it succeeded or failed."""
        return self.job(uid).status.stage in ("Succeeded", "Failed")

    def finishes(self, uid: str) -> jobs_pb2.Job:
        """Waits for the end of the job."""
        until(f"{uid} ends", lambda: self.ended(uid))
        return self.job(uid)

    def somewhere(self, uid: str) -> int:
        """Waits for a random step in the middle of the job."""
        step = self.luck.randint(5, int(STEPS * 0.4))
        self.trains(uid, step)
        return step

    def losses(self, uid: str) -> dict[int, float]:
        """Loss by step."""
        return {point.step: point.loss for point in self.client.losses(uid)}

    def part(self, name: str) -> psutil.Process:
        """A part's process, as the supervisor started it last."""
        record = read_record(self.home)
        assert record is not None
        return psutil.Process(next(p.process.pid for p in record.parts if p.name == name))

    def kill(self, name: str) -> None:
        """``kill -9`` for a part."""
        self.part(name).send_signal(signal.SIGKILL)

    def ranks(self, uid: str, node: str = "") -> list[psutil.Process]:
        """The processes that train, by the folder that each was given."""
        folder = f"{self.home / 'nodes' / node}/"
        found: dict[int, psutil.Process] = {}
        parents: dict[int, int] = {}
        for one in marked({"HEADRACE_CONTROL_DIR": folder}):
            try:
                process = psutil.Process(one.pid)
                line, parents[one.pid] = process.cmdline(), process.ppid()
                if "headrace.workloads.launch" in line and uid in process.environ().get(
                    "HEADRACE_CONTROL_DIR", ""
                ):
                    found[one.pid] = process
            except psutil.Error:
                continue
        # A child that a rank has just forked looks like it until it is a program of its own.
        return [process for pid, process in found.items() if parents[pid] not in found]

    def who_trains_on(self, uid: str) -> set[psutil.Process]:
        """Waits for the end of the job; every process that trained meanwhile."""
        seen: set[psutil.Process] = set()

        def over() -> bool:
            seen.update(self.ranks(uid))
            return self.ended(uid)

        until(f"{uid} ends", over)
        return seen

    def nodes_online(self) -> int:
        """Nodes whose agents speak."""
        return sum(node.contact == "Online" for node in self.client.nodes())

    def starts(self, uid: str) -> list[int]:
        """Starts that were decided for the job, as numbers in the log."""
        return [
            event.sequence
            for event in self.client.list_events()
            if event.kind == "CycleDecided"
            for action in json.loads(event.body_json)["actions"]
            if action["kind"] == "StartAttempt" and action["uid"] == uid
        ]

    def when_lost(self, node: str, after: int) -> list[int]:
        """When the node counted as lost, as numbers in the log."""
        return [
            event.sequence
            for event in self.client.list_events(after_sequence=after)
            if event.kind == "NodeLost" and event.node == node
        ]

    def exits(self, uid: str) -> list[dict[str, Any]]:
        """How the job's units ended, in the order of the log."""
        told = (json.loads(event.body_json) for event in self.client.list_events(uid))
        return [body["exit"] for body in told if body.get("kind") == "UnitExited"]


def run(home: Path, *arguments: str) -> str:
    """The command line in a process of its own; its output."""
    done = subprocess.run(
        [sys.executable, "-m", "headrace.cli.main", *arguments],
        env={**os.environ, "HEADRACE_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"headrace {' '.join(arguments)}: {done.stdout}\n{done.stderr}"
    return done.stdout


def same(losses: dict[int, float], undisturbed: dict[int, float]) -> None:
    """Every step has one loss that counts, and it is the undisturbed one."""
    assert sorted(losses) == list(range(1, STEPS + 1))
    worst = max(abs(losses[step] - undisturbed[step]) for step in losses)
    assert worst < 1e-3, f"losses differ by up to {worst}"
    early = max(abs(losses[step] - undisturbed[step]) for step in range(1, 51))
    assert early < 1e-4, f"losses of the first 50 steps differ by up to {early}"
