"""Elastic data parallel: every running job gets its share, changed on arrival and finish.

As many jobs as fit with their minimum are admitted, in order. What is left is dealt out in
rounds, one step of size to the job that holds least, until nobody can grow. A running job whose
size comes out unchanged stays where it is.

Two rules keep a bad neighbour from disturbing others: a job that recovers from a failure comes
after every job that does not, and a job that has not trained yet is not made to grow.
"""

from controlplane.baselines.capacity import Capacity, sizes
from controlplane.baselines.order import (
    RUNNING,
    Quotas,
    candidates,
    impossible,
    largest_holders,
    waits,
)
from controlplane.domain.ids import JobUid
from controlplane.domain.lifecycle import Stage
from controlplane.domain.placement import Placement
from controlplane.domain.policy import Decision
from controlplane.domain.reason import Reason
from controlplane.domain.record import Intent, JobRecord
from controlplane.domain.snapshot import ClusterSnapshot, Slot


def equal_share(snapshot: ClusterSnapshot) -> Decision:
    """Where each job should run; see the module's docstring for the rule."""
    return _Round(snapshot).decide()


class _Round:
    """One decision in the making."""

    def __init__(self, snapshot: ClusterSnapshot) -> None:
        self.snapshot = snapshot
        self.whole = Capacity(snapshot)
        self.quotas = Quotas(snapshot)
        self.shares: dict[JobUid, int] = {}
        self.reasons: dict[JobUid, Reason] = {}

    def decide(self) -> Decision:
        records = candidates(self.snapshot)
        records.sort(key=lambda record: record.stage is Stage.BACKING_OFF)
        admitted = self._admit(records)
        self._grow(admitted)
        return Decision(self._place(admitted), self.reasons)

    def _admit(self, records: list[JobRecord]) -> list[JobRecord]:
        """Gives each job its minimum in turn, as far as accelerators and quotas go."""
        admitted = []
        trial = Capacity(self.snapshot, without=self._stray_slots())
        holders = largest_holders(self.snapshot)
        for record in records:
            spec = record.job.spec
            never = impossible(record, self.whole, self.quotas.known(spec.queue))
            if never is not None:
                self.reasons[record.uid] = never
                continue
            least = sizes(spec)[0]
            if not self.quotas.allows(spec.queue, least):
                self.reasons[record.uid] = self.quotas.exceeded(spec.queue, least)
            elif trial.reserve(spec.accelerators, least) is None:
                available = trial.most(spec.accelerators)
                others = tuple(uid for uid in holders if uid != record.uid)
                self.reasons[record.uid] = waits(least, available, others)
            else:
                self.quotas.use(spec.queue, least)
                self.shares[record.uid] = least
                self.reasons[record.uid] = RUNNING
                admitted.append(record)
        self.trial = trial
        return admitted

    def _stray_slots(self) -> set[Slot]:
        return {
            (node.id, slot)
            for node in self.snapshot.nodes.values()
            for stray in node.strays
            for slot in stray.accelerators
        }

    def _grow(self, admitted: list[JobRecord]) -> None:
        """Deals out what is left: the smallest share that can grow grows by one step."""
        growing = {record.uid: record for record in admitted if _may_grow(record)}
        rank = {record.uid: position for position, record in enumerate(admitted)}
        while growing:
            uid = min(growing, key=lambda u: (self.shares[u], rank[u]))
            if not self._step(growing[uid]):
                del growing[uid]

    def _step(self, record: JobRecord) -> bool:
        spec, share = record.job.spec, self.shares[record.uid]
        bigger = [n for n in sizes(spec) if n > share]
        if not bigger:
            return False
        more = bigger[0] - share
        if not _untrained_limit(record, bigger[0]):
            return False
        if (
            not self.quotas.allows(spec.queue, more)
            or self.trial.reserve(spec.accelerators, more) is None
        ):
            return False
        self.quotas.use(spec.queue, more)
        self.shares[record.uid] = bigger[0]
        return True

    def _place(self, admitted: list[JobRecord]) -> dict[JobUid, Placement]:
        """Keeps what can stay, then places the rest, the largest first.

        Shares were counted without regard to where; if the real placement of a share does not
        come out (one node only, or mixed types), the next smaller size is tried.
        """
        targets: dict[JobUid, Placement] = {}
        left = Capacity(self.snapshot, without=self._stray_slots())
        moving = []
        for record in admitted:
            kept = self._kept(record)
            if kept is not None:
                targets[record.uid] = kept
                left.drop(kept.slots())
            else:
                moving.append(record)
        moving.sort(key=lambda record: -self.shares[record.uid])
        for record in moving:
            placement = self._placed(record, left)
            if placement is not None:
                targets[record.uid] = placement
            else:
                least = sizes(record.job.spec)[0]
                most = left.most(record.job.spec.accelerators)
                self.reasons[record.uid] = waits(least, most, largest_holders(self.snapshot))
        return targets

    def _kept(self, record: JobRecord) -> Placement | None:
        attempt = record.attempt
        if attempt is None or attempt.intent is not Intent.RUN:
            return None
        placement = attempt.placement
        same = placement.accelerator_count == self.shares[record.uid]
        usable = all(
            node in self.snapshot.nodes and self.snapshot.nodes[node].usable
            for node in placement.nodes
        )
        return placement if same and usable else None

    def _placed(self, record: JobRecord, left: Capacity) -> Placement | None:
        spec, share = record.job.spec, self.shares[record.uid]
        for count in sorted((n for n in sizes(spec) if n <= share), reverse=True):
            placement = left.take(spec, count)
            if placement is not None:
                return placement
        return None


def _may_grow(record: JobRecord) -> bool:
    return len(sizes(record.job.spec)) > 1


def _untrained_limit(record: JobRecord, size: int) -> bool:
    """Whether the job may be given ``size``: one that runs but has not trained yet may not be
    stopped only to grow, or a chain of arrivals would restart it for ever.
    """
    attempt = record.attempt
    if attempt is None or attempt.intent is not Intent.RUN or attempt.trained:
        return True
    return size <= attempt.placement.accelerator_count
