"""What changes of plan or place cost so far, by model and numbers of accelerators."""

from dataclasses import dataclass

from controlplane.domain.clock import Instant
from controlplane.domain.switch import Switch, SwitchKind

PAID_KEPT = 64
"""So many of the last prices give the quantiles, so that these follow what has changed since."""


@dataclass(frozen=True, slots=True)
class SwitchPrice:
    """What switches of one sort cost: for how long jobs did not train.

    Attributes:
        model: What the jobs trained; see ``headrace.api.model_choice.model_name``.
        accelerators_before: Held before.
        accelerators_after: Held after.
        kind: How it was done.
        count: Switches so far.
        seconds: Their prices together.
        last: The last prices in seconds, newest last.
        last_at: When the last one was over.
    """

    model: str
    accelerators_before: int
    accelerators_after: int
    kind: SwitchKind
    count: int = 0
    seconds: float = 0.0
    last: tuple[float, ...] = ()
    last_at: Instant = Instant(0)

    def quantile(self, share: float) -> float:
        """The price that this share of the last ones did not exceed, interpolated."""
        ordered = sorted(self.last)
        place = share * (len(ordered) - 1)
        below = int(place)
        above = min(below + 1, len(ordered) - 1)
        return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def sort_of(model: str, before: int, after: int, kind: SwitchKind) -> str:
    """Under which prices of such switches are found."""
    return f"{model} {before} -> {after} {kind}"


def price_of(switch: Switch) -> float:
    """For how long the job did not train for it. How long a restart waited until its accelerators
    were there is left out: that is the doing of whoever held them.
    """
    waited = sum(seconds for name, seconds in switch.phases if name == "wait")
    if switch.kind is SwitchKind.RESTART:
        return max(0.0, switch.stood_still_seconds - waited)
    return switch.stood_still_seconds
