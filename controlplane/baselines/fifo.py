"""First come, first served, with rigid gangs: a job gets all it can use, or waits.

A job that waits is not overtaken by a later one that wants any of the same nodes, or a share of
the same quota. Jobs that can never run here, and jobs that recover from a failure, hold up nobody.
A job takes nodes that are under suspicion only if there is no other room for it.
"""

from controlplane.domain.ids import JobUid, NodeId, QueueName
from controlplane.domain.placement import Placement
from controlplane.domain.policy import Decision
from controlplane.domain.reason import Reason
from controlplane.domain.record import JobRecord
from controlplane.domain.snapshot import ClusterSnapshot
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
    nodes_to_leave,
)
from controlplane.placing.waiting import Ahead, Question, Waits, question


def fifo(snapshot: ClusterSnapshot) -> Decision:
    """Where each job should run; see the module's docstring for the rule."""
    return _Round(snapshot).decide()


class _Round:
    """One decision in the making."""

    def __init__(self, snapshot: ClusterSnapshot) -> None:
        self.snapshot = snapshot
        self.left = Capacity(snapshot, without=snapshot.holders)
        self.quotas = Quotas(snapshot)
        self.waits = Waits(snapshot, self.left)
        self.targets: dict[JobUid, Placement] = {}
        self.reasons: dict[JobUid, Reason] = {}
        self.answers: dict[Question, Reason] = {}
        self.away = nodes_to_leave(snapshot)
        self.kept_for: dict[NodeId, Ahead] = {}
        self.blocked: dict[tuple[Signature, ...], Ahead] = {}
        self.queue_blocked: dict[QueueName, Ahead] = {}

    def decide(self) -> Decision:
        waiting = []
        for record in candidates(self.snapshot):
            if record.attempt is not None:
                self._keep(record)
            elif self.snapshot.at >= record.backoff_until:
                waiting.append(record)
        for record in waiting:
            known = self.answers.get(question(record))
            if known is None:
                self._place(record)
            else:
                self.reasons[record.job.uid] = known
        return Decision(self.targets, self.reasons)

    def _keep(self, record: JobRecord) -> None:
        assert record.attempt is not None
        placement, queue = record.attempt.placement, record.job.spec.queue
        if self.quotas.whole(queue) is not None:
            self.quotas.use(queue, placement.accelerator_count)
        leaves = cannot_stay(record, placement, self.away, self.left)
        if leaves is not None:
            self.reasons[record.uid] = leaves
            return
        target = self.targets[record.uid] = as_wanted(record, placement, self.left)
        self.reasons[record.uid] = RUNNING if target is placement else OTHER_PLAN

    def _place(self, record: JobRecord) -> None:
        """Gives the job all it can ever use here, whatever is free now, or a reason."""
        spec = record.job.spec
        never = impossible(record, self.left, self.quotas)
        if never is not None:
            self.reasons[record.uid] = self.answers[question(record)] = never
            return
        most = self.left.most_if_empty(spec.accelerators)
        quota = self.quotas.whole(spec.queue)
        limit = most if quota is None else min(most, quota)
        wanted = max(n for n in sizes_in(spec, self.left) if n <= limit)
        asked = ways(spec, wanted, self.left)
        ahead = self.blocked.get(_signatures(asked)) or self.queue_blocked.get(spec.queue)
        if ahead is not None:
            # Nobody who comes later and asks the same finds more.
            behind = self.waits.behind(as_asked(record, asked), wanted, ahead)
            self.reasons[record.uid] = self.answers[question(record)] = behind
            return
        left = self.quotas.left(spec.queue)
        if left is not None and left < wanted:
            self.reasons[record.uid] = self.waits.for_quota(record, wanted, left)
            self.queue_blocked[spec.queue] = Ahead(record, wanted, of_quota=True)
            return
        holding = reserved_rather_off(spec, wanted, self.left, record.avoids(self.snapshot.at))
        if holding is None:
            self._block(as_asked(record, asked), wanted, asked)
            return
        target = self.targets[record.uid] = placement_on(spec, holding.parts, self.left)
        self.waits.gets(record.uid, target.slots())
        self.reasons[record.uid] = RUNNING
        self.quotas.use(spec.queue, wanted)

    def _block(self, record: JobRecord, wanted: int, asked: tuple[Way, ...]) -> None:
        """The job waits, and keeps the nodes that it could use for itself."""
        could_use: dict[NodeId, None] = {}
        for request in requests(asked):
            could_use.update(self.left.names(request))
        kept = next((self.kept_for[n] for n in could_use if n in self.kept_for), None)
        available = max(self.left.most(way.request, way.group) for way in asked)
        if kept is not None and available == 0:
            self.reasons[record.uid] = self.waits.behind(record, wanted, kept)
        else:
            self.reasons[record.uid] = self.waits.for_accelerators(record, wanted, available)
        ahead = Ahead(record, wanted)
        for node in could_use:
            self.kept_for.setdefault(node, ahead)
        for request in requests(asked):
            self.left.withhold(request)
        self.blocked[_signatures(asked)] = ahead


def _signatures(asked: tuple[Way, ...]) -> tuple[Signature, ...]:
    return tuple(map(signature, requests(asked)))
