"""The tables of plans in docs/evidence: measured on 1 and 2 GPUs of this machine, and drawn.

    python benchmarks/evidence.py measure gpt2-1.26b [--gpus 1 2] [--seconds 540] [--folder DIR]
    python benchmarks/evidence.py draw [gpt2-1.26b ...] [--folder DIR]

``measure`` goes on where ``plans-MODEL.csv`` in the folder ends, so it may be called until nothing
is left; it needs torch and transformers alone. The seconds are for all GPU counts together, start
included. ``links.csv`` has the bandwidths. ``draw`` writes one SVG a model, from the CSV alone, and
one of ``switches.csv``, which ``benchmarks/switches.py`` writes.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.evidence_chart import chart
from benchmarks.switches_chart import chart as switches_chart
from headrace.api.chosen_plans import chosen_plans
from headrace.api.models import PRESETS, ModelShape, resized
from headrace.api.profile_file import rows_in, table_rows_in
from headrace.api.profile_rows import (
    Asked,
    LinkRow,
    PlanRow,
    Row,
    Status,
    flat,
    latest,
)
from headrace.api.profiling_command import GRACE_SECONDS, profiling_command

ROOT = Path(__file__).resolve().parent.parent
TASKS: Mapping[str, tuple[int, int]] = {
    "gpt2-1.26b": (16, 1024),
    "bert-336m": (32, 512),
    "llama-2-7b": (8, 1024),
    # Measured last, so that the memory model could be asked about models that it had never seen.
    "t5-1.2b": (16, 512),
    "gpt2-1.5b": (16, 1024),
    "vit-86m": (64, 197),
    # As small as a CPU can measure in seconds, to try all this.
    "gpt2-small": (16, 128),
    "bert-tiny": (32, 64),
    "vit-tiny": (64, 17),
}
"""Global batch and sequence length of each model."""

_FEWEST_SECONDS = 20.0


def read(file: Path) -> list[Row]:
    """The rows of a CSV; none without a file."""
    if not file.exists():
        return []
    return table_rows_in(file)


def write(file: Path, rows: Sequence[Row]) -> None:
    """All rows as CSV, if there are any."""
    if not rows:
        return
    stored = [flat(row) for row in rows]
    names = list(dict.fromkeys(name for row in stored for name in row))
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(stored)


def asked_of(model: str, gpus: int) -> Asked:
    """What is measured of a model."""
    batch, positions = TASKS[model]
    return Asked(model, gpus, batch, positions, "bf16")


def shape_of(model: str) -> ModelShape:
    """The model with the sequence length of its task."""
    return resized(PRESETS[model], sequence_length=TASKS[model][1])


def plans_of(model: str, gpus: int) -> list[str]:
    """The fixed list of plans; what takes long comes last, so that most are done in little time."""
    plans = chosen_plans(shape_of(model), gpus, TASKS[model][0])
    # With offload, every micro-batch's gradients go to the host.
    return [str(plan) for plan in sorted(plans, key=lambda it: (it.offload, it.accumulation_steps))]


def measure(model: str, gpus: Sequence[int], seconds: float, folder: Path) -> int:
    """Measure what the CSV does not have; returns how many plans are still without a result."""
    began = time.monotonic()
    table, links = folder / f"plans-{model}.csv", folder / "links.csv"
    known = [*read(table), *read(links)]
    with tempfile.TemporaryDirectory() as place:
        rows = Path(place) / "rows.jsonl"
        rows.write_text("".join(json.dumps(flat(row)) + "\n" for row in known))
        for count in gpus:
            left = seconds - (time.monotonic() - began)
            asked, plans = asked_of(model, count), plans_of(model, count)
            if left > _FEWEST_SECONDS:
                _run(asked, plans, left, rows)
            _mark_unmeasured(asked, plans, rows)
            # Written after each, so that nothing is lost if this is cut off.
            found = latest(rows_in(rows))
            write(table, [row for row in found if isinstance(row, PlanRow)])
            write(links, [row for row in found if isinstance(row, LinkRow)])
    return sum(len(_unmeasured(model, count, table)) for count in gpus)


def _run(asked: Asked, plans: Sequence[str], seconds: float, rows: Path) -> None:
    command = profiling_command(asked, plans, seconds=seconds, output=rows)
    print(" ".join(command), flush=True)
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        process.wait(seconds + GRACE_SECONDS / 2)
    except subprocess.TimeoutExpired:
        print("took too long, and is ended", flush=True)
    finally:
        process.terminate()  # torchrun ends its ranks
        process.wait()


def _mark_unmeasured(asked: Asked, plans: Sequence[str], rows: Path) -> None:
    """Rows for the plans of which the ranks left no word because they were ended."""
    told = {row.plan for row in rows_in(rows) if isinstance(row, PlanRow) and row.asked == asked}
    with rows.open("a", encoding="utf-8") as lines:
        for plan in plans:
            if plan not in told:
                row = PlanRow(
                    asked,
                    plan,
                    Status.NOT_MEASURED,
                    placement=str(asked.accelerators),
                    reason="the time was over",
                    parameters=shape_of(asked.model).parameters,
                )
                lines.write(json.dumps(flat(row)) + "\n")


def _unmeasured(model: str, gpus: int, table: Path) -> list[str]:
    asked = asked_of(model, gpus)
    done = {
        row.plan
        for row in read(table)
        if isinstance(row, PlanRow)
        and row.asked == asked
        and row.status not in (Status.NOT_MEASURED, Status.SWITCH_FAILED)
    }
    return [plan for plan in plans_of(model, gpus) if plan not in done]


def draw(model: str, folder: Path) -> Path:
    """The picture of a model's table.

    Raises:
        FileNotFoundError: There is no table.
    """
    table = folder / f"plans-{model}.csv"
    rows = [row for row in read(table) if isinstance(row, PlanRow)]
    if not rows:
        raise FileNotFoundError(f"there is no {table}; measure {model} first")
    picture = folder / f"plans-{model}.svg"
    picture.write_text(chart(PRESETS[model], rows), encoding="utf-8")
    return picture


def draw_switches(folder: Path) -> Path:
    """The picture of ``switches.csv``."""
    with (folder / "switches.csv").open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    picture, first = folder / "switches.svg", rows[0]
    title = f"Changes of plan: {first['model']}, global batch {first['global_batch']}"
    picture.write_text(switches_chart(f"{title}, {first['device']}", rows), encoding="utf-8")
    return picture


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("model", choices=sorted(TASKS))
    measuring.add_argument("--gpus", type=int, nargs="+", default=[1, 2])
    measuring.add_argument("--seconds", type=float, default=540.0)
    drawing = commands.add_parser("draw")
    drawing.add_argument("model", nargs="*", choices=[*sorted(TASKS), []])
    for each in (measuring, drawing):
        each.add_argument("--folder", type=Path, default=ROOT / "docs" / "evidence")
    given = parser.parse_args()
    if given.command == "measure":
        left = measure(given.model, given.gpus, given.seconds, given.folder)
        print(f"{left} plans are left" if left else "all plans have a result")
        return 0
    for model in given.model or sorted(TASKS):
        if given.model or (given.folder / f"plans-{model}.csv").exists():
            print(draw(model, given.folder))
    if not given.model and (given.folder / "switches.csv").exists():
        print(draw_switches(given.folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
