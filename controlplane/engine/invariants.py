"""What must hold of every set of orders, whoever made it. Shares no code with cycle or policies.

Runs in production, in the simulator and in property tests. Orders that break one of these are
not carried out.
"""

from collections import Counter
from collections.abc import Iterator

from controlplane.domain.action import Action, ChangePlan, StartAttempt, StopAttempt
from controlplane.domain.ids import JobUid, NodeId
from controlplane.domain.job import JobSpec, Topology
from controlplane.domain.lifecycle import Stage
from controlplane.domain.node import Contact
from controlplane.domain.placement import Placement
from controlplane.domain.record import Intent
from controlplane.domain.snapshot import ClusterSnapshot
from headrace.api.plan import ExecutionPlan


def violations(snapshot: ClusterSnapshot, actions: tuple[Action, ...]) -> Iterator[str]:
    """A sentence for every rule that ``actions`` would break in the cluster of ``snapshot``."""
    if not actions:
        return
    yield from _one_order_a_job(actions)
    starts = [action for action in actions if isinstance(action, StartAttempt)]
    yield from _no_accelerator_twice(snapshot, starts)
    yield from _no_older_attempt_alive(snapshot, starts)
    for action in actions:
        record = snapshot.jobs.get(action.uid)
        if record is None:
            yield f"{action.uid} is not a known job"
        elif isinstance(action, StopAttempt) and (
            record.attempt is None or record.attempt.number != action.attempt
        ):
            yield f"{action.uid} has no attempt {action.attempt} to stop"
        elif isinstance(action, ChangePlan):
            yield from _sound_change(snapshot, action)
        elif isinstance(action, StartAttempt):
            yield from _sound_start(snapshot, action)
    yield from _quotas(snapshot, starts)


def _one_order_a_job(actions: tuple[Action, ...]) -> Iterator[str]:
    for uid, count in Counter(action.uid for action in actions).items():
        if count > 1:
            yield f"{uid} would get {count} orders at once"


def _no_accelerator_twice(snapshot: ClusterSnapshot, starts: list[StartAttempt]) -> Iterator[str]:
    if not starts:
        return
    touched = {unit.node for start in starts for unit in start.placement.units}
    known = _condition_of_slots(snapshot, touched)
    used = _slots_in_use(snapshot, touched)
    for start in starts:
        for unit in start.placement.units:
            for accelerator_id in unit.accelerators:
                slot = (unit.node, accelerator_id)
                if slot not in known:
                    yield f"{start.uid} would get {accelerator_id} of {unit.node}, which is unknown"
                elif known[slot]:
                    yield f"{start.uid} would get {accelerator_id} of {unit.node}: {known[slot]}"
                if slot in used:
                    yield f"{accelerator_id} of {unit.node} is held by {used[slot]}"
                used[slot] = start.uid


def _no_older_attempt_alive(snapshot: ClusterSnapshot, starts: list[StartAttempt]) -> Iterator[str]:
    starting = {start.uid for start in starts}
    for node in snapshot.nodes.values() if starting else ():
        for stray in node.strays:
            if stray.uid in starting:
                yield f"{stray.uid} would start while its attempt {stray.attempt} is on {node.id}"


def _condition_of_slots(
    snapshot: ClusterSnapshot, touched: set[NodeId]
) -> dict[tuple[str, str], str]:
    """Accelerators of the touched nodes, with what speaks against them; empty if nothing does."""
    known: dict[tuple[str, str], str] = {}
    for node in (snapshot.nodes[name] for name in touched if name in snapshot.nodes):
        usable = node.contact is Contact.ONLINE and not node.drained
        problem = "" if usable else "its node cannot be used"
        for accelerator in node.node.accelerators:
            known[node.id, accelerator.id] = accelerator.unhealthy or problem
    return known


def _slots_in_use(snapshot: ClusterSnapshot, touched: set[NodeId]) -> dict[tuple[str, str], JobUid]:
    used: dict[tuple[str, str], JobUid] = {}
    for node in (snapshot.nodes[name] for name in touched if name in snapshot.nodes):
        for stray in node.strays:
            for accelerator_id in stray.accelerators:
                used[node.id, accelerator_id] = stray.uid
    for record in snapshot.jobs.values():
        if record.attempt is None:
            continue
        gone = {known_exit.unit for known_exit in record.attempt.exits}
        for unit in record.attempt.placement.units:
            if unit.node in touched and unit.index not in gone:
                for accelerator_id in unit.accelerators:
                    used[unit.node, accelerator_id] = record.uid
    return used


def _sound_start(snapshot: ClusterSnapshot, start: StartAttempt) -> Iterator[str]:
    record = snapshot.jobs[start.uid]
    if record.attempt is not None:
        yield f"{start.uid} already has attempt {record.attempt.number}"
    if record.stage not in (Stage.QUEUED, Stage.BACKING_OFF) or record.withdrawn:
        yield f"{start.uid} is not to be started, it is {record.stage}"
    if record.stage is Stage.BACKING_OFF and snapshot.at < record.backoff_until:
        yield f"{start.uid} backs off from a failure and would start too early"
    if start.attempt < record.next_attempt:
        yield f"{start.uid} had attempt {record.next_attempt - 1}, {start.attempt} is not new"
    yield from _sound_layout(record.job.spec, start)
    yield from _where_allowed(snapshot, start)


