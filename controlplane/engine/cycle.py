"""One cycle: the rules' duties, then the policy's targets, then what to order. Pure.

The policy says where jobs should run. This file orders the difference and keeps the handover
rule: an accelerator enters a new placement only after its holder's release is known.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from controlplane.domain.action import Action, StartAttempt, StopAttempt
from controlplane.domain.clock import Instant
from controlplane.domain.event import CycleDecided
from controlplane.domain.ids import Attempt, JobUid, QueueName, Term
from controlplane.domain.lifecycle import IDLE, Stage
from controlplane.domain.placement import Placement
from controlplane.domain.policy import Decision, Policy
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import AttemptRecord, Intent, JobRecord
from controlplane.domain.snapshot import ClusterSnapshot, Slot
from controlplane.engine.duties import duties
from controlplane.engine.invariants import violations
from controlplane.engine.state import ClusterState, SequencedEvent


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a cycle came to.

    Attributes:
        decided: The decision as it is logged and folded.
        refused: Why the policy's decision was not carried out; empty when it was.
    """

    decided: CycleDecided
    refused: tuple[str, ...] = ()

    @property
    def changes_nothing(self) -> bool:
        """Whether there is nothing to log."""
        return not self.decided.actions and not self.decided.reasons


@dataclass(slots=True)
class _Orders:
    actions: list[Action] = field(default_factory=list)
    reasons: dict[JobUid, Reason] = field(default_factory=dict)


def run_cycle(
    state: ClusterState, now: Instant, policies: Mapping[str, Policy], term: Term
) -> Outcome:
    """Decides once.

    Args:
        state: All events folded so far.
        now: The only time this cycle knows.
        policies: By name; the settings choose.
        term: Reign in which it is decided.
    """
    due = tuple(duties(state, now))
    if due:
        # The policy sees the cluster as it will be once the duties are ordered.
        told = CycleDecided(term, state.last_sequence, due, at=now)
        state_then = state.fold([SequencedEvent(state.last_sequence, told)])
    else:
        state_then = state
    snapshot = state_then.snapshot(now)
    orders = _Orders()
    refused: tuple[str, ...] = ()
    decision = _ask(policies, state.settings.policy, snapshot)
    if isinstance(decision, Decision):
        orders = _difference(snapshot, decision, now)
        refused = tuple(violations(snapshot, tuple(orders.actions)))
    else:
        refused = (decision,)
    if refused:
        reason = Reason(
            ReasonCode.POLICY_REFUSED,
            f"policy {state.settings.policy} gave no usable decision: {refused[0]}",
        )
        waiting = (u for u, r in snapshot.jobs.items() if r.stage in IDLE and not r.withdrawn)
        orders = _Orders(reasons=dict.fromkeys(waiting, reason))
    changed = tuple(
        (uid, reason)
        for uid, reason in orders.reasons.items()
        if snapshot.jobs[uid].reason != reason
    )
    decided = CycleDecided(term, state.last_sequence, (*due, *orders.actions), changed, at=now)
    return Outcome(decided, refused)


def _ask(policies: Mapping[str, Policy], name: str, snapshot: ClusterSnapshot) -> Decision | str:
    """The policy's decision, or a sentence on why there is none."""
    policy = policies.get(name)
    if policy is None:
        return f"there is no policy {name!r}; there are {', '.join(sorted(policies))}"
    try:
        return policy(snapshot)
    except Exception as error:
        # A broken policy must not take the control plane down: jobs run on, people are told.
        return f"{type(error).__name__}: {error}"


def _difference(snapshot: ClusterSnapshot, decision: Decision, now: Instant) -> _Orders:
    orders = _Orders()
    held = snapshot.holders
    in_queues = _held_by_queue(snapshot)
    for uid, record in snapshot.jobs.items():
        if record.withdrawn or record.finished_at is not None:
            continue
        target = decision.targets.get(uid)
        why = decision.reasons.get(uid)
        if record.attempt is not None:
            _steer(orders, record, record.attempt, target, why)
        elif record.stage is Stage.SUSPENDED:
            orders.reasons[uid] = Reason(ReasonCode.SUSPENDED, "spec.suspend is set")
        elif record.stage is Stage.BACKING_OFF and now < record.backoff_until:
            pass  # The failure that it recovers from stays its reason.
        elif target is None:
            if why is not None:
                orders.reasons[uid] = why
        else:
            late = _not_yet_released(snapshot, record, target, held, in_queues)
            if late is not None:
                orders.reasons[uid] = late
            else:
                in_queues[record.job.spec.queue] += target.accelerator_count
                orders.actions.append(_start(record, target, why))
    return orders


