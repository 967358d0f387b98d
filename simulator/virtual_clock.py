"""A clock that jumps."""

from controlplane.domain.clock import Instant


class VirtualClock:
    """Stands still until it is advanced; never goes back."""

    def __init__(self, start: Instant = Instant(0)) -> None:
        """Shows ``start`` until it is advanced."""
        self._now = start

    def now(self) -> Instant:
        """The present virtual instant."""
        return self._now

    def advance(self, to: Instant) -> None:
        """Jumps forward to ``to``; an instant that has passed changes nothing."""
        self._now = max(self._now, to)
