"""Who goes first, who may not run at all, and what the queues may hold: for every policy."""

from collections.abc import Callable
from copy import copy
from dataclasses import replace

from controlplane.domain.changing import changed
from controlplane.domain.ids import NodeId, QueueName
from controlplane.domain.job import Job, JobSpec, ServiceClass, Topology
from controlplane.domain.lifecycle import FINISHED, Stage
from controlplane.domain.offering import offered, plans_of, sizes, warned
from controlplane.domain.placement import Placement
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import JobRecord
from controlplane.domain.snapshot import ClusterSnapshot
from controlplane.placing.capacity import Capacity
from controlplane.placing.layout import plan_for, sizes_in, ways
from headrace.api.counted import counted
from headrace.api.memory import GIB
from headrace.api.plan import ExecutionPlan

RUNNING = Reason(ReasonCode.RUNNING)

_MISFITS_TOLD = 3
"""So many more plans that do not fit are named with a reason."""

_OUT = FINISHED | {Stage.SUSPENDED}


def candidates(
    snapshot: ClusterSnapshot,
    standing: Callable[[JobRecord], int] | None = None,
    offers: Callable[[JobRecord], JobRecord] = offered,
) -> list[JobRecord]:
    """Jobs that could hold accelerators: higher priority first, guaranteed before best effort,
    then by their ``standing`` if that is given, then in order of submission. Their specs name no
    plan that ran out of memory where they may run, in these jobs or in others that train the same.
    """
    ranks: dict[tuple[int, bool, int], list[JobRecord]] = {}
    for record in snapshot.jobs.values():
        if record.stage in _OUT or record.withdrawn:
            continue
        spec = record.job.spec
        if spec.suspend:
            continue  # Its attempt, if it has one, is being stopped.
        best_effort = spec.service_class is not ServiceClass.GUARANTEED
        rank = (-spec.priority, best_effort, 0 if standing is None else standing(record))
        group = ranks.get(rank)
        if group is None:
            group = ranks[rank] = []
        group.append(offers(warned(record, snapshot)))
    return [record for rank in sorted(ranks) for record in ranks[rank]]


def nodes_to_leave(snapshot: ClusterSnapshot) -> frozenset[NodeId]:
    """Nodes that must not run anything now, because they were drained or lost.

    A node that was not heard of since the control plane started is not among them: nothing is
    known against it.
    """
    return snapshot.conditions.away


def left_nodes(placement: Placement, away: frozenset[NodeId]) -> list[NodeId]:
    """Those of ``away`` that the placement is on."""
    return sorted({unit.node for unit in placement.units} & away) if away else []


def cannot_stay(
    record: JobRecord, placement: Placement, away: frozenset[NodeId], capacity: Capacity
) -> Reason | None:
    """Why the job must leave the place where it runs, or is about to; None if it may stay."""
    leaves = left_nodes(placement, away)
    if leaves:
        return Reason(ReasonCode.MOVED_OFF_NODE, f"{', '.join(leaves)} takes no work now")
    if record.job.spec.accelerators.topology is Topology.SAME_RACK and not capacity.are_together(
        Topology.SAME_RACK, placement.nodes
    ):
        text = f"{', '.join(sorted(placement.nodes))} are not in one rack any more"
        return Reason(ReasonCode.MOVED_OFF_NODE, text)
    outdated = _outdated(record, placement, capacity)
    return Reason(ReasonCode.SPEC_CHANGED, outdated) if outdated else None


def _outdated(record: JobRecord, placement: Placement, capacity: Capacity) -> str:
    """Why the job's spec, if it was changed since, has another placement; empty if it has not."""
    if record.job.generation == 1:
        return ""
    spec = record.job.spec
    allowed = placement.accelerator_count in sizes(spec)
    if not allowed or not capacity.suits(spec.accelerators, placement.slots()):
        return "its spec does not allow any more where it runs"
    planned = _wanted_plan(record, placement, capacity)
    return "" if planned else "its spec has no plan for where it runs"


def _wanted_plan(
    record: JobRecord, placement: Placement, capacity: Capacity
) -> ExecutionPlan | None:
    runs = None if record.attempt is None else record.attempt.plan_in_force
    return plan_for(record.job.spec, placement.by_node(), capacity, runs)


