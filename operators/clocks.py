"""What time it is; tests bring their own."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Clocks:
    """Two clocks.

    Attributes:
        monotonic: Seconds from some moment on; never goes back, and goes on while we are frozen.
        wall: Seconds since 1970 UTC.
    """

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time

    def kubernetes_time(self) -> str:
        """The present as ``metav1.Time``."""
        return datetime.fromtimestamp(int(self.wall()), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def kubernetes_micro_time(self) -> str:
        """The present as ``metav1.MicroTime``."""
        return datetime.fromtimestamp(self.wall(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
