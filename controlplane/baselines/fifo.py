"""First come, first served, with rigid gangs: a job gets what it asks for, or waits.

Who names a number of accelerators gets it, under the plan that it names; who names a range gets the
most of it that it can ever use here. Number, plan and place of a running job never change, nothing
is preempted, and who comes first is served first, whatever is promised to whom; only priorities go
before. Where step times are known, a job lies on the fewest nodes for which its plan is known, and
so that it is fastest on as many; each share goes to the node that has the fewest left and still
enough.

*Strict*: a job that waits is not overtaken by a later one that wants any of the same nodes, or a
share of the same quota. Jobs that can never run here, and jobs that recover from a failure, hold up
nobody. *Skip* passes over whatever does not fit. On Rubick's trace the average completion time
differs by a factor of six between the two.

A job takes nodes that are under suspicion only if there is no other room for it.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property

from controlplane.baselines.layouts import Layout, placed, requested, requested_way, unmeasured
from controlplane.domain.ids import JobUid, NodeId, QueueName
from controlplane.domain.job import JobSpec, Topology
from controlplane.domain.placement import Placement
from controlplane.domain.policy import Decision
from controlplane.domain.reason import Reason
from controlplane.domain.record import JobRecord
from controlplane.domain.snapshot import ClusterSnapshot
from controlplane.domain.step_times import StepTimes
from controlplane.placing.capacity import Capacity, Signature, signature
from controlplane.placing.layout import (
    Way,
    as_asked,
    placement_on,
    requests,
    reserved_rather_off,
    sizes_in,
    ways,
)
from controlplane.placing.order import (
    OTHER_PLAN,
    RUNNING,
    Quotas,
    as_wanted,
    candidates,
    cannot_stay,
    impossible,
    left_nodes,
    nodes_to_leave,
)
from controlplane.placing.waiting import Ahead, Waits, question


@dataclass(frozen=True, slots=True)
class Fifo:
    """The policy.

    Attributes:
        step_times: Knows for which shares a plan is known; None if nobody does.
        skip: Whether a job that does not fit is passed over.
    """

    step_times: StepTimes | None = None
    skip: bool = False

    @property
    def assumptions(self) -> tuple[str, ...]:
        """How the queue is served, to be printed with every result."""
        discipline = (
            "fifo-skip: who does not fit is passed over"
            if self.skip
            else "fifo: strict, who waits is not overtaken by who wants any of the same nodes"
        )
        return (
            f"{discipline}; nobody is preempted, and number, plan and place never change",
            "fifo, fifo-skip: a job lies on the fewest nodes for which its plan was measured",
        )

    def __call__(self, snapshot: ClusterSnapshot) -> Decision:
        """Where each job should run."""
        return _Round(self, snapshot).decide()


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a job waits for.

    Attributes:
        wanted: Accelerators.
        layout: How they are to lie; None for wherever there is room.
        asked: The ways from which it may get one there.
    """

    wanted: int
    layout: Layout | None
    asked: tuple[Way, ...]


