"""Ends a local cluster and nothing else: everything that was recorded or carries its mark."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from headrace.api.processes import Process, of_session
from headrace.api.variables import CONTROL_DIR_VARIABLE
from headrace.cli.local_cluster import (
    CLUSTER_VARIABLE,
    Record,
    RunningPart,
    marks,
    ray_authentication,
    remove_ray_folder,
    survivors,
)
from headrace.cli.processes import end, marked, wait_gone
from headrace.client import context

_AGENT_SECONDS = 10.0
_UNITS_SECONDS = 45.0
_CONTROL_PLANE_SECONDS = 15.0
_RAY_SECONDS = 15.0
_ROUNDS = 5


def tear_down(record: Record, home: Path, *, reap: Callable[[], None]) -> list[Process]:
    """Ends the parts in the order in which they need each other; returns what survived.

    Args:
        record: What was started.
        home: The cluster's home.
        reap: Collects ended children of the caller.
    """
    agents = [part for part in record.parts if part.name.startswith("agent-")]
    for part in agents:
        part.process.signal(signal.SIGTERM)
    _wait_or_kill(agents, _AGENT_SECONDS, reap)
    ranks = {CONTROL_DIR_VARIABLE: marks(record.id, home)[CONTROL_DIR_VARIABLE]}
    if marked(ranks):
        _end_units(record, home)
    for name, seconds in (("controlplane", _CONTROL_PLANE_SECONDS), ("ray", _RAY_SECONDS)):
        parts = [part for part in record.parts if part.name == name]
        for part in parts:
            part.process.signal(signal.SIGTERM)
        _wait_or_kill(parts, seconds, reap)
    left = survivors(record, home)
    for _ in range(_ROUNDS):  # they may have forked meanwhile
        if not left:
            break
        end(left, grace_seconds=3.0)
        reap()
        left = survivors(record, home)
    if not left:
        remove_ray_folder(record)
        with contextlib.suppress(context.NoContextError):
            context.forget(home)
    return left


def _wait_or_kill(parts: list[RunningPart], seconds: float, reap: Callable[[], None]) -> None:
    """Waits for parts to end; what does not is killed with its whole session."""
    left = wait_gone([part.process for part in parts], seconds)
    reap()
    for part in parts:
        if part.process in left:
            for one in of_session(part.process.pid):
                one.signal(signal.SIGKILL)
            part.process.signal(signal.SIGKILL)
    wait_gone(left, 5.0)
    reap()


def _end_units(record: Record, home: Path) -> None:
    """Has every node's units ended by the program that started them, while Ray still runs."""
    environment = {
        **os.environ,
        "HEADRACE_HOME": str(home),
        **ray_authentication(home),
        "RAY_TMPDIR": record.ray_folder,
        CLUSTER_VARIABLE: record.id,
    }
    with (home / "logs" / "end-units.log").open("ab") as log:
        running = [
            subprocess.Popen(
                [sys.executable, "-m", "agent", "end-units", *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=home / "logs",
                env=environment,
                start_new_session=True,
            )
            for flags in record.nodes.values()
        ]
        for each in running:
            try:
                each.wait(timeout=_UNITS_SECONDS)
            except subprocess.TimeoutExpired:
                each.kill()
                each.wait()
