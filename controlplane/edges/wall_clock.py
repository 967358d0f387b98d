"""The only file that may read the time."""

import time

from controlplane.domain.clock import Duration, Instant

_SLEW_DIVISOR = 200
"""Of each second, at most 1/200 is spent on following the machine's clock."""


class WallClock:
    """UTC that never goes back and never jumps.

    Deadlines and back-offs are instants of this clock, so a machine's clock that is set forward
    must not let them all expire at once, and one that is set back must not stop the cluster. It
    starts at the machine's UTC, runs with the monotonic clock, and follows the machine's UTC by at
    most 5 ms a second.
    """

    def __init__(self) -> None:
        self._monotonic_ns = time.monotonic_ns()
        self._now_ns = time.time_ns()

    def not_before(self, instant: Instant) -> None:
        """From now on no answer is before ``instant``: the last one that the store remembers."""
        self._now_ns = max(self._now_ns, instant)

    def now(self) -> Instant:
        """The present instant."""
        monotonic_ns = time.monotonic_ns()
        elapsed = monotonic_ns - self._monotonic_ns
        expected = self._now_ns + elapsed
        slew = elapsed // _SLEW_DIVISOR
        drift = time.time_ns() - expected
        self._monotonic_ns = monotonic_ns
        self._now_ns = expected + max(-slew, min(slew, drift))
        return Instant(self._now_ns)

    def monotonic(self) -> Duration:
        """Time since some fixed moment; for durations only."""
        return Duration(time.monotonic_ns())
