"""Which box of which tensor a rank holds, and what must move when that changes. Pure; no torch."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Box:
    """A box of a tensor: from ``low`` up to ``high``, not included, in every dimension."""

    low: tuple[int, ...]
    high: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the box."""
        return tuple(high - low for low, high in zip(self.low, self.high, strict=True))

    @property
    def elements(self) -> int:
        """Numbers in it; one for a scalar."""
        return math.prod(self.shape)

    def meet(self, other: "Box") -> "Box | None":
        """What both have."""
        low = tuple(map(max, self.low, other.low))
        high = tuple(map(min, self.high, other.high))
        if all(start < end for start, end in zip(low, high, strict=True)):
            return Box(low, high)
        return None

    def within(self, holder: "Box") -> tuple[slice, ...]:
        """Where this box lies in the local tensor that stands for ``holder``."""
        return tuple(
            slice(low - origin, high - origin)
            for low, high, origin in zip(self.low, self.high, holder.low, strict=True)
        )

    def without(self, part: "Box") -> Iterator["Box"]:
        """What remains when ``part``, which lies inside, is taken out, as disjoint boxes."""
        low, high = list(self.low), list(self.high)
        for axis in range(len(low)):
            if low[axis] < part.low[axis]:
                yield Box(tuple(low), (*high[:axis], part.low[axis], *high[axis + 1 :]))
            if part.high[axis] < high[axis]:
                yield Box((*low[:axis], part.high[axis], *low[axis + 1 :]), tuple(high))
            low[axis], high[axis] = part.low[axis], part.high[axis]


@dataclass(frozen=True, slots=True)
class Move:
    """A box that goes from one rank to another, or to the new tensor of the same rank."""

    name: str
    source: int
    destination: int
    box: Box


def chunk(length: int, parts: int, index: int) -> tuple[int, int]:
    """Start and end of a part when torch divides ``length``: all equal, the last ones short."""
    each = math.ceil(length / parts)
    return min(index * each, length), min((index + 1) * each, length)


def dealt(sizes: Mapping[str, int], hands: int) -> list[set[str]]:
    """Names dealt out so that all hands have about as much: the largest first, to who has least."""
    found: list[set[str]] = [set() for _ in range(hands)]
    heights = [0] * hands
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        least = heights.index(min(heights))
        found[least].add(name)
        heights[least] += sizes[name]
    return found


def box_of(
    shape: Sequence[int], *, cut: int | None, slices: int, part: int, shards: int, shard: int
) -> Box:
    """What a rank holds of a tensor.

    Args:
        shape: Shape of the whole tensor.
        cut: Dimension that tensor parallelism divides; None for none.
        slices: Number of tensor-parallel ranks.
        part: Which of them.
        shards: Number of ranks over which ZeRO divides the first dimension of what is left.
        shard: Which of them.
    """
    low, high = [0] * len(shape), list(shape)
    if cut is not None:
        low[cut], high[cut] = chunk(shape[cut], slices, part)
    if shards > 1 and shape:
        start, end = chunk(high[0] - low[0], shards, shard)
        low[0], high[0] = low[0] + start, low[0] + end
    return Box(tuple(low), tuple(high))


def moves(
    before: Sequence[Mapping[str, Box]], after: Sequence[Mapping[str, Box]], names: Sequence[str]
) -> Iterator[Move]:
    """Cover what every rank shall hold by pieces of what the ranks held.

    A rank takes what it has itself; the rest comes from the next ranks that have it, so that
    replicas share the sending.

    Args:
        before: For each rank, what it held.
        after: For each rank, what it shall hold.
        names: Tensors, in the order in which they move.

    Raises:
        ValueError: Nobody holds some of it.
    """
    for name in names:
        holders = [(rank, held[name]) for rank, held in enumerate(before) if name in held]
        for rank, wanted in enumerate(after):
            if name in wanted:
                yield from _covered(name, rank, wanted[name], holders, len(before))


def _covered(
    name: str, rank: int, wanted: Box, holders: Sequence[tuple[int, Box]], ranks: int
) -> Iterator[Move]:
    missing = [wanted] if wanted.elements else []
    for source, box in sorted(holders, key=lambda held: (held[0] - rank) % ranks):
        still: list[Box] = []
        for piece in missing:
            common = piece.meet(box)
            if common is None:
                still.append(piece)
                continue
            yield Move(name, source, rank, common)
            still += piece.without(common)
        missing = still
        if not missing:
            return
    if missing:
        raise ValueError(f"nobody holds {name} {missing[0]}")
