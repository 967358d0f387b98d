"""`headrace profile`: plans of one model, measured on the accelerators of this machine."""

import contextlib
import fcntl
import json
import os
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from headrace.api.chosen_plans import chosen_plans
from headrace.api.counted import counted
from headrace.api.memory import BF16, FP32
from headrace.api.models import PRESETS, ModelShape
from headrace.api.plan import ExecutionPlan
from headrace.api.profile_file import rows_in
from headrace.api.profile_rows import Asked, LinkRow, PlanRow, Row, Status, flat
from headrace.api.profiling_command import GRACE_SECONDS, profiling_command
from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.cli.local_cluster import missing_packages
from headrace.cli.output import note, say, table
from headrace.cli.plan_figures import FIGURES, figures, number
from headrace.cli.plans import preset
from headrace.cli.session import Session
from headrace.cli.tables import Column
from headrace.cli.up import gpus

PARAMETERS_ON_CPU_MAX = 20_000_000
"""Larger models take minutes a step without a GPU."""

_OVER = "the time was over"

COLUMNS = (
    Column("PLAN", gives_way=1),
    *FIGURES,
    Column("SWITCH S", right=True),
)


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asks for; 0 and empty leave it to the rule."""

    model: str
    accelerators: int
    batch: int
    sequence_length: int
    plans: Sequence[str]
    seconds: float
    output: Path | None


def profile(wish: Wish, tells: Session | None = None) -> None:
    """Measure, and print the table.

    Args:
        wish: What to measure.
        tells: Whose control plane is told; None for none.

    Raises:
        CommandError: It cannot be measured here, or nothing was.
    """
    has_gpu = bool(found := gpus())
    asked, shape = _asked(wish, len(found))
    plans = _plans(wish, shape, asked)
    if missing_packages(["torch", "transformers"]):
        raise CommandError(
            ExitCode.FAILED,
            "this needs torch and transformers, not installed here: "
            "pip install 'headrace[workloads]'",
        )
    if tells is not None:
        with tells.client() as client:
            client.cluster()  # that nobody is there is told before anything is measured
    output = wish.output or Path(f"profile-{asked.model}-{asked.accelerators}.jsonl")
    with _reserved(output):
        _rows(output)  # a file that is no profile is told before anything is measured
        if not has_gpu:
            note("headrace: there is no GPU here, so this measures the CPU (gloo, fp32)")
        several = "1 plan" if len(plans) == 1 else f"{counted(len(plans), 'plan')}"
        note(f"headrace: {several}, at most {wish.seconds:.0f} s; rows go to {output}")
        command = profiling_command(asked, plans, seconds=wish.seconds, output=output)
        trouble, is_overdue = _run(command, wish)
        if is_overdue:
            _leave_out(asked, plans, output)
        rows = _rows(output)
    mine = {row.plan: row for row in rows if isinstance(row, PlanRow) and row.asked == asked}
    chosen = [mine[plan] for plan in plans if plan in mine]
    links = [
        row for row in rows if isinstance(row, LinkRow) and row.accelerators == asked.accelerators
    ]
    if not chosen:
        raise CommandError(ExitCode.FAILED, f"nothing was measured:\n{trouble}")
    show(chosen, links)
    if not any(row.status is Status.MEASURED for row in chosen):
        help_ = "; more --seconds would help" if _left_out(chosen) else ""
        raise CommandError(ExitCode.FAILED, f"nothing was measured{help_}")
    if tells is not None:
        from headrace.cli.fits import take_in

        with tells.client() as client:
            take_in(client, [row for row in chosen if row.status is Status.MEASURED])


def _asked(wish: Wish, gpu_count: int) -> tuple[Asked, ModelShape]:
    shape = preset(wish.model, wish.sequence_length)
    there, kind = (gpu_count, "GPUs") if gpu_count else (os.cpu_count() or 1, "CPU cores")
    if wish.accelerators > there:
        raise CommandError(
            ExitCode.USAGE,
            f"--accelerators: wanted at most the {there} {kind} of this machine, got "
            f"{wish.accelerators}",
        )
    if not gpu_count and shape.parameters > PARAMETERS_ON_CPU_MAX:
        small = [name for name, one in PRESETS.items() if one.parameters <= PARAMETERS_ON_CPU_MAX]
        raise CommandError(
            ExitCode.USAGE,
            f"{wish.model} has {shape.parameters / 1e6:.0f} M parameters and there is no GPU here; "
            f"without one, take {', '.join(small)}",
        )
    precision = BF16 if gpu_count else FP32
    asked = Asked(wish.model, wish.accelerators, wish.batch, shape.sequence_length, precision)
    return asked, shape


def _plans(wish: Wish, shape: ModelShape, asked: Asked) -> list[str]:
    """Those that were named, in canonical form, else those of the rule."""
    try:
        named = [ExecutionPlan.parse(text) for text in wish.plans]
    except ValueError as error:
        raise CommandError(ExitCode.USAGE, f"--plans: {error}") from error
    for plan in named:
        if plan.ranks > asked.accelerators:
            raise CommandError(
                ExitCode.USAGE,
                f"--plans: wanted plans for at most {counted(asked.accelerators, 'accelerator')}, "
                f"got {plan}; "
                f"take --accelerators {plan.ranks}",
            )
    found = list(map(str, named)) or list(
        map(str, chosen_plans(shape, asked.accelerators, asked.global_batch))
    )
    if not found:
        raise CommandError(
            ExitCode.USAGE,
            f"--batch: no plan divides a batch of {asked.global_batch} over "
            f"{counted(asked.accelerators, 'accelerator')}; take a multiple of "
            f"{asked.accelerators}",
        )
    return list(dict.fromkeys(found))


@contextlib.contextmanager
def _reserved(file: Path) -> Iterator[None]:
    """The file can be written, and by no other run meanwhile: their rows would mix.

    Raises:
        CommandError: It cannot, or another run has it.
    """
    is_new = not file.exists()
    try:
        held = file.open("a", encoding="utf-8")
    except OSError as error:
        raise CommandError(
            ExitCode.USAGE,
            f"--output: {file} cannot be written: {error.strerror}; name a file in a folder that "
            "is there and yours to write to",
        ) from error
    with held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CommandError(
                ExitCode.FAILED,
                f"another `headrace profile` is writing {file}; wait for it, or name another file "
                "with --output",
            ) from error
        try:
            yield
        finally:
            if is_new and not os.fstat(held.fileno()).st_size:
                file.unlink(missing_ok=True)  # nothing was measured


def _rows(file: Path) -> list[Row]:
    try:
        return rows_in(file)
    except ValueError as error:
        raise CommandError(ExitCode.USAGE, f"--output: {error}") from error


def _leave_out(asked: Asked, plans: Sequence[str], output: Path) -> None:
    """Rows of the plans to which ranks did not come that were ended because they took too long."""
    there = {row.plan for row in _rows(output) if isinstance(row, PlanRow) and row.asked == asked}
    missing = [plan for plan in plans if plan not in there]
    with output.open("a", encoding="utf-8") as file:
        for index, plan in enumerate(missing):
            reason = _OVER if index else f"the time was over in {plan}"
            ranks = str(ExecutionPlan.parse(plan).ranks)
            row = PlanRow(asked, plan, Status.NOT_MEASURED, placement=ranks, reason=reason)
            file.write(json.dumps(flat(row)) + "\n")
    if missing:
        note(f"headrace: the time was over in {missing[0]}; more --seconds would help")


def _left_out(rows: Sequence[PlanRow]) -> list[PlanRow]:
    return [row for row in rows if row.status is Status.NOT_MEASURED]


def _run(command: Sequence[str], wish: Wish) -> tuple[str, bool]:
    """Run the ranks and pass on what they say; returns the end of what went wrong, and whether
    they were ended because they took too long.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        ) as process:
            assert process.stdout is not None
            # torchrun ends its ranks.
            is_overdue = threading.Event()

            def end() -> None:
                is_overdue.set()
                process.terminate()

            overdue = threading.Timer(wish.seconds + GRACE_SECONDS, end)
            overdue.start()
            try:
                _relay(process.stdout)
                process.wait()
            except BaseException:
                process.terminate()
                raise
            finally:
                overdue.cancel()
        errors.seek(0)
        return errors.read()[-2000:].strip(), is_overdue.is_set()


def _relay(lines: IO[str]) -> None:
    for line in lines:
        note(line.rstrip())


def show(rows: Sequence[PlanRow], links: Sequence[LinkRow]) -> None:
    """The table (a share is of the device's peak), what has no figures and why, and the links.

    For what there was no time is counted; the file names it.
    """
    left_out = _left_out(rows)
    rows = [row for row in rows if row.status is not Status.NOT_MEASURED]
    if rows:
        table(COLUMNS, [_cells(row) for row in rows])
    for row in rows:
        if row.status is not Status.MEASURED:
            say(f"{row.plan}: {row.status}: {row.reason}")
    for reason, count in Counter(row.reason for row in left_out).items():
        say(f"{count} not measured: {reason}")
    if links:
        say(", ".join(f"{link.link} {link.bandwidth / 1e9:.1f} GB/s" for link in links))


def _cells(row: PlanRow) -> list[str]:
    return [row.plan, *figures(row), number(row.switch, 1, 2)]
