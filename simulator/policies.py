"""Policies by name, each made for the step times that it may ask.

What compares policies takes them from here, so a policy that is to be compared joins here.
"""

from collections.abc import Callable, Mapping, Sequence

from controlplane.baselines.fifo_by_request import fifo_by_request
from controlplane.domain.policy import Policy
from controlplane.domain.step_times import StepTimes
from controlplane.rubick.policy import Rubick

PolicyMaker = Callable[[StepTimes], Policy]
"""Makes a policy that asks these step times: a table that was measured, or a model."""

POLICIES: Mapping[str, PolicyMaker] = {
    "fifo": lambda times: fifo_by_request(times, skip=False),
    "fifo-skip": lambda times: fifo_by_request(times, skip=True),
    "rubick": lambda times: Rubick(times),
}
"""``fifo``: strict, and ``fifo-skip``: passing over what does not fit; both on exact requests."""


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


def policy_named(name: str, times: StepTimes) -> Policy:
    """The policy of that name.

    Raises:
        ValueError: There is none.
    """
    maker = POLICIES.get(name)
    if maker is None:
        raise ValueError(f"wanted a policy of {', '.join(sorted(POLICIES))}, got {name!r}")
    return maker(times)
