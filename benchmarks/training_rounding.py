"""How far rounding drives apart the losses of one job on different numbers of ranks.

Trains the same job on each number of ranks, and once with the number changed on the way, and
compares every step's loss with the run on one rank. Prints a small table in Markdown.

    python benchmarks/training_rounding.py --steps 400
    python benchmarks/training_rounding.py --accelerator nvidia --ranks 1 2 --preset small
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_MARKS = (10, 50, 100, 200, 400, 600, 1000)

Losses = dict[int, float]


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of the job."""

    name: str
    losses: Losses
    steps_per_second: float
    first_step_seconds: float


def manifest(chosen: argparse.Namespace, store: Path) -> dict[str, Any]:
    """The job; the same for every run."""
    return {
        "spec": {
            "model": {"name": "gpt2", "preset": chosen.preset},
            "data": {"source": "python-stdlib"},
            "training": {
                "globalBatchSize": chosen.batch,
                "steps": chosen.steps,
                "precision": chosen.precision,
                "learningRate": chosen.learning_rate,
                "warmupSteps": 20,
                "seed": 1,
            },
            "checkpoint": {"store": str(store), "everySteps": 10 * chosen.steps, "keep": 1},
        }
    }


def train(
    chosen: argparse.Namespace, root: Path, uid: str, attempt: int, ranks: int, stop_at: int
) -> tuple[Losses, float, float]:
    """One attempt; losses, steps a second, and seconds from the first process to the first step."""
    began = time.monotonic()
    folders = [root / uid / f"attempt-{attempt}" / f"unit-{unit}" for unit in range(ranks)]
    processes = []
    address = ""
    for unit, folder in enumerate(folders):
        folder.mkdir(parents=True)
        launch = {
            "uid": uid,
            "attempt": attempt,
            "unit": unit,
            "units_total": ranks,
            "manifest": manifest(chosen, root / "store"),
            "plan": f"dp{ranks}",
            "first_rank": unit,
            "ranks_total": ranks,
            "accelerator_type": chosen.accelerator,
            "rendezvous": address,
            "bind_address": "127.0.0.1",
        }
        (folder / "launch.json").write_text(json.dumps(launch))
        gpu = "" if chosen.accelerator == "cpu" else str(unit)
        variables = {
            "HEADRACE_CONTROL_DIR": str(folder),
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": gpu,
        }
        with (folder / "output.log").open("wb") as output:
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "headrace.workloads.launch"],
                    env={**os.environ, **variables},
                    cwd=ROOT,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            )
        while unit == 0 and not address and processes[0].poll() is None:
            published = folder / "rendezvous"
            address = published.read_text() if published.exists() else ""
            time.sleep(0.01)
    progress = folders[0] / "progress.jsonl"
    first = 0.0
    while processes[0].poll() is None:
        if progress.exists() and progress.stat().st_size:
            first = first or time.monotonic() - began
            if stop_at and progress.read_bytes().count(b"\n") >= stop_at:
                (folders[0] / "stop").touch()
        time.sleep(0.02)
    if any(process.wait() for process in processes):
        raise SystemExit("\n".join((folder / "output.log").read_text() for folder in folders))
    lines = [json.loads(line) for line in progress.read_text().splitlines()]
    times = sorted(line["step_seconds"] for line in lines)
    return {line["step"]: line["loss"] for line in lines}, 1 / times[len(times) // 2], first


def fixed(chosen: argparse.Namespace, root: Path, ranks: int) -> Measured:
    """A run that keeps its number of ranks."""
    losses, rate, first = train(chosen, root, f"fixed-{ranks}", 1, ranks, 0)
    return Measured(f"{ranks} rank{'s' if ranks > 1 else ''}", losses, rate, first)


def changing(chosen: argparse.Namespace, root: Path) -> Measured:
    """A run that is laid out anew twice: most ranks, fewer, most."""
    most = max(chosen.ranks)
    sizes = [most, max(1, most // 2), most]
    losses: Losses = {}
    rates, firsts = [], []
    for attempt, ranks in enumerate(sizes, start=1):
        stop_at = chosen.steps // 6 if attempt < len(sizes) else 0
        part, rate, first = train(chosen, root, "changing", attempt, ranks, stop_at)
        losses |= part
        rates.append(rate)
        firsts.append(first)
    return Measured(" -> ".join(map(str, sizes)), losses, min(rates), max(firsts))


def table(runs: Sequence[Measured], steps: int) -> str:
    """Largest difference to the first run up to each mark, a row a run."""
    marks = [mark for mark in _MARKS if mark <= steps]
    head = ["run", *(f"first {mark} steps" for mark in marks), "last loss", "steps/s", "first step"]
    rows = [head, ["---"] * len(head)]
    base = runs[0].losses
    for run in runs:
        if sorted(run.losses) != list(range(1, steps + 1)):
            raise SystemExit(f"{run.name}: a step is missing")
        drifts = [max(abs(run.losses[n] - base[n]) for n in range(1, mark + 1)) for mark in marks]
        rows.append(
            [
                run.name,
                *("-" if run is runs[0] else f"{drift:.1e}" for drift in drifts),
                f"{run.losses[steps]:.4f}",
                f"{run.steps_per_second:.1f}",
                f"{run.first_step_seconds:.1f} s",
            ]
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--learning-rate", type=float, default=0.002)
    parser.add_argument("--accelerator", default="cpu", help="cpu, or a GPU model")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = [fixed(chosen, Path(folder), ranks) for ranks in chosen.ranks]
        runs.append(changing(chosen, Path(folder)))
    sys.stdout.write(table(runs, chosen.steps) + "\n")


if __name__ == "__main__":
    main()
