"""Policies by name, each made for the step times that it may ask and for what a switch takes.

What compares policies takes them from here, so a policy that is to be compared joins here.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from controlplane.baselines import baselines
from controlplane.baselines.fifo import Fifo
from controlplane.domain.policy import Policy
from controlplane.domain.step_times import StepTimes
from controlplane.rubick.freedom import Freedom
from controlplane.rubick.policy import Rubick
from controlplane.rubick.settings import RubickSettings

PolicyMaker = Callable[[StepTimes, float], Policy]
"""Makes a policy that asks these step times (a table that was measured, or a model), where a start
or a change takes so many seconds.
"""


def _baseline(name: str) -> PolicyMaker:
    return lambda times, switch: baselines(times, switch)[name]


def _rubick(freedom: Freedom = Freedom.EVERYTHING, **knobs: Any) -> PolicyMaker:
    return lambda times, switch: Rubick(
        lambda _: times, RubickSettings(switch_seconds=switch, **knobs), freedom
    )


POLICIES: Mapping[str, PolicyMaker] = {
    "fifo": lambda times, _: Fifo(times),
    "fifo-skip": lambda times, _: Fifo(times, skip=True),
    "equal-share": _baseline("equal-share-measured"),
    "sia": _baseline("sia"),
    "sia-dp3d": _baseline("sia-dp3d"),
    "sia-bootstrap": _baseline("sia-bootstrap"),
    "synergy": _baseline("synergy"),
    "antman": _baseline("antman"),
    "rubick": _rubick(),
    "rubick-e": _rubick(Freedom.PLANS),
    "rubick-r": _rubick(Freedom.ACCELERATORS),
    "rubick-n": _rubick(Freedom.NOTHING),
    "rubick-search": _rubick(search_beside_nodes=1000),
    "rubick-no-gate": _rubick(cool_down_seconds=0.0, least_gain=0.0),
    "rubick-5-changes": _rubick(cool_down_seconds=0.0, least_gain=0.0, changes_at_most=5),
}
"""``fifo`` is strict and ``fifo-skip`` passes over what does not fit, both on exact requests; what
the others are is told where they are written.
"""


def policies_among(asked: Sequence[str]) -> list[str]:
    """The names in what was asked for, each once; commas part names.

    Raises:
        ValueError: There is no policy of one of the names.
    """
    names = [name.strip() for text in asked for name in text.split(",")]
    for name in names:
        if name not in POLICIES:
            raise ValueError(f"wanted policies of {', '.join(sorted(POLICIES))}, got {name!r}")
    return list(dict.fromkeys(names))


def policy_named(name: str, times: StepTimes, switch_seconds: float) -> Policy:
    """The policy of that name.

    Raises:
        ValueError: There is none.
    """
    (known,) = policies_among([name])
    return POLICIES[known](times, switch_seconds)


def assumptions_of(policy: Policy) -> tuple[str, ...]:
    """What a policy assumes where its paper is silent, to be printed with every result."""
    told: tuple[str, ...] = getattr(policy, "assumptions", ())
    return told
