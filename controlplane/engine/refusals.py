"""What becomes of a cluster where some of what a policy decided is refused. Pure.

The policy is asked again without the jobs that are to blame, which keep what they have. Where that
helps nothing, its decision is carried out without them (``without``), and then nobody loses
anything for their sake either.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from controlplane.domain.changing import changed
from controlplane.domain.ids import JobUid, NodeId, QueueName
from controlplane.domain.lifecycle import FINISHED
from controlplane.domain.placement import Placement
from controlplane.domain.policy import Decision
from controlplane.domain.proposal import ProposalUse, Verdict
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import AttemptRecord, Intent, JobRecord, NodeRecord, RunningUnit
from controlplane.domain.refusal import Refusal
from controlplane.domain.snapshot import ClusterSnapshot, Slot

GOES_ON = Reason(
    ReasonCode.RUNNING, "goes on as it is: what another job was to get in its place is refused"
)


def refused_before(snapshot: ClusterSnapshot) -> dict[JobUid, str]:
    """Jobs that no policy is asked about just now, each with the rule that was broken."""
    jobs = snapshot.jobs.items()
    found = ((uid, each.refusal_at(snapshot.at)) for uid, each in jobs if each.refusal is not None)
    return {uid: refusal.text for uid, refusal in found if refusal is not None}


def asked_about(snapshot: ClusterSnapshot) -> ClusterSnapshot:
    """What a policy is asked about: all but what it was refused a short while ago."""
    return set_aside(snapshot, refused_before(snapshot))


def remember(jobs: dict[JobUid, JobRecord], refused: Iterable[tuple[JobUid, Refusal]]) -> None:
    """About these of the jobs no policy is asked for a while."""
    for uid, refusal in refused:
        if uid in jobs:
            jobs[uid] = changed(jobs[uid], refusal=refusal)


def forget(jobs: dict[JobUid, JobRecord]) -> None:
    """A policy is asked about all of these jobs again."""
    for uid, record in jobs.items():
        if record.refusal is not None:
            jobs[uid] = changed(record, refusal=None)


def set_aside(snapshot: ClusterSnapshot, uids: Collection[JobUid]) -> ClusterSnapshot:
    """The same cluster where nothing is to be decided about these jobs, and what they hold is
    nobody else's.
    """
    aside = {uid: snapshot.jobs[uid] for uid in uids if uid in snapshot.jobs}
    if not aside:
        return snapshot
    jobs = {uid: record for uid, record in snapshot.jobs.items() if uid not in aside}
    nodes = dict(snapshot.nodes)
    for uid, record in aside.items():
        if record.attempt is not None:
            _held_by_strays(nodes, uid, record.attempt)
    return replace(
        snapshot,
        jobs=MappingProxyType(jobs),
        nodes=MappingProxyType(nodes),
        set_aside=MappingProxyType({**snapshot.set_aside, **aside}),
    )


def _held_by_strays(nodes: dict[NodeId, NodeRecord], uid: JobUid, attempt: AttemptRecord) -> None:
    for unit in attempt.units:
        node = nodes.get(unit.node)
        if node is not None and attempt.holds(unit.index):
            stray = RunningUnit(uid, attempt.number, unit.index, unit.accelerators)
            nodes[unit.node] = changed(node, strays=(*node.strays, stray))


def without(
    snapshot: ClusterSnapshot,
    decision: Decision,
    name: str,
    refused: Mapping[JobUid, str],
    *,
    asked: bool = True,
) -> Decision:
    """The decision where these jobs keep what they have and are told why, and nobody loses anything
    that was only to be theirs.

    Args:
        snapshot: All that is known.
        decision: What was decided.
        name: Of the policy.
        refused: The jobs, each with the rule that would have been broken.
        asked: Whether the policy was asked about them.
    """
    targets, reasons = dict(decision.targets), dict(decision.reasons)
    differs = False
    for uid, text in refused.items():
        record = snapshot.jobs.get(uid)
        attempt = record.attempt if record is not None else None
        wanted, kept = targets.pop(uid, None), _kept(attempt)
        if kept is not None:
            targets[uid] = kept
        # Who was set aside has no target though it has a place: nothing was decided about it.
        differs |= wanted != kept and (asked or wanted is not None)
        if record is not None:
            why = f"what policy {name} decided about this job cannot be carried out: {text}"
            reasons[uid] = Reason(ReasonCode.POLICY_REFUSED, why)
    if not differs:
        return replace(decision, targets=targets, reasons=reasons)
    goes_on = _lost_for_nobody(snapshot, targets)
    targets |= goes_on
    reasons |= dict.fromkeys(goes_on, GOES_ON)
    # What is left is not what was measured.
    return Decision(targets, reasons, None, _unless_taken(decision.proposal))


def _kept(attempt: AttemptRecord | None) -> Placement | None:
    return None if attempt is None or attempt.intent is not Intent.RUN else attempt.placement


def _unless_taken(use: ProposalUse | None) -> ProposalUse | None:
    return None if use is not None and use.verdict is Verdict.TAKEN else use


def _lost_for_nobody(
    snapshot: ClusterSnapshot, targets: Mapping[JobUid, Placement]
) -> dict[JobUid, Placement]:
    """What jobs would give back though no target takes it, nor what it counts in their queue's
    quota; of those that may stay where they are.
    """
    taken = {slot: uid for uid, target in targets.items() for slot in target.slots()}
    held: Counter[QueueName] = Counter()
    for uid, wanted in targets.items():
        if uid in snapshot.jobs:
            held[snapshot.jobs[uid].job.spec.queue] += wanted.accelerator_count
    found: dict[JobUid, Placement] = {}
    usable: dict[NodeId, set[Slot]] = {}
    for uid, record in snapshot.jobs.items():
        if record.attempt is None:
            continue
        place, target = record.attempt.placement, targets.get(uid)
        count = 0 if target is None else target.accelerator_count
        more = place.accelerator_count - count
        if target is place or more <= 0 or not _may_stay(snapshot, record, place, usable):
            continue
        queue = snapshot.queues.get(record.job.spec.queue)
        limit = None if queue is None else queue.limit_accelerators
        within = limit is None or held[record.job.spec.queue] + more <= limit
        if within and all(taken.get(slot, uid) == uid for slot in place.slots()):
            found[uid] = place
            held[record.job.spec.queue] += more
    return found


def _may_stay(
    snapshot: ClusterSnapshot,
    record: JobRecord,
    place: Placement,
    usable: dict[NodeId, set[Slot]],
) -> bool:
    """Whether nothing but other jobs speaks against it."""
    attempt, spec = record.attempt, record.job.spec
    if attempt is None or attempt.intent is not Intent.RUN or attempt.plan_change is not None:
        return False
    if record.withdrawn or record.stage in FINISHED or spec.suspend:
        return False
    request = spec.accelerators
    if attempt.generation != record.job.generation:
        return False
    if not request.minimum <= place.accelerator_count <= request.maximum:
        return False
    for name in place.nodes - usable.keys():
        offer = snapshot.usable.get(name, {}).values()
        usable[name] = {(name, each.id) for every in offer for each in every}
    return all(slot in usable[slot[0]] for slot in place.slots())
