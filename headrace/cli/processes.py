"""The processes of a local cluster: found by what marks their environment, and ended."""

import signal
import time
from collections.abc import Iterable, Mapping

from headrace.api.processes import Process, environments, process

_PAUSE_SECONDS = 0.05


def marked(variables: Mapping[str, str]) -> list[Process]:
    """Every live process whose environment carries one of these variables.

    Args:
        variables: Name to value; a value that ends with ``/`` matches everything below it.
    """
    wanted = [f"{name}={value}".encode() for name, value in variables.items()]
    found = []
    for pid, environment in environments():
        entries = environment.split(b"\0")
        if any(_matches(entry, pattern) for entry in entries for pattern in wanted):
            one = process(pid)
            if one is not None and one.alive:
                found.append(one)
    return sorted(found)


def _matches(entry: bytes, pattern: bytes) -> bool:
    return entry.startswith(pattern) if pattern.endswith(b"/") else entry == pattern


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
