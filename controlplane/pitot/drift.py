"""Bounds under drift: the rate of misses that is asked for follows those that happen.

Adaptive conformal inference (Gibbs and Candes, 2021): after each run, miss <- miss + speed *
(target - missed). Whatever the runs do, the share of misses over n runs is within (1 + speed) /
(speed * n) of the target.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

SPEED = 0.005


@dataclass(frozen=True, slots=True)
class AdaptiveMiss:
    """The rate to ask a pool for.

    Attributes:
        target: The rate that is promised.
        now: The rate to ask for now. At 0 or below no bound is wide enough, at 1 or above any is.
        speed: How far one miss moves it.
    """

    target: float
    now: float
    speed: float = SPEED

    @classmethod
    def towards(cls, target: float, speed: float = SPEED) -> Self:
        """Nothing seen yet."""
        return cls(target, target, speed)

    def seen(self, *, missed: bool) -> Self:
        """After one more run."""
        return replace(self, now=self.now + self.speed * (self.target - missed))

    def after(self, misses: Iterable[bool]) -> Self:
        """After more runs, in their order."""
        found = self
        for missed in misses:
            found = found.seen(missed=missed)
        return found
