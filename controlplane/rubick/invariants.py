"""What must hold of every decision of Rubick, whoever made it. Shares no code with the policy.

Runs in production, in the simulator and in property tests, beside what must hold of every policy's
orders (``controlplane.engine.invariants``). Each violation names the jobs without whose targets it
would not be there.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from operator import ge

from controlplane.domain.ids import AcceleratorId, JobUid, NodeId, QueueName
from controlplane.domain.job import AcceleratorRequest, JobSpec, ServiceClass, Topology
from controlplane.domain.memory import memory_of
from controlplane.domain.offering import (
    accelerators_offered,
    admits,
    offered_to_choose,
    plans_of,
    sizes,
    warned,
)
from controlplane.domain.placement import Placement
from controlplane.domain.policy import Decision, Violation
from controlplane.domain.record import Intent, JobRecord
from controlplane.domain.snapshot import ClusterSnapshot
from controlplane.domain.step_times import StepTimes
from headrace.api.counted import counted

_ROUNDING = 1e-6


def violations(
    snapshot: ClusterSnapshot,
    decision: Decision,
    step_times: StepTimes,
    *,
    cool_down_seconds: float,
) -> Iterator[Violation]:
    """Every rule that the decision breaks.

    Args:
        snapshot: What was decided about.
        decision: What was decided.
        step_times: What it was decided by.
        cool_down_seconds: For how long a job is left in peace after a change.
    """
    for uid in decision.targets:
        if uid not in snapshot.jobs:
            yield Violation(f"{uid} is not a known job", (uid,))
    yield from _no_accelerator_twice(snapshot, decision)
    yield from _within_quotas(snapshot, decision)
    if decision.optimality is not None:
        best = decision.optimality
        if best.value > best.bound + _ROUNDING * max(1.0, abs(best.bound)):
            text = (
                f"the decision is worth {best.value:g}, more than the proven bound {best.bound:g}"
            )
            yield Violation(text)
    promises = _Promises(snapshot, step_times)
    for uid, record in snapshot.jobs.items():
        if not record.withdrawn and record.finished_at is None:
            target = decision.targets.get(uid)
            for text in _sound_for(snapshot, record, target, promises, cool_down_seconds):
                yield Violation(text, (uid,))


def _sound_for(
    snapshot: ClusterSnapshot,
    record: JobRecord,
    target: Placement | None,
    promises: "_Promises",
    cool_down_seconds: float,
) -> Iterator[str]:
    """What must hold of one job."""
    attempt = record.attempt
    if target is not None and (attempt is None or target is not attempt.placement):
        count = target.accelerator_count
        if target.plan.ranks != count:
            yield f"{record.uid}: {target.plan} does not occupy {counted(count, 'accelerator')}"
    guaranteed = record.job.spec.service_class is ServiceClass.GUARANTEED
    if attempt is None:
        if guaranteed and target is not None and target != record.next_placement:
            yield from promises.kept_by(record, target)
        return
    stops = attempt.intent is not Intent.RUN or record.job.spec.suspend
    if stops or target == attempt.placement:
        return
    if guaranteed and target is not None:
        yield from promises.kept_by(record, target)
    if _must_leave(snapshot, record, attempt.placement) or promises.is_outdated(record):
        return
    if _is_young(snapshot, record, cool_down_seconds):
        yield f"{record.uid} would be changed although its last change was just now"
    if guaranteed and target is None:
        yield from _does_not_lose_all(snapshot, record)


def _no_accelerator_twice(snapshot: ClusterSnapshot, decision: Decision) -> Iterator[Violation]:
    gets: dict[tuple[NodeId, AcceleratorId], JobUid] = {}
    for uid, placement in decision.targets.items():
        for slot in placement.slots():
            other = gets.setdefault(slot, uid)
            if other != uid:
                both = (other, uid)
                # Who holds it already is not to blame; where nobody does, nobody knows who is.
                new = tuple(each for each in both if snapshot.holders.get(slot) != each)
                text = f"{slot[1]} of {slot[0]} would be given to {' and to '.join(both)}"
                yield Violation(text, new or both)
    if len(gets) < sum(placement.accelerator_count for placement in decision.targets.values()):
        for uid, placement in decision.targets.items():
            if len(set(placement.slots())) < placement.accelerator_count:
                yield Violation(f"{uid} would be given an accelerator twice", (uid,))


def _within_quotas(snapshot: ClusterSnapshot, decision: Decision) -> Iterator[Violation]:
    limits = {
        name: queue.limit_accelerators
        for name, queue in snapshot.queues.items()
        if queue.limit_accelerators is not None
    }
    held: Counter[QueueName] = Counter()
    for uid, placement in decision.targets.items() if limits else ():
        if uid in snapshot.jobs:
            held[snapshot.jobs[uid].job.spec.queue] += placement.accelerator_count
    for name, limit in limits.items():
        # Those that run already may be more than a quota that was lowered since.
        if held[name] > limit:
            _, running = _quota_and_running(snapshot, name)
            if held[name] > running:
                text = (
                    f"queue {name} would hold {counted(held[name], 'accelerator')} of its {limit}"
                )
                yield Violation(text, tuple(_who_would_get_more(snapshot, decision, name)))


def _who_would_get_more(
    snapshot: ClusterSnapshot, decision: Decision, name: QueueName
) -> Iterator[JobUid]:
    for uid, placement in decision.targets.items():
        record = snapshot.jobs.get(uid)
        if record is not None and record.job.spec.queue == name:
            has = 0 if record.attempt is None else record.attempt.placement.accelerator_count
            if placement.accelerator_count > has:
                yield uid


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
    racks = [snapshot.nodes[name].node.rack for name in placement.nodes if name in snapshot.nodes]
    one_rack = record.job.spec.accelerators.topology is Topology.SAME_RACK
    if one_rack and len(racks) > 1 and (not all(racks) or len(set(racks)) > 1):
        return True
    for name in placement.nodes:
        node = snapshot.nodes.get(name)
        if node is None or node.must_be_left:
            return True
        if node.only_goes_on:
            continue
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


class _Promises:
    """How fast guaranteed jobs must be at least. What many jobs ask alike is looked up once: to go
    through all nodes for each of thousands of jobs takes longer than to decide about them.
    """

    def __init__(self, snapshot: ClusterSnapshot, step_times: StepTimes) -> None:
        self._snapshot = snapshot
        self._times = step_times
        self._most: int | None = None
        self._nodes: dict[AcceleratorRequest, Mapping[str, Sequence[Sequence[int]]]] = {}

    def is_outdated(self, record: JobRecord) -> bool:
        """Whether the job's spec was edited so that what it runs as is not what it asks for."""
        if record.attempt is None or record.job.generation == 1:
            return False
        place, spec = record.attempt.placement, self._spec_to_choose(record)
        count = place.accelerator_count
        wanted = spec.plans or plans_of(spec, count)
        if count not in sizes(spec) or place.plan not in wanted:
            return True
        return not _suits(self._snapshot, spec.accelerators, place)

    def _spec_to_choose(self, record: JobRecord) -> JobSpec:
        if self._most is None:
            self._most = accelerators_offered(self._snapshot)
        return offered_to_choose(warned(record, self._snapshot), self._most).job.spec

    def kept_by(self, record: JobRecord, target: Placement) -> Iterator[str]:
        """What is wrong with a target."""
        promised = self._speed(record)
        if not promised:
            return
        lies = tuple(sorted((len(ids) for ids in target.by_node().values()), reverse=True))
        kind = _kind_of(self._snapshot, target)
        way = self._times.way(record.job.spec, kind, target.plan, lies)
        if way is not None and 1.0 / way.seconds < promised * (1 - _ROUNDING):
            yield (
                f"{record.uid} is guaranteed {promised:.4g} steps a second and would make "
                f"{1.0 / way.seconds:.4g}"
            )

    def _speed(self, record: JobRecord) -> float:
        """The speed of what the job asks for on the best type that it may use."""
        spec = self._spec_to_choose(record)
        best = 0.0
        for kind, together in self._sizes(spec.accelerators).items():
            for way in self._times.ways(spec, kind):
                asked = sum(way.shares) == spec.accelerators.asked_for
                asked = asked and spec.requested_plan in (None, way.plan)
                if asked and any(_lies(way.shares, sizes) for sizes in together):
                    best = max(best, 1.0 / way.seconds)
        return best

    def _sizes(self, request: AcceleratorRequest) -> Mapping[str, Sequence[Sequence[int]]]:
        """How many accelerators each node has that may be asked for so, most first, by type: of all
        nodes together, or of each rack where the job must keep to one.
        """
        known = self._nodes.get(request)
        if known is None:
            found: dict[str, dict[str, list[int]]] = {}
            for name, offer in self._snapshot.usable.items():
                node = self._snapshot.nodes[name]
                if not admits(request, node):
                    continue
                where = ""
                if request.topology is Topology.SAME_RACK:
                    where = f"rack {node.node.rack or f'of {name} alone'}"
                for kind, every in offer.items():
                    if request.type in ("", kind):
                        found.setdefault(kind, {}).setdefault(where, []).append(len(every))
            known = self._nodes[request] = {
                kind: [sorted(sizes, reverse=True) for sizes in together.values()]
                for kind, together in found.items()
            }
        return known


