"""Waiting for what other processes do."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_SECONDS = 120.0
"""How long anything may take on a loaded machine before it counts as never."""


def until(what: str, condition: Callable[[], T], seconds: float = PATIENCE_SECONDS) -> T:
    """Waits for something to become true, and returns it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds:g} s it is still not true that {what}")
        time.sleep(0.05)  # between two looks at another process
    return found