OTHER_PLAN = Reason(ReasonCode.SPEC_CHANGED, "its spec asks for another plan")


def as_wanted(record: JobRecord, placement: Placement, capacity: Capacity) -> Placement:
    """The place where a job stays, under the plan that its spec asks for there; the very same
    placement if that is the one that it has.
    """
    if record.job.generation == 1:
        return placement
    plan = _wanted_plan(record, placement, capacity)
    return placement if plan in (None, placement.plan) else changed(placement, plan=plan)


def impossible(record: JobRecord, capacity: Capacity, quotas: "Quotas") -> Reason | None:
    """Why the job can never run in this cluster as it is; None if it could.

    Args:
        record: The job.
        capacity: The cluster's accelerators.
        quotas: The queues.
    """
    spec = record.job.spec
    if not quotas.known(spec.queue):
        return Reason(
            ReasonCode.QUEUE_MISSING,
            f"queue {spec.queue} does not exist; `headrace queue set {spec.queue}` creates it",
        )
    if not quotas.take(record.job):
        taken = ", ".join(quotas.namespaces(spec.queue))
        return Reason(
            ReasonCode.QUEUE_NOT_FOR_NAMESPACE,
            f"queue {spec.queue} takes jobs of the namespaces {taken} only, this one is in "
            f"{record.job.namespace}",
        )
    if spec.unfit:
        return Reason(ReasonCode.DOES_NOT_FIT, spec.unfit, type=spec.accelerators.type)
    possible = sizes(spec)
    if not possible:
        text = (
            f"no number of accelerators from {spec.accelerators.minimum} to "
            f"{spec.accelerators.maximum} divides the global batch of {spec.global_batch_size}"
        )
        return Reason(ReasonCode.BATCH_NOT_DIVISIBLE, text)
    kind, most = spec.accelerators.type, capacity.most_if_empty(spec.accelerators)
    where = spec.accelerators.topology.words
    if most == 0:
        any_of = kind or "accelerator"
        text = f"no usable node has an {any_of} that its selector, taints and sizes allow"
        return Reason(ReasonCode.NO_MATCHING_ACCELERATOR, text, possible[0], type=kind)
    here, least = sizes_in(spec, capacity), possible[0]
    if most >= least and (not here or most < here[0]):
        unfit = _does_not_fit(spec, capacity)
        if unfit is not None:
            return unfit
        group = min(way.group for way in ways(spec, least, capacity))
        every, most = most, capacity.most_if_empty(spec.accelerators, group)
        text = (
            f"wants {counted(least, 'accelerator')}{where} in tensor-parallel groups of {group} "
            "on one node "
            f"each, the usable nodes have {most} for it, of {every}"
            f"{_what_would_help(spec, capacity)}"
            f"{_smaller_groups(spec, least, capacity)}"
        )
        return Reason(ReasonCode.EXCEEDS_CLUSTER, text, least, most, type=kind)
    if most < least:
        text = (
            f"wants {counted(least, 'accelerator')}{where}, the usable nodes have {most} for "
            f"it{where}"
            f"{_what_would_help(spec, capacity)}"
        )
        return Reason(ReasonCode.EXCEEDS_CLUSTER, text, least, most, type=kind)
    least = here[0]
    quota = quotas.whole(spec.queue)
    if quota is not None and quota < least:
        wanted = counted(least, "accelerator")
        text = f"wants {wanted}, the whole quota of queue {spec.queue} is {quota}"
        return Reason(ReasonCode.QUOTA_EXCEEDED, text, least, quota, type=kind)
    return None


def _what_would_help(spec: JobSpec, capacity: Capacity) -> str:
    """What could be changed where the job's topology is what keeps it from running."""
    request = spec.accelerators
    if request.topology is Topology.ANY:
        return ""
    apart = capacity.most_if_empty(changed(request, topology=Topology.ANY))
    if apart <= capacity.most_if_empty(request):
        return ""
    if request.topology is Topology.SAME_RACK and not capacity.racks:
        return (
            f", and {apart} in all; no node tells its rack, so only a node for itself counts as "
            "one: the agents' option --rack would help"
        )
    return f", and {apart} in all: topology Any in its spec would let it have those"


