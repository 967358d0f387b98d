"""Processes of this machine, told apart by pid and start time, so that no reused pid is hit."""

import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CONTROL_DIR_VARIABLE = "HEADRACE_CONTROL_DIR"
"""Environment variable that every process of a launch unit carries."""

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process for good: its pid, and its start in clock ticks since boot."""

    pid: int
    start_ticks: int

    @property
    def alive(self) -> bool:
        """Whether it runs; a process that only waits to be reaped does not."""
        fields = _stat(self.pid)
        return bool(fields) and int(fields[19]) == self.start_ticks and fields[0] not in "ZX"

    def signal(self, number: signal.Signals) -> bool:
        """Sends a signal to it; False if it is gone."""
        if not self.alive:
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True


def process(pid: int) -> ProcessId | None:
    """The process that has this pid now."""
    fields = _stat(pid)
    return ProcessId(pid, int(fields[19])) if fields else None


def of_control_folder(folder: Path, *, below: bool = False) -> Iterator[tuple[ProcessId, Path]]:
    """Processes whose environment names a control folder, with that folder.

    Args:
        folder: The control folder, or the folder above many of them.
        below: Whether every control folder below ``folder`` counts.
    """
    wanted = os.fsencode(folder)
    for pid in _pids():
        try:
            environment = (_PROC / str(pid) / "environ").read_bytes()
        except OSError:
            continue
        named = re.search(rb"(?:^|\0)" + CONTROL_DIR_VARIABLE.encode() + rb"=([^\0]*)", environment)
        if not named:
            continue
        value = named.group(1)
        if value == wanted or (below and value.startswith(wanted + b"/")):
            found = process(pid)
            if found is not None and found.pid != os.getpid():
                yield found, Path(os.fsdecode(value))


def of_session(session: int) -> Iterator[ProcessId]:
    """Processes of one session."""
    for pid in _pids():
        fields = _stat(pid)
        if fields and int(fields[3]) == session:
            yield ProcessId(pid, int(fields[19]))


def kill_unit(folder: Path, session: int = 0, *, patience_seconds: float = 10.0) -> bool:
    """Kills whatever is left of a launch unit; False if something outlives ``patience_seconds``.

    A rank may have children in sessions of their own (``torchrun`` does that), hence the search
    by environment. Repeated until nothing is found, because they may fork meanwhile. Blocks.
    """
    deadline = time.monotonic() + patience_seconds
    while True:
        found = {one for one, _ in of_control_folder(folder)}
        if session > 0:
            found.update(of_session(session))
        left = {one for one in found if one.alive}
        if not left:
            return True
        for one in left:
            one.signal(signal.SIGKILL)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)


def _pids() -> Iterator[int]:
    for entry in os.scandir(_PROC):
        if entry.name.isdigit():
            yield int(entry.name)


def _stat(pid: int) -> list[str]:
    """Fields of /proc/pid/stat from the state on; empty if there is no such process."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()
