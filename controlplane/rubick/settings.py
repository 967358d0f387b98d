"""The knobs of the policy, each with its range and what it trades."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class RubickSettings:
    """What people may turn.

    Attributes:
        patience_seconds: What it is worth that a job runs now and not later, in seconds of its
            completion time: with little patience jobs wait for a good place, with much they take
            what there is.
        patience_share: The same as a share of the time that the job needs at best; what is larger
            counts. Long jobs rather run slowly than wait.
        shortest_first: How much short jobs come before long ones: with 1, what a job gains is
            weighed by the time that it still needs; with 0 not at all.
        switch_seconds: What a change of plan or place costs while none was observed.
        cool_down_seconds: So long after a start or change a job is left in peace.
        least_gain: A running job is changed for its own good only if that saves this share of the
            time that it still needs.
        starving_seconds: A job that stood still for so long in all is served before others, the
            one that began to starve first coming first, and is not displaced.
        starving_share: The share of the accelerators that starving jobs may hold together.
        displaced_at_most: So many jobs at most are displaced for one.
        attempts: So many times at most the round tries to displace others: its budget, counted in
            work and not in time, so that the round stays a pure function.
        search_nodes: So many nodes of a search tree at most are looked at to improve what was dealt
            (``rubick.search``); 0 for no search.
    """

    patience_seconds: float = 900.0
    patience_share: float = 0.3
    shortest_first: float = 1.0
    switch_seconds: float = 78.0
    cool_down_seconds: float = 300.0
    least_gain: float = 0.1
    starving_seconds: float = 21_600.0
    starving_share: float = 0.5
    displaced_at_most: int = 8
    attempts: int = 400
    search_nodes: int = 0

    def __post_init__(self) -> None:
        for item in fields(self):
            value, (low, high) = getattr(self, item.name), RANGES[item.name]
            if not low <= value <= high:
                raise ValueError(f"{item.name}: wanted {low:g} to {high:g}, got {value:g}")


RANGES: dict[str, tuple[float, float]] = {
    "patience_seconds": (1.0, 1e6),
    "patience_share": (0.0, 100.0),
    "shortest_first": (0.0, 1.0),
    "switch_seconds": (0.0, 86_400.0),
    "cool_down_seconds": (0.0, 86_400.0),
    "least_gain": (0.0, 10.0),
    "starving_seconds": (0.0, 1e9),
    "starving_share": (0.0, 1.0),
    "displaced_at_most": (0, 1000),
    "attempts": (0, 1_000_000),
    "search_nodes": (0, 1_000_000),
}
