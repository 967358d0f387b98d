"""``headrace what-if``: a snapshot is played without a change and with it, and nothing touched.

This side reads what people write, fetches the snapshot and shows the answer. What plays it is the
simulator, in a process of its own.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from headrace.api.manifest import canonical_json
from headrace.api.manifest_source import read_jobs
from headrace.api.runtime import refusals
from headrace.cli.apply import refuse, resolved
from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.cli.interrupts import interruptible
from headrace.cli.local_cluster import missing_packages
from headrace.cli.output import Format, document, say
from headrace.cli.session import Session
from headrace.cli.what_if_answer import show_answer
from headrace.client.context import Context, NoContextError

_LONGEST_NUMBER = 9


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for, as it was typed.

    Attributes:
        snapshot: File to play; empty for the live cluster.
        add_nodes: ``COUNTxACCELERATORS[:TYPE]`` each.
        remove_nodes: Names of nodes.
        drain: Names of nodes.
        quotas: ``QUEUE=N`` each.
        submit: Files, folders, or ``-``.
        policy: Name of a policy; empty for the cluster's own.
        switch_seconds: What each start and change takes; None for what the cluster saw.
        step_seconds: ``[NAME=]SECONDS`` each.
    """

    snapshot: str = ""
    add_nodes: Sequence[str] = ()
    remove_nodes: Sequence[str] = ()
    drain: Sequence[str] = ()
    quotas: Sequence[str] = ()
    submit: Sequence[str] = ()
    policy: str = ""
    switch_seconds: float | None = None
    step_seconds: Sequence[str] = ()


def what_if(session: Session, wish: Wish, output: Format) -> None:
    """Asks, and shows the answer.

    Raises:
        CommandError: The question is wrong, or the simulator is not there.
    """
    need_simulator()
    question: dict[str, Any] = {
        "add_nodes": [_nodes(text) for text in wish.add_nodes],
        "remove_nodes": list(wish.remove_nodes),
        "drain": list(wish.drain),
        "quotas": dict(_quota(text) for text in wish.quotas),
        "policy": wish.policy,
        "switch_seconds": wish.switch_seconds,
        "step_seconds": dict(_step(text) for text in wish.step_seconds),
        "manifests": manifests(session, wish.submit),
    }
    with snapshot_file(session, wish.snapshot) as path:
        if not wish.snapshot:
            question["now_seconds"] = time.time()
        told = played("simulator.what_if", question | {"snapshot": str(path.absolute())})
    if output in (Format.JSON, Format.YAML):
        document(told, output)
    elif output is Format.NAME:
        for each in (*told["jobs"], *told["submitted"]):
            say(f"job/{each['job'].partition('/')[2]}")
    else:
        show_answer(told, wide=output is Format.WIDE)


def need_simulator() -> None:
    """Does nothing where the simulator is installed.

    Raises:
        CommandError: It is not there.
    """
    if missing_packages(["simulator"]):
        raise CommandError(
            ExitCode.FAILED,
            "this needs simulator, not installed here: pip install headrace-server",
        )


def played(module: str, question: dict[str, Any]) -> dict[str, Any]:
    """The simulator's answer; what it refuses it says itself.

    Args:
        module: The part of it that answers.
        question: As it wants it.

    Raises:
        Exit: It did not answer.
    """
    # By standard input: manifests may hold what other users of this machine should not read.
    with interruptible():
        done = subprocess.run(
            [sys.executable, "-m", module],
            input=json.dumps(question),
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    if done.returncode:
        raise typer.Exit(done.returncode)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@contextmanager
def snapshot_file(session: Session, file: str) -> Iterator[Path]:
    """The file, or one with the live cluster that is removed again."""
    if file:
        path = Path(file)
        if not path.exists():
            raise CommandError(
                ExitCode.USAGE,
                f"--snapshot: {file}: there is no such file; wanted what `headrace snapshot -o "
                "FILE` wrote",
            )
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="headrace-what-if-") as folder:
        path = Path(folder) / "snapshot.json"
        with session.client() as client, path.open("wb") as stream:
            for piece in client.snapshot():
                stream.write(piece)
        yield path


def manifests(session: Session, files: Sequence[str]) -> list[str]:
    """What would be submitted, as a submission sends it.

    Args:
        session: Of the command.
        files: Files, folders, or ``-``.

    Raises:
        CommandError: A manifest is wrong; with every problem.
    """
    if not files:
        return []
    text = sys.stdin.read() if "-" in files else ""
    jobs, findings = read_jobs(tuple(files), text)
    refuse(findings, done="played")
    try:
        context = session.context()
    except NoContextError:
        context = Context("", local=True)
    jobs = resolved(jobs, context, session.home, done="played")
    wrong = tuple(each.source.finding(problem) for each in jobs for problem in refusals(each.job))
    refuse(wrong, done="played")
    return [canonical_json(each.job) for each in jobs]


# What is typed.


def _nodes(text: str) -> dict[str, Any]:
    size, _, kind = text.partition(":")
    count, times, accelerators = size.partition("x")
    if not (times and _is_positive(count) and _is_positive(accelerators)):
        raise CommandError(
            ExitCode.USAGE,
            f"--add-nodes: wanted NODESxACCELERATORS or NODESxACCELERATORS:TYPE, such as 1x8, got "
            f"{text!r}",
        )
    return {"count": int(count), "accelerators": int(accelerators), "type": kind}


def _is_positive(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _LONGEST_NUMBER and int(text) > 0


def _quota(text: str) -> tuple[str, int | None]:
    name, _, count = text.rpartition("=")
    if not name or not (count == "-1" or count == "0" or _is_positive(count)):
        raise CommandError(
            ExitCode.USAGE,
            f"--quota: wanted QUEUE=ACCELERATORS, -1 for no limit, such as research=16, got "
            f"{text!r}",
        )
    return name, None if count == "-1" else int(count)


def _step(text: str) -> tuple[str, float]:
    name, _, count = text.rpartition("=")
    try:
        seconds = float(count)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise CommandError(
            ExitCode.USAGE,
            f"--step-seconds: wanted SECONDS or JOB=SECONDS, such as bert=0.4, got {text!r}",
        )
    return name, seconds
