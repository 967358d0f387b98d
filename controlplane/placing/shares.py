"""Finds nodes for a job that is to lie just so: 8 accelerators of one node, or 4 of each of six.

Step times that were measured hold for certain shares only, so who chooses by them places by them.
"""

from collections.abc import Mapping

from controlplane.domain.ids import NodeId
from controlplane.domain.job import JobSpec
from controlplane.domain.placement import Placement
from controlplane.domain.step_times import Shares
from controlplane.placing.capacity import Capacity, Holding
from controlplane.placing.layout import placement_under
from headrace.api.plan import ExecutionPlan


def nodes_for(shares: Shares, free: Mapping[NodeId, int]) -> tuple[NodeId, ...] | None:
    """A node of its own for each share; None if there are not enough nodes with as much.

    Best fit: each share, the largest first, gets the node that has the fewest left and still
    enough; of equals the one that stands first in ``free``. Whatever fits at all is found, because
    a node that holds the largest share holds any other as well.

    Args:
        shares: Accelerators wanted of each node, most first.
        free: What is left of each node.
    """
    chosen: list[NodeId] = []
    candidates = sorted(
        (name for name, count in free.items() if count >= shares[-1]), key=free.__getitem__
    )
    for share in shares:
        # Sorting keeps the order of equals, so the first that is large enough is the best fit.
        name = next((each for each in candidates if free[each] >= share), None)
        if name is None:
            return None
        chosen.append(name)
        candidates.remove(name)
    return tuple(chosen)


def shares_of(placement: Placement) -> Shares:
    """How the placement's accelerators lie: how many of each node, most first."""
    counts: dict[NodeId, int] = {}
    for unit in placement.units:
        counts[unit.node] = counts.get(unit.node, 0) + len(unit.accelerators)
    return tuple(sorted(counts.values(), reverse=True))


def holding_for(spec: JobSpec, shares: Shares, capacity: Capacity) -> Holding | None:
    """Uses up accelerators that lie so, of nodes that the job may use; None, and nothing used, if
    there are none. Of several types it takes the one with the least left over.

    Args:
        spec: Of the job.
        shares: Accelerators wanted of each node, most first.
        capacity: What is left.
    """
    kinds = capacity.free_by_node(spec.accelerators)
    for kind, free in sorted(kinds.items(), key=lambda each: sum(each[1].values())):
        names = nodes_for(shares, free)
        if names is not None:
            return capacity.take(kind, dict(zip(names, shares, strict=True)))
    return None


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
    holding = holding_for(spec, shares, capacity)
    return None if holding is None else placement_under(spec, plan, holding.parts)
