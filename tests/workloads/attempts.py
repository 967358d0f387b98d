"""Plays the agent: starts the units of an attempt, asks them to stop, reads what they say."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.api.plan import ExecutionPlan

DEADLINE_SECONDS = 100.0
_NEVER_SET = threading.Event()

Manifest = dict[str, Any]
Fork = Callable[[dict[str, str], Path], int]


def until(
    holds: Callable[[], bool], what: Callable[[], str], seconds: float = DEADLINE_SECONDS
) -> None:
    """Wait for a condition; a deadline far beyond any slow machine ends a hopeless wait."""
    waited = 0.0
    while not holds():
        if waited > seconds:
            raise AssertionError(f"waited in vain: {what()}")
        _NEVER_SET.wait(0.02)
        waited += 0.02


def alive(pid: int) -> bool:
    """Whether the process runs still."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def a_manifest(store: Path | str, model: str = "gpt2", **training: Any) -> Manifest:
    """A job small enough to train in a second."""
    checkpoint = {"store": str(store), "everySteps": 1000, "keep": 3}
    for key in ("everySteps", "keep", "startFrom", "everySeconds"):
        if key in training:
            checkpoint[key] = training.pop(key)
    config = {"numHiddenLayers": 2, "hiddenSize": 32, "numAttentionHeads": 2}
    chosen = {
        "globalBatchSize": 16,
        "steps": 12,
        "learningRate": 0.003,
        "warmupSteps": 5,
        "seed": 7,
    }
    data = {"source": "python-stdlib", "sequenceLength": 32}
    if model == "vit":
        data = {"source": "digits"}
    return {
        "apiVersion": "headrace.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "job"},
        "spec": {
            "accelerators": {"minimum": 1, "maximum": 4},
            "model": {"name": model, "preset": "tiny", "config": config},
            "data": data,
            "training": {**chosen, **training},
            "checkpoint": checkpoint,
        },
    }


@dataclass
class Unit:
    """One running unit and its control folder."""

    folder: Path
    pid: int

    @property
    def output(self) -> str:
        """What it printed."""
        return (self.folder / "output.log").read_text()

    def exit(self) -> dict[str, Any]:
        """What it said at its end, once it has ended."""
        until(lambda: not alive(self.pid), lambda: f"end of {self.folder}\n{self.output}")
        file = self.folder / "exit.json"
        assert file.exists(), self.output
        found: dict[str, Any] = json.loads(file.read_text())
        return found

    def kill(self) -> None:
        """kill -9."""
        os.kill(self.pid, signal.SIGKILL)


@dataclass
class Attempt:
    """The units of one attempt.

    Attributes:
        units: All that were ever started.
        ranks: Those that train, or shall, by rank.
    """

    units: list[Unit] = field(default_factory=list)
    ranks: list[Unit] = field(default_factory=list)

    def progress(self) -> list[dict[str, Any]]:
        """Every whole line that rank 0 wrote."""
        file = self.units[0].folder / "progress.jsonl"
        text = file.read_text() if file.exists() else ""
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def losses(self) -> dict[int, float]:
        """Loss of each step."""
        return {line["step"]: line["loss"] for line in self.progress()}

    def reaches(self, step: int) -> "Attempt":
        """Wait until a step is done."""
        until(
            lambda: max(self.losses(), default=0) >= step or not alive(self.units[0].pid),
            lambda: f"step {step}\n{self.units[0].output}",
        )
        assert max(self.losses(), default=0) >= step, self.units[0].output
        return self

    def changes(self) -> list[dict[str, Any]]:
        """Every change of plan that rank 0 told, and every checkpoint that could not be made."""
        return [line for line in self._told() if "observed" not in line]

    def observed(self) -> list[dict[str, Any]]:
        """What rank 0 told of plans in passing."""
        return [line for line in self._told() if "observed" in line]

    def _told(self) -> list[dict[str, Any]]:
        file = self.units[0].folder / "changes.jsonl"
        text = file.read_text() if file.exists() else ""
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def ask_for(self, plan: str) -> None:
        """Ask for another plan on the same ranks."""
        draft = self.units[0].folder / ".plan"
        draft.write_text(plan)
        draft.replace(draft.with_name("plan"))

    def shrink(self, plan: str) -> list[Unit]:
        """Ask for a plan of fewer ranks; returns those that will leave."""
        ranks = ExecutionPlan.parse(plan).ranks
        leaving, self.ranks = self.ranks[ranks:], self.ranks[:ranks]
        self.ask_for(plan)
        return leaving

    def changed(self, times: int) -> list[dict[str, Any]]:
        """Wait until so many changes have been told."""
        until(
            lambda: len(self.changes()) >= times or not alive(self.units[0].pid),
            lambda: "a change of plan\n" + "\n".join(unit.output for unit in self.units),
        )
        assert len(self.changes()) == times, "\n".join(unit.output for unit in self.units)
        return self.changes()

    def stop(self) -> "Attempt":
        """Ask every unit for a planned stop."""
        for unit in self.units:
            (unit.folder / "stop").touch()
        return self

    def exits(self) -> list[dict[str, Any]]:
        """What each unit said at its end."""
        return [unit.exit() for unit in self.units]

    def outcomes(self) -> set[tuple[str, int]]:
        """Outcome and step of every unit; a set of one if they ended alike."""
        return {(found["outcome"], found["step"]) for found in self.exits()}

    def reasons(self) -> set[str]:
        """Reason codes of every unit."""
        return {found["reason"] for found in self.exits()}