def _suits(snapshot: ClusterSnapshot, request: AcceleratorRequest, place: Placement) -> bool:
    """Whether a job that asks for this may have what it has. Racks are looked at apart."""
    held, kinds = place.by_node(), set()
    if request.topology is Topology.SAME_NODE and len(held) > 1:
        return False
    for name, ids in held.items():
        node = snapshot.nodes.get(name)
        if node is None or not admits(request, node):
            return False
        for each in node.node.accelerators:
            if each.id not in ids:
                continue
            kinds.add(each.type)
            if len(each.cpu_cores) < request.cpu_cores_each:
                return False
            if each.host_memory_bytes < request.host_memory_bytes_each:
                return False
            if request.memory is not None and not request.memory.fits(memory_of(each)):
                return False
    return len(kinds) == 1 and request.type in ("", *kinds)


def _lies(shares: Sequence[int], largest_first: Sequence[int]) -> bool:
    """Whether nodes of these sizes have so many accelerators, each node one share."""
    largest = largest_first[: len(shares)]
    wanted = sorted(shares, reverse=True)
    return len(largest) == len(wanted) and all(map(ge, largest, wanted))


def _kind_of(snapshot: ClusterSnapshot, placement: Placement) -> str:
    node, accelerator = next(placement.slots())
    for kind, every in snapshot.usable.get(node, {}).items():
        if any(each.id == accelerator for each in every):
            return kind
    return ""
