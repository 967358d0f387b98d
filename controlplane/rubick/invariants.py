"""What must hold of every decision of Rubick, whoever made it. Shares no code with the policy.

Runs in production, in the simulator and in property tests, beside what must hold of every policy's
orders (``controlplane.engine.invariants``).
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from operator import ge

from controlplane.domain.ids import AcceleratorId, NodeId, QueueName
from controlplane.domain.job import ServiceClass, Topology
from controlplane.domain.node import Contact
from controlplane.domain.offering import accelerators_offered, admits, offered_to_choose
from controlplane.domain.placement import Placement
from controlplane.domain.policy import Decision
from controlplane.domain.record import Intent, JobRecord
from controlplane.domain.snapshot import ClusterSnapshot
from controlplane.domain.step_times import StepTimes

_ROUNDING = 1e-6


def violations(
    snapshot: ClusterSnapshot,
    decision: Decision,
    step_times: StepTimes,
    *,
    cool_down_seconds: float,
) -> Iterator[str]:
    """A sentence for every rule that the decision breaks.

    Args:
        snapshot: What was decided about.
        decision: What was decided.
        step_times: What it was decided by.
        cool_down_seconds: For how long a job is left in peace after a change.
    """
    yield from _no_accelerator_twice(decision)
    yield from _within_quotas(snapshot, decision)
    if decision.optimality is not None:
        best = decision.optimality
        if best.value > best.bound + _ROUNDING * max(1.0, abs(best.bound)):
            yield f"the decision is worth {best.value:g}, more than the proven bound {best.bound:g}"
    for uid, record in snapshot.jobs.items():
        if not record.withdrawn and record.finished_at is None:
            target = decision.targets.get(uid)
            if target is not None and target.plan.ranks != target.accelerator_count:
                count = target.accelerator_count
                yield f"{uid}: {target.plan} does not occupy {count} accelerators"
            yield from _sound_for(snapshot, record, target, step_times, cool_down_seconds)


def _sound_for(
    snapshot: ClusterSnapshot,
    record: JobRecord,
    target: Placement | None,
    step_times: StepTimes,
    cool_down_seconds: float,
) -> Iterator[str]:
    """What must hold of one job."""
    attempt = record.attempt
    guaranteed = record.job.spec.service_class is ServiceClass.GUARANTEED
    if attempt is None:
        if guaranteed and target is not None and target != record.next_placement:
            yield from _is_fast_enough(snapshot, record, target, step_times)
        return
    stops = attempt.intent is not Intent.RUN or record.job.spec.suspend
    if stops or target == attempt.placement:
        return
    if guaranteed and target is not None:
        yield from _is_fast_enough(snapshot, record, target, step_times)
    if _must_leave(snapshot, record, attempt.placement):
        return
    if _is_young(snapshot, record, cool_down_seconds):
        yield f"{record.uid} would be changed although its last change was just now"
    if guaranteed and target is None:
        yield from _does_not_lose_all(snapshot, record)


def _no_accelerator_twice(decision: Decision) -> Iterator[str]:
    held: Counter[tuple[NodeId, AcceleratorId]] = Counter()
    for placement in decision.targets.values():
        held.update(placement.slots())
    for (node, accelerator), count in held.items():
        if count > 1:
            yield f"{accelerator} of {node} would be given to {count} jobs"


def _within_quotas(snapshot: ClusterSnapshot, decision: Decision) -> Iterator[str]:
    held: Counter[str] = Counter()
    for uid, placement in decision.targets.items():
        held[snapshot.jobs[uid].job.spec.queue] += placement.accelerator_count
    for name, queue in snapshot.queues.items():
        limit = queue.limit_accelerators
        # Those that run already may be more than a quota that was lowered since.
        if limit is not None and held[name] > limit:
            _, running = _quota_and_running(snapshot, name)
            if held[name] > running:
                yield f"queue {name} would hold {held[name]} accelerators of its {limit}"


def _quota_and_running(snapshot: ClusterSnapshot, name: QueueName) -> tuple[int | None, int]:
    """A queue's own quota, and what its jobs have now."""
    running = sum(
        record.attempt.placement.accelerator_count
        for record in snapshot.jobs.values()
        if record.attempt is not None and record.job.spec.queue == name
    )
    queue = snapshot.queues.get(name)
    return queue.quota_accelerators if queue is not None else None, running


