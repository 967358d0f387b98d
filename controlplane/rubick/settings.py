"""The knobs of the policy, each with its range and what it trades."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from controlplane.domain.knob import Knob

_PREFIX = "rubick."


def _knob(default: float, low: float, high: float, meaning: str) -> Any:
    told = Knob("", default, low, high, meaning, whole=isinstance(default, int))
    return field(default=default, metadata={"knob": told})


@dataclass(frozen=True, slots=True)
class RubickSettings:
    """What people may turn. What each does is said beside it, for them to read too."""

    patience_seconds: float = _knob(
        900.0,
        1.0,
        1e6,
        "What it is worth that a job runs now and not later, in seconds of its completion time: "
        "with little patience jobs wait for a good place, with much they take what there is.",
    )
    patience_share: float = _knob(
        0.3,
        0.0,
        100.0,
        "The same as a share of the time that the job needs at best; what is larger counts. Long "
        "jobs rather run slowly than wait.",
    )
    shortest_first: float = _knob(
        1.0,
        0.0,
        1.0,
        "How much short jobs come before long ones: with 1, what a job gains is weighed by the "
        "time that it still needs; with 0 not at all.",
    )
    switch_seconds: float = _knob(
        78.0,
        0.0,
        86_400.0,
        "What a change of plan or place costs while none was observed.",
    )
    cool_down_seconds: float = _knob(
        300.0,
        0.0,
        86_400.0,
        "So long after a start or change a job is left in peace. With less than a switch takes, "
        "jobs can displace each other for ever before they have trained.",
    )
    changes_at_most: int = _knob(
        0,
        0,
        1_000_000,
        "So many times at most a job is changed, as the artifact of the paper has it; 0 for no "
        "limit.",
    )
    least_gain: float = _knob(
        0.1,
        0.0,
        10.0,
        "A running job is changed for its own good only if that saves this share of the time that "
        "it still needs.",
    )
    starving_seconds: float = _knob(
        21_600.0,
        0.0,
        1e9,
        "A job that stood still for so long, at a stretch or in all beyond what it ran, is served "
        "before others, and is not displaced for as long again once it runs. After twice as long "
        "it takes what it needs from all that are promised nothing.",
    )
    starving_share: float = _knob(
        0.5,
        0.0,
        1.0,
        "The share of the accelerators that starving jobs may hold together.",
    )
    displaced_at_most: int = _knob(8, 0, 1000, "So many jobs at most are displaced for one.")
    attempts: int = _knob(
        400,
        0,
        1_000_000,
        "So many times at most a round tries to displace others: its budget, counted in work and "
        "not in time, so that the round stays a pure function.",
    )
    search_nodes: int = _knob(
        0,
        0,
        1_000_000,
        "So many nodes of a search tree at most are looked at to improve what was dealt; 0 for no "
        "search.",
    )
    search_beside_nodes: int = _knob(
        0,
        0,
        1_000_000,
        "So many nodes of a search tree at most are looked at beside the loop, while rounds go on; "
        "what is found is proposed to a later round. 0 for no such search, and then no proposal is "
        "looked at.",
    )
    search_beside_gain: float = _knob(
        0.01,
        0.0,
        1.0,
        "A search beside the loop is begun only if the last round may be this share too low, and "
        "proposed only if it gains this share: less is lost in the errors of predictions.",
    )

    try_plans_at_most: int = _knob(
        0,
        0,
        16,
        "So many times at most a running job tries another plan, or more of its node's free "
        "accelerators, for some steps, to learn what its type of model takes; 0 for never.",
    )
    try_share: float = _knob(
        0.02,
        0.0,
        1.0,
        "The share of the time that a job still needs that it may lose by trying one plan, at the "
        "upper end of what is predicted.",
    )
    try_least_worth: float = _knob(
        2.0,
        0.0,
        1000.0,
        "A plan is tried only if what is learnt is worth so many times its price.",
    )

    def __post_init__(self) -> None:
        for item in fields(self):
            value, knob = getattr(self, item.name), item.metadata["knob"]
            if not knob.low <= value <= knob.high:
                raise ValueError(
                    f"{item.name}: wanted {knob.low:g} to {knob.high:g}, got {value:g}"
                )

    @property
    def knobs(self) -> tuple[Knob, ...]:
        """The knobs under their whole names, with these settings for defaults."""
        return tuple(
            replace(
                item.metadata["knob"],
                name=_PREFIX + item.name,
                default=getattr(self, item.name),
            )
            for item in fields(self)
        )

    def turned(self, knobs: Mapping[str, float]) -> "RubickSettings":
        """These settings but for what people set.

        Args:
            knobs: By whole name; those of others are left alone.
        """
        if not any(name.startswith(_PREFIX) for name in knobs):
            return self
        found = {knob.name.removeprefix(_PREFIX): knob.value_in(knobs) for knob in self.knobs}
        return RubickSettings(**found)  # type: ignore[arg-type]


LIVE = RubickSettings(
    switch_seconds=30.0,
    cool_down_seconds=30.0,
    least_gain=0.25,
    search_beside_nodes=1000,
    try_plans_at_most=4,
)
"""Those of a live cluster, whose jobs mostly change in memory and stand still for seconds; so it
pays to try plans (docs/systems/rubick.md). What a measured table says is not believed but known, so
nothing is tried by it. What is predicted of jobs follows from a few measured steps and may well be
off by a fifth; with a smaller gain jobs go to and fro with each fit. What a search costs there is a
tenth of a core at most, beside the loop.
"""