def _smaller_groups(spec: JobSpec, count: int, capacity: Capacity) -> str:
    """The plan of as many accelerators whose tensor-parallel groups would find a place, and are as
    large as they can be; empty if there is none.
    """
    request = spec.accelerators
    # Smaller groups make replicas, which must divide what a step accumulates.
    for plan in sorted(plans_of(spec, count), key=lambda each: -each.tensor_parallel):
        for tensor in range(plan.tensor_parallel // 2, 0, -1):
            if plan.tensor_parallel % tensor or capacity.most_if_empty(request, tensor) < count:
                continue
            replicas = plan.data_parallel * (plan.tensor_parallel // tensor)
            parts = replicas * plan.accumulation_steps
            if spec.global_batch_size and spec.global_batch_size % parts:
                continue
            other = replace(plan, data_parallel=replicas, tensor_parallel=tensor)
            return f"; what helps: a plan whose groups find a node, such as {other}"
    return ""


def _does_not_fit(spec: JobSpec, capacity: Capacity) -> Reason | None:
    """That memory is what keeps the job from running; None if all its plans have enough."""
    found = capacity.misfits(spec)
    if not found:
        return None
    first, *others = found
    told = [
        f"{each.plan} on {each.type} (by {each.missing_bytes / GIB:.1f} GiB)" for each in others
    ]
    if len(told) > _MISFITS_TOLD:
        told[_MISFITS_TOLD:] = [f"{len(told) - _MISFITS_TOLD} more"]
    text = f"{first.plan} on {first.type} {first.message}"
    text += f"; nor does {', '.join(told)}" if told else ""
    text += "; with ignoreMemoryEstimate in its spec it is tried all the same"
    return Reason(ReasonCode.DOES_NOT_FIT, text, type=spec.accelerators.type)


class Quotas:
    """Accelerators that each queue may still hold, those that it may borrow among them; counts down
    as they are given out.
    """

    def __init__(self, snapshot: ClusterSnapshot) -> None:
        """Starts with all that every queue may hold beside what nobody may decide about."""
        self._whole: dict[QueueName, int | None] = {
            name: queue.limit_accelerators for name, queue in snapshot.queues.items()
        }
        self._left = dict(self._whole)
        self._own: dict[QueueName, int | None] = {
            name: queue.quota_accelerators for name, queue in snapshot.queues.items()
        }
        self._namespaces = {
            name: queue.namespaces for name, queue in snapshot.queues.items() if queue.namespaces
        }
        for record in snapshot.set_aside.values():
            if record.attempt is not None:
                self.use(record.job.spec.queue, record.attempt.placement.accelerator_count)

    def copy(self) -> "Quotas":
        """The same counts, to go on with separately."""
        twin = copy(self)
        twin._left = dict(self._left)
        twin._own = dict(self._own)
        return twin

    def known(self, queue: QueueName) -> bool:
        """Whether there is such a queue."""
        return queue in self._whole

    def take(self, job: Job) -> bool:
        """Whether the job's queue is there, and takes jobs of its namespace."""
        taken = self._namespaces.get(job.spec.queue)
        return self.known(job.spec.queue) and (taken is None or job.namespace in taken)

    def namespaces(self, queue: QueueName) -> tuple[str, ...]:
        """The namespaces whose jobs the queue takes; empty for all."""
        return self._namespaces.get(queue, ())

    def whole(self, queue: QueueName) -> int | None:
        """All that the queue may hold; None for no limit."""
        return self._whole.get(queue)

    def allows(self, queue: QueueName, count: int) -> bool:
        """Whether ``count`` more accelerators stay within the queue's quota."""
        left = self._left.get(queue)
        return left is None or count <= left

    def use(self, queue: QueueName, count: int) -> None:
        """Counts ``count`` accelerators (negative gives them back)."""
        for counts in (self._left, self._own):
            left = counts.get(queue)
            if left is not None:
                counts[queue] = left - count

    def left(self, queue: QueueName) -> int | None:
        """Accelerators that the queue may still hold; None for no limit."""
        left = self._left.get(queue)
        return None if left is None else max(0, left)

    def own_left(self, queue: QueueName) -> int | None:
        """What is left of the queue's own quota, below 0 if it borrows; None if it has none."""
        return self._own.get(queue)
