"""First come, first served, with rigid gangs: a job gets all it can use, or waits.

A job that waits is not overtaken by a later one that wants any of the same nodes. Jobs that can
never run here, and jobs that recover from a failure, hold up nobody.
"""

from controlplane.baselines.capacity import Capacity, Signature, signature, sizes
from controlplane.baselines.order import (
    RUNNING,
    Quotas,
    candidates,
    impossible,
    largest_holders,
    waits,
)
from controlplane.domain.ids import JobUid
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
        self.whole = Capacity(snapshot)
        self.left = Capacity(snapshot, without=snapshot.holders)
        self.quotas = Quotas(snapshot)
        self.targets: dict[JobUid, Placement] = {}
        self.reasons: dict[JobUid, Reason] = {}
        self.blocked: dict[Signature, Reason] = {}
        self.holders: tuple[JobUid, ...] | None = None

    def decide(self) -> Decision:
        waiting = []
        for record in candidates(self.snapshot):
            if record.attempt is not None:
                self._keep(record)
            else:
                waiting.append(record)
        for record in waiting:
            if self.snapshot.at >= record.backoff_until:
                self._place(record)
        return Decision(self.targets, self.reasons)

    def _keep(self, record: JobRecord) -> None:
        assert record.attempt is not None
        placement = record.attempt.placement
        self.quotas.use(record.job.spec.queue, placement.accelerator_count)
        if all(self.snapshot.nodes[n].usable for n in placement.nodes if n in self.snapshot.nodes):
            self.targets[record.uid] = placement
            self.reasons[record.uid] = RUNNING
        else:
            drained = ", ".join(
                sorted(
                    n
                    for n in placement.nodes
                    if n in self.snapshot.nodes and not self.snapshot.nodes[n].usable
                )
            )
            self.reasons[record.uid] = Reason(
                ReasonCode.MOVED_OFF_NODE, f"{drained} takes no work now"
            )

    def _place(self, record: JobRecord) -> None:
        spec = record.job.spec
        key = signature(spec.accelerators)
        behind = self.blocked.get(key)
        if behind is not None and self.quotas.known(spec.queue) and sizes(spec):
            self.reasons[record.uid] = behind
            return
        never = impossible(record, self.whole, self.quotas.known(spec.queue))
        if never is not None:
            self.reasons[record.uid] = never
            return
        # Rigid: the most it can ever use here, whatever is free now.
        most = self.whole.most(spec.accelerators)
        wanted = max(n for n in sizes(spec) if n <= most)
        if not self.quotas.allows(spec.queue, wanted):
            self.reasons[record.uid] = self.quotas.exceeded(spec.queue, wanted)
            return
        placement = self.left.take(spec, wanted)
        if placement is not None:
            self.targets[record.uid] = placement
            self.reasons[record.uid] = RUNNING
            self.quotas.use(spec.queue, wanted)
            return
        self._block(record, key, wanted)

    def _block(self, record: JobRecord, key: Signature, wanted: int) -> None:
        """The job waits, and keeps the nodes that it could use for itself."""
        request = record.job.spec.accelerators
        if self.holders is None:
            self.holders = largest_holders(self.snapshot)
        self.reasons[record.uid] = waits(wanted, self.left.most(request), self.holders)
        self.left.withhold(request)
        name = f"{record.job.namespace}/{record.job.name}"
        self.blocked[key] = Reason(
            ReasonCode.BEHIND_EARLIER_JOB,
            f"{name} came first and waits for {wanted} accelerators",
            holders=(record.uid,),
        )
