"""Chance as a function of a seed and names, so that one job more does not shift others' luck."""

from hashlib import blake2b


def draw(seed: int, *names: object) -> float:
    """A number in [0, 1) that depends on nothing but ``seed`` and ``names``."""
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) / 2.0**64


def draw_between(low: float, high: float, seed: int, *names: object) -> float:
    """A number in [low, high)."""
    return low + (high - low) * draw(seed, *names)
