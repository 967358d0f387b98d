"""The ways among which a job can sensibly be given one, and what they tell of its resource
sensitivity (Rubick, MLSys 2025, section 5).
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isinf

import numpy as np
from numpy.typing import NDArray

from controlplane.domain.step_times import Shares, Way
from headrace.api.plan import ExecutionPlan

Numbers = NDArray[np.float64]

_FASTER_BY = 0.01
"""More accelerators must make a step shorter by this share to be worth a look (the artifact trims
its curves by the same one per cent)."""

_LAYOUTS_OF_A_SIZE = 4
"""So many layouts of one number of accelerators are looked at, the fastest ones."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A way on accelerators of one type.

    Attributes:
        kind: Type of the accelerators.
        plan: The plan.
        shares: How they lie, most first; empty for wherever there is room.
        accelerators: How many they are.
        seconds: What a step takes.
        seconds_upper: What it takes at most, with the coverage that the step times state.
    """

    kind: str
    plan: ExecutionPlan
    shares: Shares
    accelerators: int
    seconds: float
    seconds_upper: float

    @classmethod
    def of(cls, kind: str, way: Way) -> "Choice":
        """A way, on that type."""
        return cls(kind, way.plan, way.shares, way.accelerators, way.seconds, way.seconds_upper)

    @property
    def steps_per_second(self) -> float:
        """How fast it is."""
        return 1.0 / self.seconds

    @property
    def is_guess(self) -> bool:
        """Whether nothing is known: its places are not, or no time is too long for it."""
        return not self.shares or isinf(self.seconds_upper)


@dataclass(frozen=True, eq=False)
class Choices:
    """What a job can be given, by number of accelerators, the fastest layouts of each first.

    Attributes:
        every: The choices.
        accelerators: Of each, how many it takes. Shape ``(len(every),)``.
        seconds: Of each, what a step takes.
    """

    every: tuple[Choice, ...]

    @cached_property
    def accelerators(self) -> Numbers:
        """Accelerators of each choice."""
        return np.array([each.accelerators for each in self.every], dtype=np.float64)

    @cached_property
    def seconds(self) -> Numbers:
        """Seconds of a step of each choice."""
        return np.array([each.seconds for each in self.every], dtype=np.float64)

    @cached_property
    def curves(self) -> Mapping[str, "Curve"]:
        """The sensitivity to accelerators of each type."""
        kinds = dict.fromkeys(each.kind for each in self.every)
        return {kind: Curve.of(e for e in self.every if e.kind == kind) for kind in kinds}

    def among(self, wanted: Callable[[Choice], bool]) -> "Choices":
        """Those for which that holds; the very same if all are."""
        kept = tuple(each for each in self.every if wanted(each))
        return self if len(kept) == len(self.every) else Choices(kept)

    def at_least(self, steps_per_second: float) -> "Choices":
        """Those that are as fast as that, within rounding."""
        return self.among(lambda each: each.steps_per_second >= steps_per_second * (1 - 1e-9))


NOTHING = Choices(())


def choices_among(ways: Mapping[str, Sequence[Way]]) -> Choices:
    """Of all ways those that somebody could want: of each layout the fastest plan, and no layout
    that is slower than one with fewer accelerators of its type.

    Args:
        ways: By type of the accelerators.
    """
    found = [each for kind, every in ways.items() for each in _efficient(kind, every)]
    found.sort(key=lambda each: (each.accelerators, each.seconds))
    return Choices(tuple(found))


def _efficient(kind: str, ways: Iterable[Way]) -> Iterable[Choice]:
    fastest: dict[Shares, Way] = {}
    for way in ways:
        known = fastest.get(way.shares)
        if known is None or (way.seconds, str(way.plan)) < (known.seconds, str(known.plan)):
            fastest[way.shares] = way
    sizes: dict[int, list[Way]] = {}
    for way in fastest.values():
        sizes.setdefault(way.accelerators, []).append(way)
    to_beat = float("inf")
    for size in sorted(sizes):
        alike = sorted(sizes[size], key=lambda way: (way.seconds, way.shares))
        for way in alike[:_LAYOUTS_OF_A_SIZE]:
            if way.seconds < to_beat * (1 - _FASTER_BY):
                yield Choice.of(kind, way)
        to_beat = min(to_beat, alike[0].seconds)


@dataclass(frozen=True, slots=True)
class Curve:
    """The best speed for each number of accelerators: flat where more of them are of no use, and
    where their number suits no plan.

    Attributes:
        sizes: Numbers at which the speed rises, ascending.
        speeds: Steps a second from there on.
        corners: Of these, those on the upper concave hull, which begins at (0, 0).
    """

    sizes: tuple[int, ...]
    speeds: tuple[float, ...]
    corners: tuple[int, ...]

    @classmethod
    def of(cls, choices: Iterable[Choice]) -> "Curve":
        """The envelope over these."""
        best: dict[int, float] = {}
        for each in choices:
            best[each.accelerators] = max(each.steps_per_second, best.get(each.accelerators, 0.0))
        sizes: list[int] = []
        speeds: list[float] = []
        for size in sorted(best):
            if not speeds or best[size] > speeds[-1]:
                sizes.append(size)
                speeds.append(best[size])
        return cls(tuple(sizes), tuple(speeds), _hull(sizes, speeds))

    def speed(self, accelerators: int) -> float:
        """Steps a second with so many; 0 with too few for any plan."""
        place = bisect_right(self.sizes, accelerators)
        return self.speeds[place - 1] if place else 0.0

    def slope(self, accelerators: int) -> float:
        """Steps a second that one more would give, by the hull: on the way to the next corner a
        plateau counts as the rise that waits behind it. 0 beyond the last corner.
        """
        before = (0, 0.0)
        for corner in self.corners:
            size, speed = self.sizes[corner], self.speeds[corner]
            if accelerators < size:
                return (speed - before[1]) / (size - before[0])
            before = (size, speed)
        return 0.0


def _hull(sizes: Sequence[int], speeds: Sequence[float]) -> tuple[int, ...]:
    """Positions of the corners of the upper concave hull over (0, 0) and these points."""
    points = [(0, 0.0), *zip(sizes, speeds, strict=True)]
    kept: list[int] = []
    for i, (x, y) in enumerate(points):
        while len(kept) > 1:
            (x1, y1), (x2, y2) = points[kept[-2]], points[kept[-1]]
            if (y2 - y1) * (x - x2) > (y - y2) * (x2 - x1):
                break
            kept.pop()
        kept.append(i)
    return tuple(i - 1 for i in kept if i)


def best_first(worth: Numbers, above: float = 0.0) -> list[int]:
    """Positions of what is worth more than that, the most first."""
    good = np.flatnonzero(worth > above)
    if len(good) > 1:
        good = good[(-worth[good]).argsort(kind="stable")]
    found: list[int] = good.tolist()
    return found