def _must_leave(snapshot: ClusterSnapshot, record: JobRecord, placement: Placement) -> bool:
    """Whether the job cannot stay where it is, whoever else there is."""
    if record.job.generation > 1:
        return True
    racks = [snapshot.nodes[name].node.rack for name in placement.nodes if name in snapshot.nodes]
    one_rack = record.job.spec.accelerators.topology is Topology.SAME_RACK
    if one_rack and len(racks) > 1 and (not all(racks) or len(set(racks)) > 1):
        return True
    for name in placement.nodes:
        node = snapshot.nodes.get(name)
        if node is None or node.drained or node.contact is Contact.LOST:
            return True
        offered = {a.id for every in snapshot.usable.get(name, {}).values() for a in every}
        if not set(placement.by_node()[name]) <= offered:
            return True
    return False


def _is_young(snapshot: ClusterSnapshot, record: JobRecord, cool_down_seconds: float) -> bool:
    attempt = record.attempt
    if attempt is None or attempt.running_at is None:
        return attempt is not None
    return snapshot.at - max(attempt.running_at, record.reconfigured_at) < cool_down_seconds * 1e9


def _does_not_lose_all(snapshot: ClusterSnapshot, record: JobRecord) -> Iterator[str]:
    # Beyond its quota a queue promises nothing: that is borrowed.
    quota, running = _quota_and_running(snapshot, record.job.spec.queue)
    if quota is None or running <= quota:
        yield f"{record.uid} is guaranteed and would lose what it has"


def _is_fast_enough(
    snapshot: ClusterSnapshot, record: JobRecord, target: Placement, step_times: StepTimes
) -> Iterator[str]:
    promised = _promised_speed(snapshot, record, step_times)
    if not promised:
        return
    lies = tuple(sorted((len(ids) for ids in target.by_node().values()), reverse=True))
    kind = _kind_of(snapshot, target)
    way = step_times.way(record.job.spec, kind, target.plan, lies)
    if way is not None and 1.0 / way.seconds < promised * (1 - _ROUNDING):
        yield (
            f"{record.uid} is guaranteed {promised:.4g} steps a second and would make "
            f"{1.0 / way.seconds:.4g}"
        )


def _promised_speed(snapshot: ClusterSnapshot, record: JobRecord, step_times: StepTimes) -> float:
    """The speed of what the job asks for on the best type that it may use."""
    spec = offered_to_choose(record, accelerators_offered(snapshot)).job.spec
    kinds: Mapping[str, None] = dict.fromkeys(
        kind
        for name, offer in snapshot.usable.items()
        for kind in offer
        if spec.accelerators.type in ("", kind) and admits(spec.accelerators, snapshot.nodes[name])
    )
    best = 0.0
    for kind in kinds:
        together: dict[str, list[int]] = {}
        for name, offer in snapshot.usable.items():
            if kind in offer and admits(spec.accelerators, snapshot.nodes[name]):
                where = ""
                if spec.accelerators.topology is Topology.SAME_RACK:
                    where = f"rack {snapshot.nodes[name].node.rack or f'of {name} alone'}"
                together.setdefault(where, []).append(len(offer[kind]))
        for way in step_times.ways(spec, kind):
            asked = sum(way.shares) == spec.accelerators.asked_for
            if (
                asked
                and spec.requested_plan in (None, way.plan)
                and any(_lies(way.shares, sizes) for sizes in together.values())
            ):
                best = max(best, 1.0 / way.seconds)
    return best


def _lies(shares: Sequence[int], sizes: Sequence[int]) -> bool:
    """Whether nodes of these sizes have so many accelerators, each node one share."""
    largest = sorted(sizes, reverse=True)[: len(shares)]
    wanted = sorted(shares, reverse=True)
    return len(largest) == len(wanted) and all(map(ge, largest, wanted))


def _kind_of(snapshot: ClusterSnapshot, placement: Placement) -> str:
    node, accelerator = next(placement.slots())
    for kind, every in snapshot.usable.get(node, {}).items():
        if any(each.id == accelerator for each in every):
            return kind
    return ""
