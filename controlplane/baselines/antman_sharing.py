"""How AntMan lets an opportunistic job use what a job with a guarantee leaves idle (OSDI 2020; the
rules that are in the released code).

Headrace gives an accelerator to one job at a time, so no policy here shares one. How the
coordinator of each node chooses the throttle and the limit on memory was not released.
"""

from collections.abc import Sequence
from typing import NamedTuple

UTILISATION_MAX = 80.0
"""Percent; at this or above an accelerator is not joined."""

MEMORY_MAX_GIB = 16.0
"""At this or above neither."""

_MARGIN_MICROSECONDS = 50


class Use(NamedTuple):
    """What an accelerator's own job uses of it: the mean and the peak of the last 30 samples."""

    utilisation: float
    memory_gib: float

    @property
    def score(self) -> float:
        """How good it is to be joined."""
        return 100.0 - self.utilisation


def accelerator_to_join(used: Sequence[Use]) -> int | None:
    """Position of the least used accelerator among those that may be joined; None if none may."""
    eligible = [
        i
        for i, use in enumerate(used)
        if use.utilisation < UTILISATION_MAX and use.memory_gib < MEMORY_MAX_GIB
    ]
    return max(eligible, key=lambda i: used[i].score, default=None)


def sleep_microseconds(throttle: int, mini_batch_microseconds: int) -> int:
    """How long an opportunistic job pauses after a mini-batch.

    Args:
        throttle: Percent of the time that it may run; 100 does not throttle it.
        mini_batch_microseconds: What the mini-batch took.

    Raises:
        ValueError: The throttle is 0, which suspends the job, or no percentage.
    """
    if not 0 < throttle <= 100:
        raise ValueError(f"throttle: wanted 1 to 100 (0 suspends the job), got {throttle}")
    if throttle == 100:
        return 0
    whole = 100 * mini_batch_microseconds // throttle
    return max(0, whole - mini_batch_microseconds - _MARGIN_MICROSECONDS)
