"""What it costs a job to change, as changes of its model did."""

from collections.abc import Iterable
from dataclasses import dataclass

from controlplane.domain.switch import SwitchKind
from controlplane.domain.switch_price import SwitchPrice


@dataclass(frozen=True, slots=True)
class ChangePrice:
    """Seconds for which a job does not train.

    Attributes:
        in_memory: For another plan, or more or fewer accelerators, where its ranks can stay.
        restart: For what is elsewhere: other nodes, or another type of accelerators.
    """

    in_memory: float
    restart: float

    @property
    def differs(self) -> bool:
        """Whether the one is dearer than the other."""
        return self.restart > self.in_memory


def price_of_changes(paid: Iterable[SwitchPrice], expected_seconds: float) -> ChangePrice:
    """What changes of each kind are taken to cost: what the dearest sort of them (so many
    accelerators to so many) cost in the median. To grow is dearer than to shrink, and who shrinks
    for a little will grow again.

    Where no change in memory was seen it is taken for as dear as a restart, with which it ends if
    it fails; where no restart was seen, for what is expected, and never for less than a change in
    memory.

    Args:
        paid: What changes of the model cost so far.
        expected_seconds: What is expected where none was seen.
    """
    dearest: dict[SwitchKind, float] = {}
    for each in paid:
        if each.last:
            dearest[each.kind] = max(dearest.get(each.kind, 0.0), each.quantile(0.5))
    restart = dearest.get(SwitchKind.RESTART, expected_seconds)
    in_memory = dearest.get(SwitchKind.MEMORY, restart)
    return ChangePrice(in_memory, max(restart, in_memory))
