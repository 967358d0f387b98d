"""Processes of this machine, told apart by pid and start time, so that no reused pid is hit."""

import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_PAUSE_SECONDS = 0.05


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

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to exactly this process, if it is still there."""
        if self.alive:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return


def process(pid: int) -> Process | None:
    """The process that has this pid now."""
    fields = _stat(pid)
    return Process(pid, int(fields[19])) if fields else None


def marked(variables: Mapping[str, str]) -> list[Process]:
    """Every live process whose environment carries one of these variables.

    Args:
        variables: Name to value; a value that ends with ``/`` matches everything below it.
    """
    wanted = [f"{name}={value}".encode() for name, value in variables.items()]
    found = []
    for pid in _pids():
        if pid == os.getpid():
            continue
        try:
            environment = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(_matches(entry, pattern) for entry in environment for pattern in wanted):
            one = process(pid)
            if one is not None and one.alive:
                found.append(one)
    return sorted(found)


def _matches(entry: bytes, pattern: bytes) -> bool:
    return entry.startswith(pattern) if pattern.endswith(b"/") else entry == pattern


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


def wait_gone(processes: Iterable[Process], seconds: float) -> list[Process]:
    """Waits until all are gone; returns those that are not after ``seconds``."""
    deadline = time.monotonic() + seconds
    left = [one for one in processes if one.alive]
    while left and time.monotonic() < deadline:
        time.sleep(_PAUSE_SECONDS)
        left = [one for one in left if one.alive]
    return left


def end(processes: Iterable[Process], grace_seconds: float) -> list[Process]:
    """Asks processes to end, then makes them; returns those that even SIGKILL left."""
    asked = list(processes)
    for one in asked:
        one.signal(signal.SIGTERM)
    left = wait_gone(asked, grace_seconds)
    for one in left:
        one.signal(signal.SIGKILL)
    return wait_gone(left, 10.0)


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
