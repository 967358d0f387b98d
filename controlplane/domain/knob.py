"""What people may turn of a policy, and of the control plane around it."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Knob:
    """A number that people may set.

    Attributes:
        name: Its whole name; one of a policy begins with that policy's name and a dot, such as
            ``rubick.cool_down_seconds``.
        default: What it is while nobody set it.
        low: The lowest that is allowed.
        high: The highest that is allowed.
        meaning: What it does and what it trades, as a sentence.
        whole: Whether it is a count.
    """

    name: str
    default: float
    low: float
    high: float
    meaning: str
    whole: bool = False

    def value_in(self, turned: Mapping[str, float]) -> float:
        """What it is where so much was set.

        Args:
            turned: What people set, by whole name. A value that an earlier release allowed and
                this one does not counts as the nearest that is allowed.
        """
        value = min(self.high, max(self.low, turned.get(self.name, self.default)))
        return int(value) if self.whole else value
