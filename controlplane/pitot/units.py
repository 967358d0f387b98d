"""Units that were mixed up: whole groups of runs that are off by about a thousand from a fit.

A single row among sound ones is told by ``run_times.check``. Where all rows of a platform, or of
whoever measures, came in milliseconds, they agree with each other, and only a fit that was made of
other data can tell.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controlplane.pitot.run_times import Reals

UNITS = {
    1e3: "milliseconds",
    1e6: "microseconds",
    1e9: "nanoseconds",
    1e-3: "thousands of seconds",
}
"""What seconds were taken for, by how many times too large the numbers are."""
LEAST_ROWS = 3
"""Of a group, so that one strange run is no unit."""
_NEAR = float(np.log(4.0))
"""How far from a power of a thousand a group may be: a fit is off by that where it knows little."""
_MOST_SPREAD = float(np.log(5.0))
"""Of the middle half of its rows: a unit moves all of them alike."""


@dataclass(frozen=True, slots=True)
class MixedUnits:
    """A group whose times are in another unit than seconds.

    Attributes:
        group: Its name.
        rows: How many.
        times: How many times what was predicted they are, in the middle.
        unit: What they most likely are.
        divide_by: What makes seconds of them.
    """

    group: str
    rows: int
    times: float
    unit: str
    divide_by: float

    def __str__(self) -> str:
        """The sentence."""
        return (
            f"the {self.rows} run times of {self.group} are {self.times:.3g} times what was "
            f"predicted: wanted seconds, found most likely {self.unit}; divide by "
            f"{self.divide_by:g}, or learn again if they are right"
        )


def mixed_units(
    log_seconds: Reals, predicted: Reals, groups: Sequence[str]
) -> tuple[MixedUnits, ...]:
    """Groups that are off as a whole by about a power of a thousand, in the order of their names.

    Args:
        log_seconds: (n,) measured.
        predicted: (n,) logarithms of seconds, by a fit that did not learn from these runs.
        groups: (n,) of what came together: a platform, a workload, who measured.
    """
    names, which = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    off, found = log_seconds - predicted, []
    for place, name in enumerate(names.tolist()):
        own = off[which == place]
        if len(own) < LEAST_ROWS:
            continue
        low, middle, high = np.quantile(own, [0.25, 0.5, 0.75])
        for factor, unit in UNITS.items():
            if high - low < _MOST_SPREAD and abs(middle - np.log(factor)) < _NEAR:
                found.append(MixedUnits(name, len(own), float(np.exp(middle)), unit, factor))
    return tuple(found)