class _Round:
    """One decision in the making."""

    def __init__(self, policy: Fifo, snapshot: ClusterSnapshot) -> None:
        self.times = policy.step_times
        self.skip = policy.skip
        self.snapshot = snapshot
        self.quotas = Quotas(snapshot)
        self.targets: dict[JobUid, Placement] = {}
        self.reasons: dict[JobUid, Reason] = {}
        self.answers: dict[Hashable, Reason] = {}
        self.away = nodes_to_leave(snapshot)
        self.kept_for: dict[NodeId, Ahead] = {}
        self.blocked: dict[tuple[Signature, ...], Ahead] = {}
        self.queue_blocked: dict[QueueName, Ahead] = {}

    @cached_property
    def left(self) -> Capacity:
        """What is free; not looked for while nobody waits."""
        return Capacity(self.snapshot, without=self.snapshot.holders)

    @cached_property
    def waits(self) -> Waits:
        return Waits(self.snapshot, self.left)

    def decide(self) -> Decision:
        waiting: list[JobRecord] = []
        undisturbed = not self.away
        closed = self.snapshot.conditions.closed
        for record in candidates(self.snapshot):
            attempt, job = record.attempt, record.job
            if attempt is None:
                if self.snapshot.at >= record.backoff_until:
                    waiting.append(record)
                continue
            if self.quotas.whole(job.spec.queue) is not None:
                self.quotas.use(job.spec.queue, attempt.placement.accelerator_count)
            by_racks = job.spec.accelerators.topology is Topology.SAME_RACK
            stays = bool(closed) and not closed.isdisjoint(attempt.placement.nodes)
            if (undisturbed and job.generation == 1 and not by_racks) or (
                stays and not left_nodes(attempt.placement, self.away)
            ):
                self.targets[job.uid], self.reasons[job.uid] = attempt.placement, RUNNING
            else:
                self._keep(record, attempt.placement)
        if len({record.job.spec.service_class for record in waiting}) > 1:
            waiting.sort(key=lambda each: (-each.job.spec.priority, each.job.submitted_at))
        alike = _alike if self.times is not None else question
        for record in waiting:
            asks = alike(record)
            self.reasons[record.uid] = self.answers.get(asks) or self._answer(record, asks)
        return Decision(self.targets, self.reasons)

    def _keep(self, record: JobRecord, placement: Placement) -> None:
        leaves = cannot_stay(record, placement, self.away, self.left)
        if leaves is not None:
            self.reasons[record.uid] = leaves
            return
        target = self.targets[record.uid] = as_wanted(record, placement, self.left)
        self.reasons[record.uid] = RUNNING if target is placement else OTHER_PLAN

    def _answer(self, record: JobRecord, asks: Hashable) -> Reason:
        """Gives the job what it asks for, or a reason why not now. Of what does not fit, nobody who
        comes later and asks the same finds more.
        """
        why = self._behind_at_once(record) or impossible(record, self.left, self.quotas)
        if why is None:
            spec = record.job.spec
            wish = self._wish(spec)
            if wish is None:
                why = unmeasured(spec)
            else:
                ahead = self.blocked.get(_signatures(wish)) or self.queue_blocked.get(spec.queue)
                if ahead is None:
                    return self._given(record, wish, asks)
                why = self.waits.behind(as_asked(record, wish.asked), wish.wanted, ahead)
        self.answers[asks] = why
        return why

    def _behind_at_once(self, record: JobRecord) -> Reason | None:
        """That the job waits behind another one, where nothing more need be known of it: its plan
        is the one that it names.
        """
        request = record.job.spec.accelerators
        if not self.blocked or record.job.spec.requested_plan is None:
            return None
        ahead = self.blocked.get((signature(request),))
        return None if ahead is None else self.waits.behind(record, request.asked_for, ahead)

    def _wish(self, spec: JobSpec) -> _Wish | None:
        """What the job asks for; None if it can be had, and nobody knows how long it takes so."""
        if self.times is not None:
            kinds = self.left.allowed_nodes(spec.accelerators)
            for kind in kinds:
                way = requested_way(self.times, spec, kind)
                if way is not None:
                    layout = Layout(way.accelerators, way.plan, way.shares, kind, way.seconds)
                    asked = (Way(1, spec.accelerators),)
                    return _Wish(way.accelerators, layout, asked)
            if any(self.times.ways(spec, kind) for kind in kinds):
                return None
        wanted = self._wanted(spec)
        return _Wish(wanted, None, ways(spec, wanted, self.left))

    def _wanted(self, spec: JobSpec) -> int:
        asked = requested(spec)
        if spec.accelerators.requested and asked is not None:
            return asked[0]
        most = self.left.most_if_empty(spec.accelerators)
        quota = self.quotas.whole(spec.queue)
        limit = most if quota is None else min(most, quota)
        return max(n for n in sizes_in(spec, self.left) if n <= limit)

    def _given(self, record: JobRecord, wish: _Wish, asks: Hashable) -> Reason:
        spec, wanted = record.job.spec, wish.wanted
        left = self.quotas.left(spec.queue)
        if left is not None and left < wanted:
            why = self.waits.for_quota(record, wanted, left)
            if self.skip:
                self.answers[asks] = why
            else:
                self.queue_blocked[spec.queue] = Ahead(record, wanted, of_quota=True)
            return why
        target = self._target(record, wish)
        if target is None:
            return self._waits(as_asked(record, wish.asked), wish, asks)
        self.targets[record.uid] = target
        self.waits.gets(record.uid, target.slots())
        self.quotas.use(spec.queue, wanted)
        return RUNNING

    def _target(self, record: JobRecord, wish: _Wish) -> Placement | None:
        spec = record.job.spec
        if wish.layout is not None:
            return placed(spec, wish.layout, self.left)
        avoids = record.avoids(self.snapshot.at)
        holding = reserved_rather_off(spec, wish.wanted, self.left, avoids)
        return None if holding is None else placement_on(spec, holding.parts, self.left)

    def _waits(self, record: JobRecord, wish: _Wish, asks: Hashable) -> Reason:
        """The job waits and, unless others may pass it, keeps the nodes that it could use for
        itself.
        """
        available = max(self.left.most(way.request, way.group) for way in wish.asked)
        if self.skip:
            why = self.waits.for_accelerators(record, wish.wanted, available)
            self.answers[asks] = why
            return why
        could_use: dict[NodeId, None] = {}
        for request in requests(wish.asked):
            could_use.update(self.left.names(request))
        kept = next((self.kept_for[n] for n in could_use if n in self.kept_for), None)
        ahead = Ahead(record, wish.wanted)
        for node in could_use:
            self.kept_for.setdefault(node, ahead)
        for request in requests(wish.asked):
            self.left.withhold(request)
        self.blocked[_signatures(wish)] = ahead
        if kept is not None and available == 0:
            return self.waits.behind(record, wish.wanted, kept)
        return self.waits.for_accelerators(record, wish.wanted, available)


def _alike(record: JobRecord) -> Hashable:
    """All that decides what a waiting job is answered. Who names its plan is asked for no other:
    to look at all the plans that it might have takes long.
    """
    spec = record.job.spec
    if spec.requested_plan is None:
        return (spec.model_type, *question(record))
    namespace = record.job.namespace
    return (spec.accelerators, spec.requested_plan, spec.model_type, spec.queue, namespace)


def _signatures(wish: _Wish) -> tuple[Signature, ...]:
    return tuple(map(signature, requests(wish.asked)))
