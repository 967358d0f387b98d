"""What each node must run, made from the state alone: full assignments, never deltas."""

from collections.abc import Iterator, Mapping, Sequence

from controlplane.domain.ids import NodeId
from controlplane.domain.job import Job
from controlplane.domain.launch import Launch
from controlplane.domain.placement import LaunchUnit
from controlplane.domain.record import AttemptRecord, Intent, JobRecord, NodeRecord
from controlplane.engine.state import ClusterState


def launches_of(record: JobRecord) -> Mapping[NodeId, tuple[Launch, ...]]:
    """The parts of a job's present attempt, by node. A unit stays until its exit is known."""
    attempt = record.attempt
    if attempt is None:
        return {}
    launches: dict[NodeId, tuple[Launch, ...]] = {}
    for units, intent in _with_intents(attempt):
        for node, mine in _by_node(attempt, units).items():
            launch = _launch(record.job, attempt, intent, mine)
            launches[node] = (*launches.get(node, ()), launch)
    return launches


def _with_intents(attempt: AttemptRecord) -> Iterator[tuple[Sequence[LaunchUnit], Intent]]:
    """The attempt's units, and what shall become of them."""
    yield attempt.placement.units, attempt.intent
    if attempt.leaving:
        yield attempt.leaving, _intent_with_leaving(attempt)


def _intent_with_leaving(attempt: AttemptRecord) -> Intent:
    """They take part in the change that they leave by. Once it is over nobody misses them."""
    if attempt.intent is not Intent.RUN:
        return attempt.intent
    if attempt.plan_change is None:
        return Intent.END
    # Those that were to join, and need not any more, know best themselves whether they have.
    return Intent.STOP if attempt.plan_change.given_up else Intent.RUN


def _by_node(
    attempt: AttemptRecord, units: Sequence[LaunchUnit]
) -> Mapping[NodeId, list[LaunchUnit]]:
    found: dict[NodeId, list[LaunchUnit]] = {}
    released = {known.unit for known in attempt.exits}
    for unit in units:
        if unit.index not in released:
            found.setdefault(unit.node, []).append(unit)
    return found


def _launch(
    job: Job, attempt: AttemptRecord, intent: Intent, units: Sequence[LaunchUnit]
) -> Launch:
    return Launch(
        uid=job.uid,
        attempt=attempt.number,
        intent=intent,
        units=tuple(units),
        namespace=job.namespace,
        job_name=job.name,
        generation=attempt.generation,
        manifest_json=attempt.manifest_json or job.spec.manifest_json,
        plan=attempt.placement.plan,
        ranks_total=attempt.placement.plan.ranks,
        units_total=len(attempt.placement.units),
        rendezvous=attempt.rendezvous,
        own_pod=job.spec.own_pod,
    )


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
