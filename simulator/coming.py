"""What is to come in the virtual cluster, beside events."""

from dataclasses import dataclass

from controlplane.domain.event import Event, NodeLost, NodeRegistered
from controlplane.domain.ids import JobUid
from simulator.results.allocation_log import Row


@dataclass(frozen=True, slots=True)
class Tick:
    """A run reports how far it is, and again later; unless there is a newer one by then."""

    uid: JobUid
    version: int


@dataclass(frozen=True, slots=True)
class End:
    """A run has done its last step, or fails."""

    uid: JobUid
    version: int


@dataclass(frozen=True, slots=True)
class Tells:
    """A run's ranks tell what a step takes; unless there is a newer run by then."""

    uid: JobUid
    version: int


@dataclass(frozen=True, slots=True)
class Noted:
    """Something becomes part of the allocation log."""

    row: Row


@dataclass(frozen=True, slots=True)
class OfRun:
    """A message that is not sent if the run is not the present one any more."""

    event: Event
    uid: JobUid
    version: int


Coming = Event | Tick | End | Tells | Noted | OfRun


def is_message(what: Coming) -> bool:
    """Whether it is something that an agent or a user tells, which may be late or come twice."""
    return not isinstance(what, NodeLost | NodeRegistered | Tick | End | Tells | Noted)
