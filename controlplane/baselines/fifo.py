"""First come, first served, with rigid gangs: a job gets all it can use, or waits.

A job that waits is not overtaken by a later one that wants any of the same nodes, or a share of
the same quota. Jobs that can never run here, and jobs that recover from a failure, hold up nobody.
"""

from controlplane.baselines.capacity import Capacity, Signature, signature
from controlplane.baselines.layout import placement_on, sizes
from controlplane.baselines.order import (
    RUNNING,
    Answers,
    Holders,
    Quotas,
    candidates,
    impossible,
    left_nodes,
    nodes_to_leave,
    outdated,
    waits,
)
from controlplane.domain.ids import JobUid, NodeId, QueueName
from controlplane.domain.placement import Placement
from controlplane.domain.policy import Decision
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import JobRecord
from controlplane.domain.snapshot import ClusterSnapshot


def fifo(snapshot: ClusterSnapshot) -> Decision:
    """Where each job should run; see the module's docstring for the rule."""
    return _Round(snapshot).decide()


class _Round:
    """One decision in the making."""

    def __init__(self, snapshot: ClusterSnapshot) -> None:
        self.snapshot = snapshot
        self.left = Capacity(snapshot, without=snapshot.holders)
        self.quotas = Quotas(snapshot)
        self.holders = Holders(snapshot, self.left)
        self.targets: dict[JobUid, Placement] = {}
        self.reasons: dict[JobUid, Reason] = {}
        self.answers = Answers()
        self.away = nodes_to_leave(snapshot)
        self.kept_for: dict[NodeId, Reason] = {}
        self.blocked: dict[Signature, Reason] = {}
        self.queue_blocked: dict[QueueName, Reason] = {}

    def decide(self) -> Decision:
        waiting = []
        for record in candidates(self.snapshot):
            if record.attempt is not None:
                self._keep(record)
            elif self.snapshot.at >= record.backoff_until:
                waiting.append(record)
        for record in waiting:
            known = self.answers.take(record)
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
        leaves = left_nodes(placement, self.away)
        if leaves:
            text = f"{', '.join(leaves)} takes no work now"
            self.reasons[record.uid] = Reason(ReasonCode.MOVED_OFF_NODE, text)
        elif outdated(record, placement, self.left):
            text = "its spec does not allow any more where it runs"
            self.reasons[record.uid] = Reason(ReasonCode.SPEC_CHANGED, text)
        else:
            self.targets[record.uid] = placement
            self.reasons[record.uid] = RUNNING

    def _place(self, record: JobRecord) -> None:
        """Gives the job all it can ever use here, whatever is free now, or a reason."""
        spec = record.job.spec
        never = impossible(record, self.left, self.quotas)
        if never is not None:
            self.reasons[record.uid] = never
            self.answers.give(record, never, lasting=True)
            return
        behind = self.blocked.get(signature(spec.accelerators)) or self.queue_blocked.get(
            spec.queue
        )
        if behind is not None:
            self.reasons[record.uid] = behind
            self.answers.give(record, behind, lasting=False)
            return
        most = self.left.most_if_empty(spec.accelerators)
        quota = self.quotas.whole(spec.queue)
        limit = most if quota is None else min(most, quota)
        wanted = max(n for n in sizes(spec) if n <= limit)
        if not self.quotas.allows(spec.queue, wanted):
            self.reasons[record.uid] = self.quotas.exceeded(spec.queue, wanted)
            self.queue_blocked[spec.queue] = _behind(
                record, f"{wanted} accelerators of the quota of queue {spec.queue}"
            )
            return
        holding = self.left.reserve(spec.accelerators, wanted)
        if holding is None:
            self._block(record, wanted)
            return
        self.targets[record.uid] = placement_on(spec, holding.parts)
        self.reasons[record.uid] = RUNNING
        self.quotas.use(spec.queue, wanted)

    def _block(self, record: JobRecord, wanted: int) -> None:
        """The job waits, and keeps the nodes that it could use for itself."""
        request = record.job.spec.accelerators
        could_use = self.left.names(request)
        kept = next((self.kept_for[n] for n in could_use if n in self.kept_for), None)
        if kept is not None and self.left.most(request) == 0:
            self.reasons[record.uid] = kept
        else:
            available = self.left.most(request)
            self.reasons[record.uid] = waits(wanted, available, self.holders.of(record))
        behind = _behind(record, f"{wanted} accelerators")
        for node in could_use:
            self.kept_for.setdefault(node, behind)
        self.left.withhold(request)
        self.blocked[signature(request)] = behind


def _behind(record: JobRecord, what: str) -> Reason:
    text = f"{record.job.full_name} came first and waits for {what}"
    return Reason(ReasonCode.BEHIND_EARLIER_JOB, text, holders=(record.uid,))
