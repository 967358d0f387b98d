"""The trainer beside a plain script of the same plan, on the same two GPUs, in one run.

For each plan the two take turns, and who begins alternates from round to round. A ratio is the
trainer's tokens per second over the plain script's of the same round; at least 0.95 is wanted.
The plain scripts are in ``benchmarks/plain``. Temporary files hold the trainer's last checkpoint
(16 bytes a parameter), so a RAM disk as ``TMPDIR`` saves time.

    python benchmarks/trainer_against_plain.py [--model gpt2-1.26b] [--global-batch 16]
        [--plans dp2 tp2] [--rounds 2] [--steps 30] [--warmup 10] [--csv FILE]
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from headrace.api.models import PRESETS, Family, ModelShape

ROOT = Path(__file__).resolve().parent.parent
PLAIN = {"dp2": "dp2.py", "dp2-z3": "dp2_z3.py", "tp2": "tp2.py", "pp2.1f1b-ga4": "pp2.py"}
RANKS = 2
TARGET = 0.95
_PATIENCE_SECONDS = 300.0


class FailedError(Exception):
    """A run came to no measurement."""


@dataclass(frozen=True, slots=True)
class Row:
    """One run, as it is stored.

    Attributes:
        script: ``trainer`` or ``plain``.
        lower: First quartile of an iteration's seconds.
        median: Their median.
        upper: Third quartile.
        peak_allocated_bytes: Peak of torch's allocator, on the rank where it is highest; None where
            the run does not tell.
    """

    model: str
    global_batch: int
    plan: str
    round: int
    script: str
    steps: int
    lower: float
    median: float
    upper: float
    tokens_per_second: float
    peak_allocated_bytes: int | None
    device: str
    torch: str


def torchrun(arguments: Sequence[str], folder: Path) -> str:
    """What ranks of one node print, once all have ended well.

    Raises:
        FailedError: One did not, or they took too long.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    with (folder / "errors.log").open("w+") as errors:
        process = subprocess.Popen(
            [*command, f"--nproc-per-node={RANKS}", *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            printed, _ = process.communicate(timeout=_PATIENCE_SECONDS)
            ending = f"ended with {process.returncode}"
        except subprocess.TimeoutExpired:
            process.terminate()  # torchrun passes it on to the ranks
            printed, _ = process.communicate()
            ending = f"took more than {_PATIENCE_SECONDS:.0f} s"
        if process.returncode != 0:
            errors.seek(0)
            told = (errors.read() + printed)[-20_000:]
            raise FailedError(f"{' '.join(arguments)} {ending}:\n{told}")
    return printed


def plain(given: argparse.Namespace, plan: str, folder: Path) -> dict[str, Any]:
    """One run of the plain script: what it says of itself."""
    options = ["--model", given.model, "--global-batch", str(given.global_batch)]
    lengths = ["--steps", str(given.steps), "--warmup", str(given.warmup)]
    script = str(ROOT / "benchmarks" / "plain" / PLAIN[plan])
    printed = torchrun([script, *options, *lengths], folder)
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return {**found["iteration_seconds"], "peak_allocated_bytes": found["peak_allocated_bytes"]}


def manifest(given: argparse.Namespace, shape: ModelShape, store: Path) -> dict[str, Any]:
    """The same training as a job, without checkpoints before its end."""
    steps = given.warmup + given.steps
    return {
        "apiVersion": "headrace.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "trainer-against-plain"},
        "spec": {
            "accelerators": {"minimum": RANKS, "maximum": RANKS},
            "model": {
                "name": shape.family.value,
                "preset": given.model.removeprefix(f"{shape.family}-"),
                "config": {"tieWordEmbeddings": False},  # as the plain scripts have it
            },
            "data": {"source": "python-stdlib", "sequenceLength": shape.sequence_length},
            "training": {
                "globalBatchSize": given.global_batch,
                "steps": steps,
                "precision": "bf16",
                "learningRate": 3e-4,
                "seed": 1,
            },
            "checkpoint": {"store": str(store), "everySteps": 10 * steps, "keep": 1},
        },
    }


def quartiles(progress: str, warmup: int, steps: int) -> dict[str, float]:
    """Quartiles of a step's seconds from the trainer's ``progress.jsonl``.

    Raises:
        FailedError: Steps are missing.
    """
    lines = [json.loads(line) for line in progress.splitlines()]
    seconds = {line["step"]: line["step_seconds"] for line in lines}
    wanted = range(warmup + 1, warmup + steps + 1)
    if missing := [step for step in wanted if step not in seconds]:
        raise FailedError(f"the trainer told nothing of steps {missing}")
    measured = [seconds[step] for step in wanted]
    lower, median, upper = statistics.quantiles(measured, n=4, method="inclusive")
    return {"lower": lower, "median": median, "upper": upper}


def trainer(given: argparse.Namespace, plan: str, folder: Path) -> dict[str, Any]:
    """One run of our trainer: what its progress says."""
    job, control = folder / "job.yaml", folder / "control"
    document = manifest(given, PRESETS[given.model], folder / "store")
    job.write_text(json.dumps(document), encoding="utf-8")  # JSON is YAML
    module = ["-m", "headrace.workloads.training", "--manifest", str(job)]
    torchrun([*module, "--control-dir", str(control), "--plan", plan], folder)
    progress = (control / "progress.jsonl").read_text(encoding="utf-8")
    return {**quartiles(progress, given.warmup, given.steps), "peak_allocated_bytes": None}


SCRIPTS: dict[str, Callable[[argparse.Namespace, str, Path], dict[str, Any]]] = {
    "trainer": trainer,
    "plain": plain,
}


def device_name() -> str:
    """What kind the first GPU is; asked in a process of its own, so that none of it is taken."""
    asked = [sys.executable, "-c", "import torch; print(torch.cuda.get_device_name(0))"]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()


def measured(
    given: argparse.Namespace, plan: str, turn: int, script: str, device: str
) -> Row | None:
    """One run; None if it failed, and then the error output says why."""
    shape = PRESETS[given.model]
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = SCRIPTS[script](given, plan, Path(folder))
        except FailedError as error:
            sys.stderr.write(f"{plan}, round {turn}, {script}: not measured: {error}\n")
            return None
    return Row(
        model=given.model,
        global_batch=given.global_batch,
        plan=plan,
        round=turn,
        script=script,
        steps=given.steps,
        tokens_per_second=given.global_batch * shape.sequence_length / found["median"],
        device=device,
        torch=torch.__version__,
        **found,
    )


def ratios(rows: Sequence[Row], plan: str) -> list[float]:
    """The trainer's speed over the plain script's, for each round that has both."""
    speeds = {(row.round, row.script): row.tokens_per_second for row in rows if row.plan == plan}
    rounds = sorted({turn for turn, _ in speeds})
    return [
        speeds[turn, "trainer"] / speeds[turn, "plain"]
        for turn in rounds
        if (turn, "trainer") in speeds and (turn, "plain") in speeds
    ]


def table(rows: Sequence[Row], plans: Sequence[str]) -> str:
    """A line a plan; what was not measured is marked so."""
    head = [
        "plan",
        "trainer (ms: median, quartiles)",
        "plain (ms: median, quartiles)",
        "ratio",
        "least to most",
        f"at least {TARGET}",
    ]
    lines = [head, ["---"] * len(head)]
    for plan in plans:
        found = ratios(rows, plan)
        times = [_times(rows, plan, script) for script in SCRIPTS]
        verdict = ["not measured", "-", "-"]
        if found:
            middle = statistics.median(found)
            holds = "yes" if middle >= TARGET else "**no**"
            verdict = [f"{middle:.3f}", f"{min(found):.3f} to {max(found):.3f}", holds]
        lines.append([plan, *times, *verdict])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _times(rows: Sequence[Row], plan: str, script: str) -> str:
    """Milliseconds of an iteration, each the median over the rounds."""
    mine = [row for row in rows if (row.plan, row.script) == (plan, script)]
    if not mine:
        return "not measured"
    lower, median, upper = (
        1000 * statistics.median(getattr(row, name) for row in mine)
        for name in ("lower", "median", "upper")
    )
    return f"{median:.1f} ({lower:.1f} to {upper:.1f})"


def write(rows: Sequence[Row], file: Path) -> None:
    """Store every run."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as output:
        writer = csv.DictWriter(output, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def main() -> int:
    """Measure, store, print; 1 where a target is missed or a run failed."""
    parser = argparse.ArgumentParser(description="The trainer beside plain scripts, on 2 GPUs")
    models = [name for name, shape in PRESETS.items() if shape.family is Family.GPT2]
    parser.add_argument("--model", choices=models, default="gpt2-1.26b")
    parser.add_argument("--global-batch", type=int, default=16)
    parser.add_argument("--plans", nargs="+", choices=[*PLAIN], default=[*PLAIN])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=30, help="steps that are measured")
    parser.add_argument("--warmup", type=int, default=10, help="steps before those")
    parser.add_argument("--csv", type=Path, default=ROOT / "out" / "trainer_against_plain.csv")
    given = parser.parse_args()
    there = torch.cuda.device_count()
    if there < RANKS:
        print(f"skipped: wanted {RANKS} GPUs, one for each rank; this machine has {there}")
        return 0
    rows: list[Row] = []
    device = device_name()
    for plan in given.plans:
        for turn in range(1, given.rounds + 1):
            for script in [*SCRIPTS] if turn % 2 else [*reversed(SCRIPTS)]:
                row = measured(given, plan, turn, script, device)
                if row is not None:
                    rows.append(row)
                    write(rows, given.csv)  # at once: a long run may be cut off
    print(table(rows, given.plans))
    found = [ratios(rows, plan) for plan in given.plans]
    return int(not all(each and statistics.median(each) >= TARGET for each in found))


if __name__ == "__main__":
    sys.exit(main())
