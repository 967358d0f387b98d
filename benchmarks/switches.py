"""What changes of plan cost while the ranks stay, and while ranks come and go.

An attempt of one rank is started as an agent starts it, and asked for one plan after the other in
its control folder; a plan of more ranks has the units that it lacks started as newcomers. Each unit
has a GPU of this machine; without two of them, all are CPU processes with a tiny model, which says
nothing about GPUs. What is printed is what rank 0 tells the agent.

    python benchmarks/switches.py [--model gpt2-1.26b] [--global-batch 16] [--plans dp1 tp2 dp1]
        [--every-steps 4] [--csv FILE]

With ``--every-steps`` saves are written meanwhile. A CSV is drawn by ``benchmarks/evidence.py``.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from headrace.api.models import PRESETS
from headrace.api.plan import ExecutionPlan

ROOT = Path(__file__).resolve().parent.parent
PLANS = [
    *("dp1", "dp2-z2", "dp1", "tp2", "dp1", "dp2-z2", "tp2", "dp2-z2", "pp2.1f1b-ga4", "tp2"),
    *("pp2.1f1b-ga4", "dp2-z2", "tp2", "dp2-z2", "dp1", "dp2-z2", "dp1"),
]
STEPS = 8
"""Steps under each plan."""
_PATIENCE_SECONDS = 300.0
_MOVES = ("build", "parameters", "equip", "moments")
_AROUND = ("prepare", "settle", "leave", "join")
_NO_SAVES = 10**6


class Attempt:
    """Units of one attempt, and who plays the agent."""

    def __init__(self, given: argparse.Namespace, folder: Path, *, on_gpu: bool) -> None:
        self._manifest = manifest(given, on_gpu, folder / "store")
        self._folder = folder
        self._on_gpu = on_gpu
        self.units: list[subprocess.Popen[bytes]] = []
        self._ranks = 0

    def start(self, plan: str) -> None:
        """Start all units that a plan lacks."""
        ranks = ExecutionPlan.parse(plan).ranks
        for rank in range(self._ranks, ranks):
            unit = len(self.units)
            launch = {
                "uid": "switches",
                "attempt": 1,
                "unit": unit,
                "units_total": ranks,
                "manifest": self._manifest,
                "plan": plan,
                "first_rank": rank,
                "ranks_total": ranks,
                "accelerator_type": "gpu" if self._on_gpu else "cpu",
                "rendezvous": self.lines("rendezvous")[0] if unit else "",
                "bind_address": "127.0.0.1",
                "joins": self._ranks > 0,
            }
            control = self._folder / f"unit-{unit}"
            control.mkdir()
            (control / "launch.json").write_text(json.dumps(launch))
            seen = str(rank) if self._on_gpu else ""
            told = {"HEADRACE_CONTROL_DIR": str(control), "CUDA_VISIBLE_DEVICES": seen}
            with (control / "output.log").open("w") as output:
                self.units.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "headrace.workloads.launch"],
                        cwd=ROOT,
                        env={**os.environ, "OMP_NUM_THREADS": "1", **told},
                        stdout=output,
                        stderr=subprocess.STDOUT,
                    )
                )
            if unit == 0:
                self.wait(lambda: bool(self.lines("rendezvous")))
        self._ranks = ranks

    def _answers(self) -> list[dict[str, Any]]:
        """What became of plans that were asked for."""
        told = map(json.loads, self.lines("changes.jsonl"))
        return [line for line in told if "to" in line]

    def change(self, plan: str, changes: int) -> dict[str, Any]:
        """Ask for a plan; what rank 0 tells of it."""
        self.start(plan)
        draft = self._folder / "unit-0" / ".plan"
        draft.write_text(plan)
        draft.replace(draft.with_name("plan"))
        self.wait(lambda: len(self._answers()) > changes)
        told = self._answers()[-1]
        if "refused" in told:
            raise SystemExit(f"{plan} was refused: {told['refused']}")
        return told

    def trained(self, after: int) -> float:
        """Median seconds of a step, once there are some after the given one and the first two."""
        self.wait(lambda: self._last_step() >= after + STEPS)
        steps = [json.loads(line) for line in self.lines("progress.jsonl")]
        settled = [float(step["step_seconds"]) for step in steps if step["step"] > after + 2]
        return statistics.median(settled)

    def end(self) -> None:
        """Nothing of it is wanted any more."""
        for unit in self.units:
            unit.kill()
            unit.wait()

    def _last_step(self) -> int:
        lines = self.lines("progress.jsonl")
        return int(json.loads(lines[-1])["step"]) if lines else 0

    def lines(self, name: str) -> list[str]:
        """Of a file of rank 0's."""
        file = self._folder / "unit-0" / name
        return file.read_text().splitlines() if file.exists() else []

    def wait(
        self, holds: Callable[[], bool], *, patience_seconds: float = _PATIENCE_SECONDS
    ) -> None:
        """Until it holds."""
        began = time.monotonic()
        while not holds():
            is_late = time.monotonic() - began > patience_seconds
            if is_late or self.units[0].poll() is not None:
                logs = sorted(self._folder.glob("unit-*/output.log"))
                told = "\n".join(log.read_text()[-3000:] for log in logs)
                raise SystemExit(f"rank 0 ended, or took too long\n{told}")
            time.sleep(0.01)


