"""What the report is made from, as plain frozen values: no protobuf, no network.

Instants are nanoseconds since 1970 UTC, as the control plane's clock told them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class EventFact:
    """One event of the control plane's log.

    Attributes:
        sequence: Its position in the log.
        body: The event as the log holds it, decoded from JSON; ``kind`` says which.
    """

    sequence: int
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LossFact:
    """The training loss of one step, as one attempt computed it."""

    step: int
    loss: float
    attempt: int
    at_ns: int = 0


@dataclass(frozen=True, slots=True)
class JobFact:
    """A job as the control plane shows it now.

    Attributes:
        uid: Its identity.
        namespace: Where its name is unique.
        name: What people call it.
        stage: Where it stands, e.g. ``Running``.
        plan: Short form of the plan it runs under; empty while it holds nothing.
        step: Optimizer steps done.
        steps_total: Steps until it is done; 0 where unknown.
        held_accelerator_seconds: What the control plane has counted.
        reason: Why it stands there, for people.
        finished_ns: When it ended, however; None while it has not.
    """

    uid: str
    namespace: str
    name: str
    stage: str
    plan: str = ""
    step: int = 0
    steps_total: int = 0
    held_accelerator_seconds: float = 0.0
    reason: str = ""
    finished_ns: int | None = None


@dataclass(frozen=True, slots=True)
class AcceleratorFact:
    """An accelerator of a node; ``unhealthy`` says why it is quarantined."""

    id: str
    type: str = ""
    unhealthy: str = ""


@dataclass(frozen=True, slots=True)
class NodeFact:
    """A node as the control plane shows it now."""

    name: str
    accelerators: tuple[AcceleratorFact, ...]
    contact: str = "Online"
    drained: bool = False
    address: str = ""


@dataclass(frozen=True, slots=True)
class ClusterFact:
    """The cluster as a whole.

    Attributes:
        version: Version of the control plane.
        policy: Name of the policy that decides.
        term: Reign of the present decider.
        state: ``deciding``, or what keeps it from that.
        now_ns: The control plane's time when it was asked.
    """

    version: str = ""
    policy: str = ""
    term: int = 0
    state: str = ""
    now_ns: int = 0


@dataclass(frozen=True, slots=True)
class ReportFacts:
    """All that a report is made from."""

    events: tuple[EventFact, ...] = ()
    jobs: tuple[JobFact, ...] = ()
    nodes: tuple[NodeFact, ...] = ()
    losses: Mapping[str, tuple[LossFact, ...]] = field(default_factory=dict)
    cluster: ClusterFact = field(default_factory=ClusterFact)
