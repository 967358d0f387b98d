"""What must hold of every set of orders, whoever made it. Shares no code with cycle or policies.

Runs in production, in the simulator and in property tests. Orders that break one of these are
not carried out. Each violation names the jobs without whose orders it would not be there.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from controlplane.domain.action import Action, ChangePlan, StartAttempt, StopAttempt
from controlplane.domain.ids import JobUid, NodeId
from controlplane.domain.job import Job, JobSpec, Topology
from controlplane.domain.lifecycle import Stage
from controlplane.domain.memory import memory_of
from controlplane.domain.model_type import type_named
from controlplane.domain.node import Contact
from controlplane.domain.offering import memory_need
from controlplane.domain.placement import LaunchUnit, Placement
from controlplane.domain.policy import Violation
from controlplane.domain.record import AttemptRecord, Intent, JobRecord, NodeRecord
from controlplane.domain.snapshot import ClusterSnapshot
from headrace.api.counted import counted
from headrace.api.feasible_plans import infeasible
from headrace.api.plan import ExecutionPlan
from headrace.api.racks import RACK_LABEL


def violations(snapshot: ClusterSnapshot, actions: tuple[Action, ...]) -> Iterator[Violation]:
    """Every rule that ``actions`` would break in the cluster of ``snapshot``."""
    if not actions:
        return
    yield from _one_order_a_job(actions)
    starts = [action for action in actions if isinstance(action, StartAttempt)]
    coming = {start.uid: start.placement.units for start in starts}
    coming |= {a.uid: _newcomers(snapshot, a) for a in actions if isinstance(a, ChangePlan)}
    yield from _no_accelerator_twice(snapshot, coming)
    yield from _no_older_attempt_alive(snapshot, starts)
    for action in actions:
        for text in _sound(snapshot, action):
            yield Violation(text, (action.uid,))
    yield from _quotas(snapshot, coming)


def _sound(snapshot: ClusterSnapshot, action: Action) -> Iterable[str]:
    """What is wrong with one order, whatever the others are."""
    record = snapshot.jobs.get(action.uid)
    if record is None:
        return (f"{action.uid} is not a known job",)
    if isinstance(action, ChangePlan):
        return _sound_change(snapshot, action)
    if isinstance(action, StartAttempt):
        return _sound_start(snapshot, action)
    return _sound_stop(snapshot, action) if isinstance(action, StopAttempt) else ()


def _one_order_a_job(actions: tuple[Action, ...]) -> Iterator[Violation]:
    for uid, count in Counter(action.uid for action in actions).items():
        if count > 1:
            yield Violation(f"{uid} would get {count} orders at once", (uid,))


def _newcomers(snapshot: ClusterSnapshot, change: ChangePlan) -> tuple[LaunchUnit, ...]:
    """The units that a change brings in."""
    record = snapshot.jobs.get(change.uid)
    if record is None or record.attempt is None:
        return change.units
    known = {unit.index for unit in record.attempt.placement.units}
    return tuple(unit for unit in change.units if unit.index not in known)


def _no_accelerator_twice(
    snapshot: ClusterSnapshot, coming: Mapping[JobUid, tuple[LaunchUnit, ...]]
) -> Iterator[Violation]:
    touched = {unit.node for units in coming.values() for unit in units}
    if not touched:
        return
    known = _condition_of_slots(snapshot, touched)
    used = _slots_in_use(snapshot, touched)
    given: dict[tuple[str, str], JobUid] = {}
    for uid, units in coming.items():
        for unit in units:
            for accelerator_id in unit.accelerators:
                slot = (unit.node, accelerator_id)
                which = f"{accelerator_id} of {unit.node}"
                if slot not in known:
                    yield Violation(f"{uid} would get {which}, which is unknown", (uid,))
                elif known[slot]:
                    yield Violation(f"{uid} would get {which}: {known[slot]}", (uid,))
                if slot in given:
                    # Neither has it yet, so it cannot be said which of them should.
                    both = (given[slot], uid)
                    yield Violation(f"{which} would be given to {' and to '.join(both)}", both)
                elif slot in used:
                    text = f"{which} is held by {used[slot]} and would be given to {uid}"
                    yield Violation(text, (uid,))
                given[slot] = uid


def _no_older_attempt_alive(
    snapshot: ClusterSnapshot, starts: list[StartAttempt]
) -> Iterator[Violation]:
    starting = {start.uid for start in starts}
    for node in snapshot.nodes.values() if starting else ():
        for stray in node.strays:
            if stray.uid in starting:
                text = f"{stray.uid} would start while its attempt {stray.attempt} is on {node.id}"
                yield Violation(text, (stray.uid,))


def _condition_of_slots(
    snapshot: ClusterSnapshot, touched: set[NodeId]
) -> dict[tuple[str, str], str]:
    """Accelerators of the touched nodes, with what speaks against them; empty if nothing does."""
    known: dict[tuple[str, str], str] = {}
    for node in (snapshot.nodes[name] for name in touched if name in snapshot.nodes):
        problem = "" if _is_open(node) else "its node cannot be used"
        for accelerator in node.node.accelerators:
            known[node.id, accelerator.id] = accelerator.unhealthy or problem
    return known


def _is_open(node: NodeRecord) -> bool:
    return node.contact is Contact.ONLINE and not node.drained and node.closed is None


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
        for unit in (*record.attempt.placement.units, *record.attempt.leaving):
            if unit.node in touched and unit.index not in gone:
                for accelerator_id in unit.accelerators:
                    used[unit.node, accelerator_id] = record.uid
    return used


def _sound_stop(snapshot: ClusterSnapshot, stop: StopAttempt) -> Iterator[str]:
    record = snapshot.jobs[stop.uid]
    if record.attempt is None or record.attempt.number != stop.attempt:
        yield f"{stop.uid} has no attempt {stop.attempt} to stop"
    if stop.then is not None:
        # Else it would have stopped for a start that is refused. Others may still be there.
        yield from _sound_layout(record.job.spec, stop.uid, stop.then)
        yield from _room_for(snapshot, record.job, stop.then)
        yield from _where_allowed(snapshot, stop.uid, stop.then.units)


def _sound_start(snapshot: ClusterSnapshot, start: StartAttempt) -> Iterator[str]:
    record = snapshot.jobs[start.uid]
    if record.attempt is not None:
        yield f"{start.uid} already has attempt {record.attempt.number}"
    if record.stage not in (Stage.QUEUED, Stage.BACKING_OFF) or record.withdrawn:
        yield f"{start.uid} is not to be started, it is {record.stage}"
    if record.stage is Stage.BACKING_OFF and snapshot.at < record.backoff_until:
        yield f"{start.uid} backs off from a failure and would start too early"
    queue = snapshot.queues.get(record.job.spec.queue)
    if queue is not None and not queue.takes(record.job.namespace):
        yield f"{start.uid} is in {record.job.namespace}, of which queue {queue.name} takes no jobs"
    if start.attempt < record.next_attempt:
        yield f"{start.uid} had attempt {record.next_attempt - 1}, {start.attempt} is not new"
    if [unit.index for unit in start.placement.units] != list(range(len(start.placement.units))):
        yield f"{start.uid}: its launch units are not numbered from 0"
    if any(unit.joins for unit in start.placement.units):
        yield f"{start.uid} starts, so none of its launch units joins it later"
    yield from _sound_layout(record.job.spec, start.uid, start.placement)
    yield from _not_again_out_of_memory(snapshot, record, start)
    yield from _room_for(snapshot, record.job, start.placement)
    yield from _where_allowed(snapshot, start.uid, start.placement.units)


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
    if not attempt.trained or exits or not {u.index for u in units} <= attempt.units_up:
        yield f"{change.uid} does not train with all its ranks, so they cannot be asked"
    if change.plan == attempt.placement.plan and change.units in ((), units):
        yield f"{change.uid} runs as {change.plan} already"
    if change.units:
        yield from _sound_resize(attempt, change)
    target = Placement(change.plan, change.units or units)
    yield from _sound_layout(spec, change.uid, target)
    if change.plan != attempt.plan_in_force:
        yield from _room_for(snapshot, record.job, target)
    yield from _where_allowed(snapshot, change.uid, target.units)


def _sound_resize(attempt: AttemptRecord, change: ChangePlan) -> Iterator[str]:
    units, then = attempt.placement.units, change.units
    kept = min(len(units), len(then))
    if then[:kept] != units[:kept]:
        yield f"{change.uid} would change ranks that stay, or lose its first unit"
    used = [unit.index for unit in (*units, *attempt.leaving)]
    used += [known.unit for known in attempt.exits]
    for unit in then[kept:]:
        if unit.index in used or unit.index < attempt.units_made or not unit.joins:
            yield f"{change.uid}: unit {unit.index} of attempt {change.attempt} is not a new one"
        used.append(unit.index)


def _sound_layout(spec: JobSpec, uid: JobUid, placement: Placement) -> Iterator[str]:
    request, units = spec.accelerators, placement.units
    count = sum(len(unit.accelerators) for unit in units)
    if not request.minimum <= count <= request.maximum:
        yield (
            f"{uid} would get {counted(count, 'accelerator')}, it takes {request.minimum} to "
            f"{request.maximum}"
        )
    if placement.plan.ranks != count:
        yield f"{uid}: plan {placement.plan} does not occupy {counted(count, 'accelerator')}"
    if spec.unit_per_node:
        if len({unit.node for unit in units}) != len(units):
            yield f"{uid} runs its own command, which takes one launch unit a node"
    elif any(len(unit.accelerators) != 1 for unit in units):
        yield f"{uid}: each of its launch units is one rank and takes one accelerator"
    ranks = 0
    for unit in units:
        if unit.first_rank != ranks:
            yield f"{uid}: unit {unit.index} should begin at rank {ranks}"
        ranks += len(unit.accelerators)
    yield from _sound_plan(spec, uid, placement)


def _sound_plan(spec: JobSpec, uid: JobUid, placement: Placement) -> Iterator[str]:
    plan, batch = placement.plan, spec.global_batch_size
    if spec.plans and plan not in spec.plans:
        yield f"{uid}: {plan} is none of its plans"
    if not spec.plans and plan != ExecutionPlan(plan.data_parallel, plan.accumulation_steps):
        yield from _any_other(spec, uid, plan)
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


def _any_other(spec: JobSpec, uid: JobUid, plan: ExecutionPlan) -> Iterator[str]:
    """Why a job that names no plans may not run under one that is more than data parallel."""
    known = type_named(spec.model_type) if spec.any_plan else None
    if known is None:
        yield f"{uid} names no plans and runs data parallel, not as {plan}"
        return
    problem = infeasible(known.shape, plan, global_batch_size=known.samples)
    if problem is not None:
        yield f"{uid} cannot be trained under {plan}: {problem.message}"


def _not_again_out_of_memory(
    snapshot: ClusterSnapshot, record: JobRecord, start: StartAttempt
) -> Iterator[str]:
    plan = start.placement.plan
    for unit in start.placement.units[:1]:
        node = snapshot.nodes.get(unit.node)
        for accelerator in node.node.accelerators if node is not None else ():
            if accelerator.id in unit.accelerators and (
                (accelerator.type, plan) in record.out_of_memory
            ):
                yield f"{start.uid} ran out of memory under {plan} on {accelerator.type} before"
                return


def _room_for(snapshot: ClusterSnapshot, job: Job, placement: Placement) -> Iterator[str]:
    need = memory_need(job.spec, placement.plan)
    if need is None:
        return
    for unit in placement.units:
        node = snapshot.nodes.get(unit.node)
        for accelerator in node.node.accelerators if node is not None else ():
            if accelerator.id in unit.accelerators and not need.fits(memory_of(accelerator)):
                yield f"{job.uid}: {placement.plan} does not fit the memory of {accelerator.id}"
                return


def _where_allowed(
    snapshot: ClusterSnapshot, uid: JobUid, units: tuple[LaunchUnit, ...]
) -> Iterator[str]:
    request = snapshot.jobs[uid].job.spec.accelerators
    if request.topology is Topology.SAME_NODE and len({unit.node for unit in units}) > 1:
        yield f"{uid} must stay on one node"
    if request.topology is Topology.SAME_RACK:
        yield from _one_rack(snapshot, uid, units)
    types = set()
    for unit in units:
        record = snapshot.nodes.get(unit.node)
        if record is None:
            continue
        labels = dict(record.node.labels)
        if any(labels.get(key) != value for key, value in request.selector):
            yield f"{uid} does not select {unit.node}"
        for taint in record.node.taints:
            if not any(toleration.accepts(taint) for toleration in request.tolerations):
                yield f"{uid} does not tolerate {taint.key} of {unit.node}"
        types |= {a.type for a in record.node.accelerators if a.id in unit.accelerators}
    if len(types) > 1 or (request.type and types - {request.type}):
        yield f"{uid} would run on {', '.join(sorted(types))}, wanted {request.type or 'one'}"


def _one_rack(
    snapshot: ClusterSnapshot, uid: JobUid, units: tuple[LaunchUnit, ...]
) -> Iterator[str]:
    racks: dict[NodeId, str] = {}
    for unit in units:
        record = snapshot.nodes.get(unit.node)
        racks[unit.node] = dict(record.node.labels).get(RACK_LABEL, "") if record else ""
    if len(racks) > 1 and ("" in racks.values() or len(set(racks.values())) > 1):
        told = ", ".join(f"{node} ({rack or 'tells none'})" for node, rack in racks.items())
        yield f"{uid} must stay in one rack, and would be on {told}"


def _quotas(
    snapshot: ClusterSnapshot, coming: Mapping[JobUid, tuple[LaunchUnit, ...]]
) -> Iterator[Violation]:
    touched = {
        snapshot.jobs[uid].job.spec.queue
        for uid, units in coming.items()
        if uid in snapshot.jobs and units
    }
    limited = {
        name: snapshot.queues[name].limit_accelerators
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
                for unit in (*record.attempt.placement.units, *record.attempt.leaving)
                if unit.index not in gone
            )
    more: dict[str, list[JobUid]] = {name: [] for name in limits}
    for uid, units in coming.items():
        queue = snapshot.jobs[uid].job.spec.queue if uid in snapshot.jobs else None
        if queue in more and units:
            held[queue] += sum(len(unit.accelerators) for unit in units)
            more[queue].append(uid)
    for name, quota in limits.items():
        if held[name] > quota:
            text = f"queue {name} would hold {counted(held[name], 'accelerator')} of its {quota}"
            yield Violation(text, tuple(more[name]))