def manifest(given: argparse.Namespace, on_gpu: bool, store: Path) -> dict[str, Any]:
    """The job: without end."""
    shape = PRESETS[given.model]
    return {
        "apiVersion": "headrace.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "switches"},
        "spec": {
            "accelerators": {"minimum": 1, "maximum": 2},
            "model": {
                "name": shape.family.value,
                "preset": given.model.removeprefix(f"{shape.family}-"),
            },
            "data": {"source": "random", "sequenceLength": shape.sequence_length},
            "training": {
                "globalBatchSize": given.global_batch,
                "steps": 10**6,
                "precision": "bf16" if on_gpu else "fp32",
                "learningRate": 1e-4,
                "seed": 0,
            },
            "checkpoint": {"store": str(store), "everySteps": given.every_steps, "keep": 1},
        },
    }


def row(told: dict[str, Any], later: float) -> str:
    """A line of the table."""
    seconds = told["seconds"]
    around = [f"{seconds.get(name, 0.0):.2f}" for name in _AROUND]
    moves = " / ".join(f"{seconds[name]:.2f}" for name in _MOVES)
    changed = sum(seconds.get(name, 0.0) for name in (*_AROUND[1:], *_MOVES))
    return (
        f"| {told['from']} | {told['to']} | {changed:.2f} | {' / '.join(around)} | {moves} "
        f"| {seconds['first_step']:.2f}, {later:.2f} | {seconds['stood_still']:.2f} |"
    )


def cells(told: dict[str, Any], later: float, given: argparse.Namespace) -> dict[str, Any]:
    """The same for a CSV."""
    seconds = told["seconds"]
    return {
        "model": given.model,
        "global_batch": given.global_batch,
        "from": told["from"],
        "to": told["to"],
        "saving": "yes" if given.every_steps != _NO_SAVES else "no",
        **{name: round(seconds.get(name, 0.0), 3) for name in (*_AROUND, *_MOVES)},
        "first_step": round(seconds["first_step"], 3),
        "later_steps": round(later, 3),
        "stood_still": round(seconds["stood_still"], 3),
        "device": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu",
        "torch": torch.__version__,
    }


def append(file: Path, line: dict[str, Any]) -> None:
    """Add a line to a CSV, which is made if it is not there."""
    begins = not file.exists()
    with file.open("a", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, list(line), lineterminator="\n")
        if begins:
            writer.writeheader()
        writer.writerow(line)


def main() -> None:
    on_gpu = torch.cuda.device_count() > 1
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--model", choices=PRESETS, default="gpt2-1.26b" if on_gpu else "gpt2-tiny")
    parser.add_argument("--global-batch", type=int, default=16)
    parser.add_argument("--plans", nargs="+", default=PLANS)
    parser.add_argument("--every-steps", type=int, default=_NO_SAVES, help="steps between saves")
    parser.add_argument("--csv", type=Path, help="file that the rows are added to")
    given = parser.parse_args()
    print(f"{given.model}, batch {given.global_batch}, {'GPU' if on_gpu else 'CPU'}; seconds\n")
    print(
        "| from | to | change | prepare (meanwhile) / settle / leave / join "
        "| build / weights / equip / moments | first, later steps | stood still |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        attempt = Attempt(given, Path(folder), on_gpu=on_gpu)
        try:
            attempt.start(given.plans[0])
            attempt.trained(0)
            for number, plan in enumerate(given.plans[1:]):
                told = attempt.change(plan, number)
                later = attempt.trained(told["step"])
                print(row(told, later), flush=True)
                if given.csv is not None:
                    append(given.csv, cells(told, later, given))
        finally:
            attempt.end()


if __name__ == "__main__":
    main()
