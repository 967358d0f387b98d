"""Finds nodes for a job that is to lie just so: 8 accelerators of one node, or 4 of each of six.

Step times that were measured hold for certain shares only, so who chooses by them places by them.
"""

from collections.abc import Mapping

from controlplane.domain.ids import NodeId
from controlplane.domain.job import JobSpec, Topology
from controlplane.domain.placement import Placement
from controlplane.domain.step_times import Shares
from controlplane.placing.capacity import Capacity, Shape
from controlplane.placing.layout import placement_under
from controlplane.placing.racks import NO_RACKS, Racks
from headrace.api.plan import ExecutionPlan


def nodes_for(
    shares: Shares,
    free: Mapping[NodeId, int],
    racks: Mapping[NodeId, str] = NO_RACKS,
    topology: Topology = Topology.ANY,
) -> tuple[NodeId, ...] | None:
    """A node of its own for each share; None if there are not enough nodes with as much. Of equals
    the one that stands first in ``free``; see ``Racks.find``.

    Args:
        shares: Accelerators wanted of each node, most first.
        free: What is left of each node.
        racks: The rack of each node that tells one.
        topology: How far apart they may be.
    """
    nodes = Racks(racks)
    for name, count in free.items():
        nodes.add(name, count)
    return nodes.find(shares, None, topology)


def exists(shape: Shape, kind: str, shares: Shares) -> bool:
    """Whether there are as many nodes as large together, whoever has them now.

    Args:
        shape: The nodes that a job may have together.
        kind: Type of the accelerators.
        shares: Accelerators wanted of each node, most first.
    """
    return any(
        all(
            sum(nodes for size, nodes in sizes if size >= share) > place
            for place, share in enumerate(shares)
        )
        for sizes in dict(shape)[kind]
    )


def shares_of(placement: Placement) -> Shares:
    """How the placement's accelerators lie: how many of each node, most first."""
    counts: dict[NodeId, int] = {}
    for unit in placement.units:
        counts[unit.node] = counts.get(unit.node, 0) + len(unit.accelerators)
    return tuple(sorted(counts.values(), reverse=True))


def placed(
    spec: JobSpec, plan: ExecutionPlan, shares: Shares, capacity: Capacity
) -> Placement | None:
    """The job under this plan on accelerators that lie so, which are used up; None, and nothing
    used, if there are none.

    Args:
        spec: Of the job.
        plan: Of as many ranks; its tensor-parallel groups divide each share.
        shares: Accelerators wanted of each node, most first.
        capacity: What is left.
    """
    found = capacity.find(spec.accelerators, shares)
    if found is None:
        return None
    kind, names = found
    counts = dict(zip(names, shares, strict=True))
    return placement_under(spec, plan, capacity.take(kind, counts, plan.tensor_parallel).parts)
