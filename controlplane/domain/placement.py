"""Where a job runs: each launch unit's node, accelerators, CPU cores and host memory."""

from collections.abc import Iterator
from dataclasses import dataclass

from controlplane.domain.ids import AcceleratorId, NodeId
from headrace.api.plan import ExecutionPlan


@dataclass(frozen=True, slots=True)
class LaunchUnit:
    """What one actor runs: one rank, or one node's ``torchrun`` with several accelerators.

    Attributes:
        index: Position in the placement, from 0. Unit 0 hosts the rendezvous.
        node: Node it runs on.
        accelerators: Accelerators it may touch.
        first_rank: Global rank of its first process.
        cpu_cores: Core numbers it is pinned to; empty leaves it unpinned.
        host_memory_bytes: Host memory meant for it; 0 where unknown.
    """

    index: int
    node: NodeId
    accelerators: tuple[AcceleratorId, ...]
    first_rank: int
    cpu_cores: tuple[int, ...] = ()
    host_memory_bytes: int = 0


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
