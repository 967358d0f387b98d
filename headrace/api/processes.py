"""Processes of this machine, told apart by pid and start time, so that no reused pid is hit."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True, order=True)
class Process:
    """One process for good: its pid, and its start in clock ticks since boot."""

    pid: int
    start_ticks: int

    @property
    def alive(self) -> bool:
        """Whether it runs; one that only waits to be reaped does not."""
        fields = _stat(self.pid)
        return bool(fields) and int(fields[19]) == self.start_ticks and fields[0] not in "ZX"

    @property
    def resident_bytes(self) -> int:
        """Memory that it occupies; 0 if it is gone."""
        fields = _stat(self.pid)
        return int(fields[21]) * os.sysconf("SC_PAGE_SIZE") if self.alive and fields else 0

    @property
    def age_seconds(self) -> float:
        """How long it has been running."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.start_ticks / os.sysconf("SC_CLK_TCK")

    @property
    def command(self) -> str:
        """Its command line, for people."""
        try:
            text = (_PROC / str(self.pid) / "cmdline").read_bytes()
        except OSError:
            return ""
        return text.replace(b"\0", b" ").decode(errors="replace").strip()

    def signal(self, number: signal.Signals) -> bool:
        """Sends a signal to exactly this process; False if it is gone."""
        if not self.alive:
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True


def process(pid: int) -> Process | None:
    """The process that has this pid now."""
    fields = _stat(pid)
    return Process(pid, int(fields[19])) if fields else None


def number_inside(pid: int) -> int:
    """The number of a process within its own PID namespace, 1 for the first one; 0 if unknown."""
    try:
        status = (_PROC / str(pid) / "status").read_text(errors="replace")
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith("NSpid:"):
            return int(line.split()[-1])
    return 0


def pid_namespace(pid: int) -> str:
    """Names the PID namespace of a process; empty where it is gone, or another user's."""
    try:
        return str((_PROC / str(pid) / "ns" / "pid").readlink())
    except OSError:
        return ""


def of_namespace(namespace: str) -> Iterator[int]:
    """Numbers, here, of the processes in a PID namespace."""
    return (pid for pid in _pids() if pid_namespace(pid) == namespace)


def of_session(session: int) -> list[Process]:
    """Every live process of a session."""
    found = []
    for pid in _pids():
        fields = _stat(pid)
        if fields and int(fields[3]) == session:
            one = Process(pid, int(fields[19]))
            if one.alive:
                found.append(one)
    return found


def environments() -> Iterator[tuple[int, bytes]]:
    """The pid and the environment, entries ended by NUL, of every other process that shows it."""
    for pid in _pids():
        if pid == os.getpid():
            continue
        try:
            yield pid, (_PROC / str(pid) / "environ").read_bytes()
        except OSError:
            continue


def _pids() -> Iterator[int]:
    # Read at once: whoever has found what it looked for leaves the rest, and no open folder.
    with os.scandir(_PROC) as entries:
        numbers = [int(entry.name) for entry in entries if entry.name.isdigit()]
    yield from numbers


def _stat(pid: int) -> list[str]:
    """Fields of /proc/pid/stat from the state on; empty if there is no such process."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()
