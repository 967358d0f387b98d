"""What each node must run, made from the state alone: full assignments, never deltas."""

from collections.abc import Mapping

from controlplane.domain.ids import NodeId
from controlplane.domain.launch import Launch
from controlplane.domain.placement import LaunchUnit
from controlplane.domain.record import Intent, JobRecord, NodeRecord
from controlplane.engine.state import ClusterState


def launches_of(record: JobRecord) -> Mapping[NodeId, Launch]:
    """The parts of a job's present attempt, by node. A unit stays until its exit is known."""
    attempt = record.attempt
    if attempt is None:
        return {}
    units: dict[NodeId, list[LaunchUnit]] = {}
    released = {known.unit for known in attempt.exits}
    for unit in attempt.placement.units:
        if unit.index not in released:
            units.setdefault(unit.node, []).append(unit)
    job = record.job
    return {
        node: Launch(
            uid=job.uid,
            attempt=attempt.number,
            intent=attempt.intent,
            units=tuple(mine),
            namespace=job.namespace,
            job_name=job.name,
            generation=attempt.generation,
            manifest_json=attempt.manifest_json or job.spec.manifest_json,
            plan=attempt.placement.plan,
            ranks_total=attempt.placement.plan.ranks,
            units_total=len(attempt.placement.units),
            rendezvous=attempt.rendezvous,
        )
        for node, mine in units.items()
    }


def extra_launches(state: ClusterState, node: NodeRecord) -> tuple[Launch, ...]:
    """Strays of the node that shall end, and checkpoints that it shall remove.

    A stray of a job that the store does not know is kept until someone orders its end.
    """
    ends = [
        Launch(
            uid=stray.uid,
            attempt=stray.attempt,
            intent=Intent.END,
            units=(LaunchUnit(stray.unit, node.id, stray.accelerators, first_rank=0),),
        )
        for stray in node.strays
        if stray.uid in state.jobs or stray.uid in state.unwanted
    ]
    purges = [
        Launch(
            uid=uid,
            attempt=purge.attempt,
            intent=Intent.END,
            units=(),
            manifest_json=purge.manifest_json,
            purge=True,
        )
        for uid, purge in state.purges.items()
        if purge.node == node.id
    ]
    return (*ends, *purges)