def _steer(
    orders: _Orders,
    record: JobRecord,
    attempt: AttemptRecord,
    target: Placement | None,
    why: Reason | None,
) -> None:
    """What to do about a job that has an attempt."""
    if attempt.intent is not Intent.RUN:
        return
    if attempt.generation != record.job.generation:
        why = Reason(ReasonCode.SPEC_CHANGED, "it restarts with its new spec")
    elif target == attempt.placement:
        if record.stage is Stage.RUNNING and why is not None:
            orders.reasons[record.uid] = why
        return
    else:
        why = _why_changed(attempt.placement, target, why)
    orders.actions.append(StopAttempt(record.uid, attempt.number, why))


def _why_changed(before: Placement, then: Placement | None, why: Reason | None) -> Reason:
    """The reason of a planned stop; its code is one of those that no failure can have."""
    held = before.accelerator_count
    if then is None:
        detail = why.message if why is not None else ""
        if why is not None and why.code is ReasonCode.MOVED_OFF_NODE:
            return why
        return Reason(ReasonCode.PREEMPTED, f"gives back {held} accelerators: {detail}")
    wanted = then.accelerator_count
    change = f"{before.plan} -> {then.plan}"
    if wanted < held:
        return Reason(ReasonCode.SHRUNK_FOR_OTHERS, change, wanted, held)
    if wanted > held:
        return Reason(ReasonCode.GROWN_INTO_FREE, change, wanted, held)
    moved = sorted(then.nodes - before.nodes) or sorted(then.nodes)
    return Reason(ReasonCode.MOVED_OFF_NODE, f"moves to {', '.join(moved)}", wanted, held)


def _held_by_queue(snapshot: ClusterSnapshot) -> Counter[QueueName]:
    """Accelerators that each queue's jobs hold now, those being released included."""
    held: Counter[QueueName] = Counter()
    for uid in snapshot.holders.values():
        record = snapshot.jobs.get(uid)
        if record is not None:
            held[record.job.spec.queue] += 1
    return held


def _not_yet_released(
    snapshot: ClusterSnapshot,
    record: JobRecord,
    target: Placement,
    held: Mapping[Slot, JobUid],
    in_queues: Counter[QueueName],
) -> Reason | None:
    """Why the target must wait for others to let go; None if it can start.

    Both accelerators and quota have to be free in fact: a queue whose jobs are only about to
    shrink still holds what it holds.
    """
    wanted = target.accelerator_count
    taken = [slot for slot in target.slots() if slot in held]
    if taken:
        holders = tuple(dict.fromkeys(held[slot] for slot in taken))[:5]
        text = f"{len(taken)} of its {wanted} accelerators are being released"
        return Reason(ReasonCode.WAITING_FOR_RELEASE, text, wanted, wanted - len(taken), holders)
    name = record.job.spec.queue
    queue = snapshot.queues.get(name)
    if queue is None or queue.quota_accelerators is None:
        return None
    left = queue.quota_accelerators - in_queues[name]
    if wanted <= left:
        return None
    text = f"queue {name} still holds {in_queues[name]} of its {queue.quota_accelerators}"
    return Reason(ReasonCode.WAITING_FOR_RELEASE, text, wanted, max(0, left))


def _start(record: JobRecord, target: Placement, why: Reason | None) -> StartAttempt:
    number = Attempt(record.attempts_made + 1)
    nodes = ", ".join(sorted(target.nodes))
    reason = why or Reason(ReasonCode.STARTED)
    if reason.code in (ReasonCode.RUNNING, ReasonCode.STARTED):
        reason = replace(
            reason, code=ReasonCode.STARTED, message=f"starts as {target.plan} on {nodes}"
        )
    return StartAttempt(record.uid, number, target, reason)


def waiting(snapshot: ClusterSnapshot) -> Iterator[JobRecord]:
    """Jobs that hold nothing and want to run."""
    for record in snapshot.jobs.values():
        if record.stage in (Stage.QUEUED, Stage.BACKING_OFF) and not record.withdrawn:
            yield record
