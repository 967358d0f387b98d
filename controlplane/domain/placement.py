"""Where a job runs: each launch unit's node, accelerators, CPU cores and host memory."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from controlplane.domain.ids import AcceleratorId, NodeId
from headrace.api.plan import ExecutionPlan


@dataclass(frozen=True, slots=True)
class LaunchUnit:
    """What one actor runs: one rank, or one node's ``torchrun`` with several accelerators.

    Attributes:
        index: Its name within the attempt: its position when the attempt starts, and a number that
            was not used before if it joins later. Unit 0 hosts the rendezvous.
        node: Node it runs on.
        accelerators: Accelerators it may touch.
        first_rank: Global rank of its first process.
        cpu_cores: Core numbers it is pinned to; empty leaves it unpinned.
        host_memory_bytes: Host memory meant for it; 0 where unknown.
        joins: Whether the others of its attempt trained already when it was ordered.
    """

    index: int
    node: NodeId
    accelerators: tuple[AcceleratorId, ...]
    first_rank: int
    cpu_cores: tuple[int, ...] = ()
    host_memory_bytes: int = 0
    joins: bool = False

    @property
    def place(self) -> tuple[NodeId, tuple[AcceleratorId, ...]]:
        """What it holds."""
        return self.node, self.accelerators


@dataclass(frozen=True, slots=True)
class Placement:
    """A plan laid out over accelerators."""

    plan: ExecutionPlan
    units: tuple[LaunchUnit, ...]

    @property
    def accelerator_count(self) -> int:
        """Accelerators held."""
        return sum(len(unit.accelerators) for unit in self.units)

    @property
    def anew(self) -> "Placement":
        """The same place for another attempt, whose launch units are numbered from 0."""
        if all(unit.index == i and not unit.joins for i, unit in enumerate(self.units)):
            return self
        # Ranks that joined came last, wherever they are; now neighbours may be neighbours again.
        nodes = list(dict.fromkeys(unit.node for unit in self.units))
        units: list[LaunchUnit] = []
        rank = 0
        for unit in sorted(self.units, key=lambda unit: nodes.index(unit.node)):
            units.append(replace(unit, index=len(units), first_rank=rank, joins=False))
            rank += len(unit.accelerators)
        return Placement(self.plan, tuple(units))

    @property
    def nodes(self) -> frozenset[NodeId]:
        """Nodes it spans."""
        return frozenset(unit.node for unit in self.units)

    def slots(self) -> Iterator[tuple[NodeId, AcceleratorId]]:
        """Each accelerator held, with its node."""
        for unit in self.units:
            for accelerator in unit.accelerators:
                yield unit.node, accelerator

    def by_node(self) -> dict[NodeId, list[AcceleratorId]]:
        """The accelerators held of each node."""
        held: dict[NodeId, list[AcceleratorId]] = {}
        for unit in self.units:
            held.setdefault(unit.node, []).extend(unit.accelerators)
        return held
