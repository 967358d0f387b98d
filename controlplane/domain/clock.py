"""Time as a value. Only a ``Clock`` may be asked what time it is."""

from typing import NewType, Protocol

Instant = NewType("Instant", int)
"""Nanoseconds since 1970-01-01 UTC, as the control plane's clock tells it."""

Duration = NewType("Duration", int)
"""Nanoseconds."""

SECOND = Duration(1_000_000_000)
FOREVER = Instant(2**63 - 1)


def seconds(count: float) -> Duration:
    """A duration of ``count`` seconds."""
    return Duration(round(count * SECOND))


def after(start: Instant, wait: Duration) -> Instant:
    """The instant ``wait`` after ``start``."""
    return Instant(start + wait)


class Clock(Protocol):
    """The one source of time: a wall clock live, a virtual one in the simulator."""

    def now(self) -> Instant:
        """The present instant; never earlier than an answer given before."""
        ...