class Agent:
    """Starts attempts in folders of their own."""

    def __init__(self, root: Path, fork: Fork) -> None:
        self._root = root
        self._fork = fork
        self._count = 0
        self.started: list[Unit] = []

    def start(
        self,
        manifest: Manifest,
        ranks: int = 1,
        *,
        uid: str = "job-1",
        attempt: int = 1,
        plan: str = "",
        only_unit: int | None = None,
        rendezvous: str = "",
        manifests: dict[int, Manifest] | None = None,
        environment: dict[str, str] | None = None,
        accelerators_each: int = 1,
        stop_first: bool = False,
    ) -> Attempt:
        """Start all units, or ``only_unit``; unit 0 first, the others with its address."""
        self._count += 1
        started = Attempt()
        for index in range(ranks) if only_unit is None else [only_unit]:
            launch = {
                "uid": uid,
                "attempt": attempt,
                "unit": index,
                "units_total": ranks,
                "job_name": "job",
                "namespace": "default",
                "manifest": (manifests or {}).get(index, manifest),
                "plan": plan or f"dp{ranks}",
                "first_rank": index * accelerators_each,
                "ranks_total": ranks * accelerators_each,
                "accelerators": [f"cpu-{n}" for n in range(accelerators_each)],
                "accelerator_type": "cpu",
                "cpu_cores": [0],
                "rendezvous": rendezvous,
                "bind_address": "127.0.0.1",
                "node": f"node-{index}",
            }
            unit = self._launched(launch, environment, stop_first=stop_first)
            started.units.append(unit)
            started.ranks.append(unit)
            if index == 0 and only_unit is None and ranks > 1:
                rendezvous = _published(unit)
        return started

    def add(
        self,
        run: Attempt,
        plan: str,
        *,
        manifest: Manifest | None = None,
        environment: dict[str, str] | None = None,
        only_first: bool = False,
        says_joins: bool = True,
    ) -> list[Unit]:
        """Ask an attempt for a plan of more ranks, and start the units that it lacks.

        Args:
            run: The attempt.
            plan: The plan.
            manifest: What they are told to train; the same as the others if left out.
            environment: Variables for them.
            only_first: Start no more than one.
            says_joins: Whether they are told that they join others.
        """
        ranks = ExecutionPlan.parse(plan).ranks
        added = []
        for rank in range(len(run.ranks), ranks):
            launch = json.loads((run.units[0].folder / "launch.json").read_text())
            launch |= {"unit": len(run.units), "first_rank": rank, "joins": True, "plan": plan}
            launch |= {"units_total": ranks, "ranks_total": ranks, "node": f"node-{rank}"}
            launch |= {"rendezvous": _published(run.units[0])}
            launch["manifest"] = manifest or launch["manifest"]
            if not says_joins:
                del launch["joins"]
            unit = self._launched(launch, environment)
            run.units.append(unit)
            run.ranks.append(unit)
            added.append(unit)
            if only_first:
                break
        run.ask_for(plan)
        return added

    def _launched(
        self,
        launch: dict[str, Any],
        environment: dict[str, str] | None,
        *,
        stop_first: bool = False,
    ) -> Unit:
        folder = self._root / f"start-{self._count}" / f"unit-{launch['unit']}"
        folder.mkdir(parents=True)
        (folder / "launch.json").write_text(json.dumps(launch))
        if stop_first:
            (folder / "stop").touch()
        variables = {
            "HEADRACE_CONTROL_DIR": str(folder),
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            **(environment or {}),
        }
        unit = Unit(folder, self._fork(variables, folder / "output.log"))
        self.started.append(unit)
        return unit

    def end_all(self) -> None:
        """Leave no process behind."""
        for unit in self.started:
            if alive(unit.pid):
                unit.kill()
        for unit in self.started:
            until(lambda unit=unit: not alive(unit.pid), lambda: "end of a killed unit")  # type: ignore[misc]


def _published(unit: Unit) -> str:
    file = unit.folder / "rendezvous"
    until(lambda: file.exists() or not alive(unit.pid), lambda: "rendezvous of unit 0")
    assert file.exists(), unit.output
    return file.read_text()


@contextmanager
def a_zygote() -> Iterator[Fork]:
    """A process that forks units; see ``zygote``."""
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.workloads.zygote"],
        cwd=root,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(root)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    lines, answers = process.stdin, process.stdout

    def fork(environment: dict[str, str], output: Path) -> int:
        output.touch()
        lines.write(json.dumps({"environment": environment, "output": str(output)}) + "\n")
        lines.flush()
        return int(answers.readline())

    try:
        yield fork
    finally:
        lines.close()
        answers.close()
        process.wait(timeout=DEADLINE_SECONDS)