def _sound_change(snapshot: ClusterSnapshot, change: ChangePlan) -> Iterator[str]:
    record = snapshot.jobs[change.uid]
    attempt, spec = record.attempt, record.job.spec
    if attempt is None or attempt.number != change.attempt:
        yield f"{change.uid} has no attempt {change.attempt} whose plan could change"
        return
    if attempt.intent is not Intent.RUN or record.withdrawn:
        yield f"{change.uid} is being stopped and takes up no other plan"
    if spec.unit_per_node or not spec.steps or not spec.global_batch_size:
        yield f"{change.uid} runs its own command, whose plan is its own business"
    if attempt.plan_change is not None:
        yield f"{change.uid} has not answered yet whether it takes up {attempt.placement.plan}"
    units, exits = attempt.placement.units, attempt.exits
    if not attempt.trained or exits or len(attempt.units_up) != len(units):
        yield f"{change.uid} does not train with all its ranks, so they cannot be asked"
    if change.plan == attempt.placement.plan:
        yield f"{change.uid} runs as {change.plan} already"
    count = sum(len(unit.accelerators) for unit in units)
    if change.plan.ranks != count:
        yield f"{change.uid}: plan {change.plan} does not occupy the {count} accelerators it has"
    yield from _sound_plan(spec, change.uid, Placement(change.plan, units))


def _sound_layout(spec: JobSpec, start: StartAttempt) -> Iterator[str]:
    request, units = spec.accelerators, start.placement.units
    count = sum(len(unit.accelerators) for unit in units)
    if not request.minimum <= count <= request.maximum:
        yield (
            f"{start.uid} would get {count} accelerators, "
            f"it takes {request.minimum} to {request.maximum}"
        )
    if start.placement.plan.ranks != count:
        yield f"{start.uid}: plan {start.placement.plan} does not occupy {count} accelerators"
    if spec.unit_per_node:
        if len({unit.node for unit in units}) != len(units):
            yield f"{start.uid} runs its own command, which takes one launch unit a node"
    elif any(len(unit.accelerators) != 1 for unit in units):
        yield f"{start.uid}: each of its launch units is one rank and takes one accelerator"
    if [unit.index for unit in units] != list(range(len(units))):
        yield f"{start.uid}: its launch units are not numbered from 0"
    ranks = 0
    for unit in units:
        if unit.first_rank != ranks:
            yield f"{start.uid}: unit {unit.index} should begin at rank {ranks}"
        ranks += len(unit.accelerators)
    yield from _sound_plan(spec, start.uid, start.placement)


def _sound_plan(spec: JobSpec, uid: JobUid, placement: Placement) -> Iterator[str]:
    plan, batch = placement.plan, spec.global_batch_size
    if spec.plans and plan not in spec.plans:
        yield f"{uid}: {plan} is none of its plans"
    if not spec.plans and plan != ExecutionPlan(plan.data_parallel, plan.accumulation_steps):
        yield f"{uid} names no plans and runs data parallel, not as {plan}"
    nodes = [unit.node for unit in placement.units for _ in unit.accelerators]
    for first in range(0, len(nodes), plan.tensor_parallel):
        if len(set(nodes[first : first + plan.tensor_parallel])) > 1:
            yield f"{uid}: tensor-parallel ranks of {plan} would be on several nodes"
            break
    micro_batch, rest = divmod(batch, plan.data_parallel * plan.accumulation_steps)
    if rest:
        yield f"{uid}: batch {batch} does not divide by plan {plan}"
    if spec.micro_batch_size_max and micro_batch > spec.micro_batch_size_max:
        yield f"{uid}: plan {plan} means micro-batches of {micro_batch}, which is too many"


def _where_allowed(snapshot: ClusterSnapshot, start: StartAttempt) -> Iterator[str]:
    request = snapshot.jobs[start.uid].job.spec.accelerators
    if request.topology is Topology.SAME_NODE and len({u.node for u in start.placement.units}) > 1:
        yield f"{start.uid} must stay on one node"
    types = set()
    for unit in start.placement.units:
        record = snapshot.nodes.get(unit.node)
        if record is None:
            continue
        labels = dict(record.node.labels)
        if any(labels.get(key) != value for key, value in request.selector):
            yield f"{start.uid} does not select {unit.node}"
        for taint in record.node.taints:
            if not any(toleration.accepts(taint) for toleration in request.tolerations):
                yield f"{start.uid} does not tolerate {taint.key} of {unit.node}"
        types |= {a.type for a in record.node.accelerators if a.id in unit.accelerators}
    if len(types) > 1 or (request.type and types - {request.type}):
        yield f"{start.uid} would run on {', '.join(sorted(types))}, wanted {request.type or 'one'}"


def _quotas(snapshot: ClusterSnapshot, starts: list[StartAttempt]) -> Iterator[str]:
    touched = {
        snapshot.jobs[start.uid].job.spec.queue for start in starts if start.uid in snapshot.jobs
    }
    limited = {
        name: snapshot.queues[name].quota_accelerators
        for name in touched
        if name in snapshot.queues
    }
    limits = {name: quota for name, quota in limited.items() if quota is not None}
    if not limits:
        return
    held: Counter[str] = Counter()
    for record in snapshot.jobs.values():
        if record.attempt is not None:
            gone = {known_exit.unit for known_exit in record.attempt.exits}
            held[record.job.spec.queue] += sum(
                len(unit.accelerators)
                for unit in record.attempt.placement.units
                if unit.index not in gone
            )
    for start in starts:
        if start.uid in snapshot.jobs:
            queue = snapshot.jobs[start.uid].job.spec.queue
            held[queue] += sum(len(unit.accelerators) for unit in start.placement.units)
    for name, quota in limits.items():
        if held[name] > quota:
            yield f"queue {name} would hold {held[name]} accelerators of its {quota}"
