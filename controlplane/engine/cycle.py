"""One cycle: the rules' duties, then the policy's targets, then what to order. Pure.

The policy says where jobs should run. This file orders the difference and keeps the handover
rule: an accelerator enters a new placement only after its holder's release is known.

What breaks an invariant is not carried out: about the jobs that are to blame, if the rest is sound
without them, else at all. It is decided once more without these jobs, so that nobody makes room for
them, and for a while they are not asked about (``domain.refusal``).
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from controlplane.domain.action import Action, ChangePlan, StartAttempt, StopAttempt
from controlplane.domain.changing import changed
from controlplane.domain.clock import Instant
from controlplane.domain.event import CycleDecided
from controlplane.domain.ids import JobUid, QueueName, Term
from controlplane.domain.job import Job
from controlplane.domain.lifecycle import Stage
from controlplane.domain.placement import LaunchUnit, Placement
from controlplane.domain.policy import CheckedPolicy, Decision, Optimality, Policy, Violation
from controlplane.domain.proposal import ProposalUse
from controlplane.domain.reason import Reason, ReasonCode, named_holders
from controlplane.domain.record import AttemptRecord, Intent, JobRecord
from controlplane.domain.refusal import Refusal, refusal_after
from controlplane.domain.snapshot import ClusterSnapshot, Slot
from controlplane.engine.duties import SUSPENDED, duties
from controlplane.engine.invariants import violations
from controlplane.engine.preempting import preempted
from controlplane.engine.refusals import refused_before, set_aside, without
from controlplane.engine.resizing import is_same_place, suiting, units_for
from controlplane.engine.state import ClusterState, SequencedEvent
from controlplane.engine.suspects import remark
from headrace.api.counted import counted

_TOLD_AS_SAID = (ReasonCode.MOVED_OFF_NODE, ReasonCode.SPEC_CHANGED, ReasonCode.TRIES_PLAN)
"""Why a job is laid out anew, where only the policy knows."""

_NAMED = 3
"""So many jobs are named in one reason."""

_CHECKED_AT_MOST = 8
"""So many times what is left of a decision is checked. A job that keeps what it has may be in the
way of another one, and that one of a third: a chain of more is no single mistake any more.
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a cycle came to.

    Attributes:
        decided: The decision as it is logged and folded.
        refused: Why the policy's decision, or some of it, was not carried out; empty when all was.
        refused_jobs: The jobs about which alone it was not, those that were set aside among them,
            each with why; empty if it was not at all.
        said: What the policy said of each job. Most of it repeats what the job was told before, and
            is not logged again; but who holds what a job lacks is here as it is now.
        optimality: How good the policy's decision is, where it has a measure for that.
        targets: Where jobs should run by what is carried out of the decision; empty when nothing
            is.
        due: The first of the actions, which the rules order, whoever decides.
        proposal: What the policy made of what a longer search proposed; None if nothing was.
    """

    decided: CycleDecided
    refused: tuple[str, ...] = ()
    refused_jobs: Mapping[JobUid, str] = field(default_factory=dict)
    said: Mapping[JobUid, Reason] = field(default_factory=dict)
    optimality: Optimality | None = None
    targets: Mapping[JobUid, Placement] = field(default_factory=dict)
    due: tuple[Action, ...] = ()
    proposal: ProposalUse | None = None

    @property
    def changes_nothing(self) -> bool:
        """Whether there is nothing to log."""
        decided = self.decided
        return not decided.actions and not decided.reasons and not decided.refused

    @property
    def refused_whole(self) -> tuple[str, ...]:
        """Why nothing of the policy's decision was carried out; empty when anything was."""
        return () if self.refused_jobs else self.refused


@dataclass(slots=True)
class _Orders:
    actions: list[Action] = field(default_factory=list)
    reasons: dict[JobUid, Reason] = field(default_factory=dict)
    said: Mapping[JobUid, Reason] = field(default_factory=dict)
    optimality: Optimality | None = None
    targets: Mapping[JobUid, Placement] = field(default_factory=dict)
    proposal: ProposalUse | None = None
    refused: tuple[tuple[JobUid, Refusal], ...] = ()


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a policy's decision comes to.

    Attributes:
        orders: What follows from it; None if nothing of it can be used.
        told: Every rule that it would have broken, and those for which jobs were set aside.
        refused: Jobs about which nothing is carried out, each with why.
        blamed: Of these, those whose own targets were wrong: not those that were only in the way
            of others, or others in theirs, once these kept what they have.
        decision: What was decided; None if nothing was.
    """

    orders: _Orders | None
    told: tuple[str, ...] = ()
    refused: Mapping[JobUid, str] = field(default_factory=dict)
    blamed: Mapping[JobUid, str] = field(default_factory=dict)
    decision: Decision | None = None


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
    name = state.settings.policy
    answer = _ask(policies, name, snapshot)
    orders = answer.orders
    if orders is None:
        text = f"policy {name} gave no usable decision: {answer.told[0]}"
        orders = _tell_waiting(snapshot, Reason(ReasonCode.POLICY_REFUSED, text))
    else:
        orders.refused = tuple(
            (uid, refusal_after(snapshot.jobs[uid].refusal, text, now))
            for uid, text in answer.blamed.items()
            if uid in snapshot.jobs
        )
    decided = _decided(state, snapshot, term, due, orders)
    return Outcome(
        decided,
        answer.told,
        answer.refused,
        orders.said,
        orders.optimality,
        orders.targets,
        due,
        orders.proposal,
    )


def hold_back(state: ClusterState, now: Instant, term: Term) -> Outcome:
    """What is said while nothing may be ordered yet: jobs that no cycle has seen learn why."""
    snapshot = state.snapshot(now)
    silent = ", ".join(state.silent_nodes[:5]) or "nodes that its store does not know"
    reason = Reason(
        ReasonCode.RECOVERING, f"the control plane has just started and waits to hear of {silent}"
    )
    told = _tell_waiting(snapshot, reason).reasons
    new = {uid: why for uid, why in told.items() if snapshot.jobs[uid].reason is None}
    return Outcome(_decided(state, snapshot, term, (), _Orders(reasons=new)))


def _decided(
    state: ClusterState,
    snapshot: ClusterSnapshot,
    term: Term,
    due: tuple[Action, ...],
    orders: _Orders,
) -> CycleDecided:
    """The decision as it is logged; reasons that are no news are not told again."""
    jobs = snapshot.jobs
    told = tuple(
        (uid, reason)
        for uid, reason in orders.reasons.items()
        if (known := jobs[uid].reason) is not reason and not reason.repeats(known)
    )
    actions = (*due, *orders.actions)
    return CycleDecided(term, state.last_sequence, actions, told, orders.refused, at=snapshot.at)


def _ask(policies: Mapping[str, Policy], name: str, snapshot: ClusterSnapshot) -> _Answer:
    """What follows from the policy's decision, and what of it cannot be used, and why."""
    policy = policies.get(name)
    if policy is None:
        text = f"there is no policy {name!r}; there are {', '.join(sorted(policies))}"
        return _Answer(None, (text,))
    aside = refused_before(snapshot)

    def decided(*others: Mapping[JobUid, str], looks: int = _CHECKED_AT_MOST) -> _Answer:
        without_these = {uid: text for each in others for uid, text in each.items()}
        decision = policy(set_aside(snapshot, without_these))
        return _carried_out(policy, name, snapshot, decision, without_these, looks)

    first = _guarded(lambda: decided(aside, looks=1))
    to_blame = {uid: text for uid, text in first.blamed.items() if uid in snapshot.jobs}
    if first.orders is None and aside and not first.blamed:
        # It cannot do without them: then they are refused once more.
        return _guarded(decided)
    if to_blame:
        # Others were to make room for them, or to get what they leave.
        second = _guarded(lambda: decided(aside, to_blame))
        if second.orders is not None:
            told = tuple(dict.fromkeys((*first.told, *second.told)))
            return replace(second, told=told, blamed={**to_blame, **second.blamed})
    decision = first.decision
    if first.blamed and decision is not None:
        return _guarded(lambda: _carried_out(policy, name, snapshot, decision, aside))
    return first


def _guarded(work: Callable[[], _Answer]) -> _Answer:
    """The answer; a broken policy must not take the control plane down: jobs run on, people are
    told.
    """
    try:
        return work()
    except Exception as error:
        return _Answer(None, (f"{type(error).__name__}: {error}",))


def _carried_out(
    policy: Policy,
    name: str,
    snapshot: ClusterSnapshot,
    decision: Decision,
    aside: Mapping[JobUid, str],
    looks: int = _CHECKED_AT_MOST,
) -> _Answer:
    """What follows from a decision without what it breaks. A mistake about one job must not stop
    the others, so that job keeps what it has, and what is left is checked again, so many times at
    most; but of a decision that is wrong in a way that nobody can be blamed for, nothing is used.
    """
    made, told = decision, dict[str, None]()
    refused, blamed = dict(aside), dict[JobUid, str]()
    if aside:
        decision = without(snapshot, decision, name, aside, asked=False)
    for look in range(looks):
        orders = _difference(snapshot, decision)
        broken = (
            *_broken(policy, snapshot, decision),
            *violations(snapshot, tuple(orders.actions)),
        )
        if not broken:
            whys = tuple(dict.fromkeys((*told, *aside.values())))
            return _Answer(_attributed(orders, decision.proposal), whys, refused, blamed, made)
        told.update(dict.fromkeys(each.text for each in broken))
        of_jobs = {uid: each.text for each in reversed(broken) for uid in each.jobs}
        new = {uid: of_jobs[uid] for uid in of_jobs if uid not in refused}
        if not new or not all(each.jobs for each in broken):
            break
        blamed = blamed or new
        refused |= new
        if look + 1 < looks:
            decision = without(snapshot, decision, name, new)
    return _Answer(None, tuple(told), blamed=blamed, decision=made)


def _broken(policy: Policy, snapshot: ClusterSnapshot, decision: Decision) -> tuple[Violation, ...]:
    """What the decision breaks of what the policy promises."""
    if not isinstance(policy, CheckedPolicy):
        return ()
    return tuple(policy.violations(snapshot, decision))


def _tell_waiting(snapshot: ClusterSnapshot, reason: Reason) -> _Orders:
    """The same reason for every job that would run if it could."""
    waiting = (
        uid
        for uid, record in snapshot.jobs.items()
        if not record.withdrawn
        and record.stage in (Stage.QUEUED, Stage.BACKING_OFF)
        and snapshot.at >= record.backoff_until
    )
    return _Orders(reasons=dict.fromkeys(waiting, reason))


def _difference(snapshot: ClusterSnapshot, decision: Decision) -> _Orders:
    orders = _Orders(
        said=decision.reasons,
        optimality=decision.optimality,
        targets=decision.targets,
        proposal=decision.proposal,
    )
    released = _Released(snapshot)
    newcomers = _Newcomers(snapshot, decision)
    targets, reasons = decision.targets, decision.reasons
    for uid, record in snapshot.jobs.items():
        if record.withdrawn or record.finished_at is not None:
            continue
        target = targets.get(uid)
        why = reasons.get(uid)
        if target is None and why is not None and record.stage is Stage.QUEUED:
            # Most jobs of a long queue: they wait on, and nothing is new for them.
            if why is not record.reason and not why.repeats(record.reason):
                orders.reasons[uid] = why
            continue
        attempt = record.attempt
        if attempt is not None:
            if target is attempt.placement and why is record.reason:
                continue  # Most jobs that run: they go on, and nothing is new for them.
            _steer(orders, record, attempt, target, why, newcomers, released)
        elif record.stage is Stage.SUSPENDED:
            orders.reasons[uid] = SUSPENDED
        elif record.stage is Stage.BACKING_OFF and snapshot.at < record.backoff_until:
            pass  # The failure that it recovers from stays its reason.
        elif target is None:
            if why is not None:
                orders.reasons[uid] = why
        else:
            late = released.awaits(record, target)
            if late is not None:
                orders.reasons[uid] = late
            else:
                released.use(record, target)
                orders.actions.append(_start(record, target, why, snapshot.at))
    return orders


def _attributed(orders: _Orders, proposal: ProposalUse | None) -> _Orders:
    """The same orders, which say where a longer search led to them."""
    if proposal is not None and proposal.jobs:
        orders.actions = [_from_search(each, proposal.jobs) for each in orders.actions]
    return orders


def _from_search(action: Action, jobs: Collection[JobUid]) -> Action:
    if action.uid not in jobs or not isinstance(action, StartAttempt | StopAttempt | ChangePlan):
        return action
    message = f"{action.reason.message}, as a longer search proposed"
    return replace(action, reason=changed(action.reason, message=message))


def _steer(
    orders: _Orders,
    record: JobRecord,
    attempt: AttemptRecord,
    target: Placement | None,
    why: Reason | None,
    newcomers: "_Newcomers",
    released: "_Released",
) -> None:
    """What to do about a job that has an attempt."""
    if attempt.intent is not Intent.RUN:
        return
    if target == attempt.placement:
        if record.stage is Stage.RUNNING and why is not None and attempt.plan_change is None:
            orders.reasons[record.uid] = why
        return
    before = attempt.placement
    if target is not None and target.plan == before.plan and is_same_place(before, target):
        return  # The order of its ranks is its own.
    instead = newcomers.instead_of(record, attempt.placement, target)
    reason = _why_changed(attempt.placement, target, why, newcomers.named(instead))
    if reason.code is ReasonCode.PREEMPTED:
        reason = preempted(reason, why, record.job, newcomers.jobs(instead))
    units = _units_in_memory(record, attempt, target)
    if target is None or units is None:
        then = target.anew if target is not None else None
        orders.actions.append(StopAttempt(record.uid, attempt.number, reason, then=then))
        return
    # One change at a time, and the first one only once the ranks can be asked: before that, some
    # of them may still be started, and all must begin with the same plan. It is over when those
    # that it left out are gone: what they say late is not heard as an answer to the next one.
    over = attempt.plan_change is None and not attempt.leaving
    if not (attempt.trained and attempt.is_up and over):
        return
    if released.awaits(record, target) is None:
        released.use(record, target)
        others = () if units == attempt.placement.units else units
        orders.actions.append(
            ChangePlan(record.uid, attempt.number, target.plan, reason, units=others)
        )


def _units_in_memory(
    record: JobRecord, attempt: AttemptRecord, target: Placement | None
) -> tuple[LaunchUnit, ...] | None:
    """The units with which the ranks go where they should without leaving; None for a restart."""
    if target is None or not record.job.spec.changes_plan_in_memory:
        return None
    if is_same_place(attempt.placement, target):
        return suiting(target.plan, attempt.placement.units)
    gives_back = target.accelerator_count < attempt.placement.accelerator_count
    if gives_back and (attempt.joining or not attempt.trained):
        # Others wait for it, so it is not waited for ranks that cannot be asked.
        return None
    return units_for(attempt, target)


def _as_chosen(why: Reason | None) -> str:
    """What the policy says of what it chose, to be added to a sentence; nothing if it does not."""
    told = why.message if why is not None and why.code is ReasonCode.STARTED else ""
    return f": {told}" if told else ""


def _why_changed(
    before: Placement, then: Placement | None, why: Reason | None, room: str
) -> Reason:
    """Why a job is stopped or changes its plan; its code is one that no failure can have."""
    held = before.accelerator_count
    makes_room = f": makes room for {room}" if room else ""
    if then is None:
        if why is not None and why.code in (ReasonCode.MOVED_OFF_NODE, ReasonCode.SPEC_CHANGED):
            return why
        detail = f": {why.message}" if why is not None and why.message else ""
        if why is not None and why.code is ReasonCode.PREEMPTED:
            makes_room = ""  # The policy says itself for whom, and why.
        text = f"gives back {counted(held, 'accelerator')}{makes_room or detail}"
        return Reason(ReasonCode.PREEMPTED, text)
    wanted = then.accelerator_count
    moved = sorted(then.nodes - before.nodes) or sorted(then.nodes)
    same_plan = before.plan == then.plan
    change = f"moves to {', '.join(moved)}" if same_plan else f"{before.plan} -> {then.plan}"
    if why is not None and why.code in _TOLD_AS_SAID:
        return Reason(why.code, f"{change}: {why.message}", wanted, held)
    chosen = _as_chosen(why)
    if wanted < held and not room and chosen:
        # Nobody asked for it: fewer are as good.
        return Reason(ReasonCode.PLAN_CHANGED, f"{change}{chosen}", wanted, held)
    if wanted < held:
        return Reason(ReasonCode.SHRUNK_FOR_OTHERS, f"{change}{makes_room}", wanted, held)
    if wanted > held:
        return Reason(ReasonCode.GROWN_INTO_FREE, f"{change}{chosen}", wanted, held)
    if before.units == then.units:
        return Reason(ReasonCode.PLAN_CHANGED, f"{change}{chosen}", wanted, held)
    return Reason(ReasonCode.MOVED_OFF_NODE, f"{change}{makes_room}", wanted, held)


class _Newcomers:
    """Who is to get what others leave. Looked up only if somebody leaves anything."""

    def __init__(self, snapshot: ClusterSnapshot, decision: Decision) -> None:
        self._snapshot = snapshot
        self._targets = decision.targets
        self._coming: dict[Slot, JobUid] | None = None

    def instead_of(
        self, record: JobRecord, before: Placement, then: Placement | None
    ) -> Collection[JobUid]:
        """Those for whom a job leaves accelerators, or a share of its queue's quota; empty if it
        is for nobody.
        """
        if self._coming is None:
            self._coming = self._who_comes_where()
        kept = set() if then is None else set(then.slots())
        left = (slot for slot in before.slots() if slot not in kept)
        uids = dict.fromkeys(self._coming[slot] for slot in left if slot in self._coming)
        return uids or self._within_quota(record.job.spec.queue)

    def jobs(self, uids: Collection[JobUid]) -> list[Job]:
        """The jobs of these uids."""
        return [self._snapshot.jobs[uid].job for uid in uids]

    def named(self, uids: Collection[JobUid]) -> str:
        """The names of these jobs, the first few of them."""
        names = [job.full_name for job in self.jobs(uids)]
        if len(names) > _NAMED:
            names[_NAMED:] = [f"{len(names) - _NAMED} more"]
        return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))

    def _who_comes_where(self) -> dict[Slot, JobUid]:
        coming: dict[Slot, JobUid] = {}
        for uid, target in self._targets.items():
            record = self._snapshot.jobs.get(uid)
            attempt = record.attempt if record is not None else None
            if record is not None and (attempt is None or target is not attempt.placement):
                coming.update(dict.fromkeys(target.slots(), uid))
        return coming

    def _within_quota(self, name: QueueName) -> dict[JobUid, None]:
        """Jobs that are to start in the queue, if they have to share a quota."""
        queue = self._snapshot.queues.get(name)
        if queue is None or queue.limit_accelerators is None:
            return {}
        jobs = self._snapshot.jobs
        coming = dict.fromkeys((self._coming or {}).values())
        return {
            uid: None
            for uid in coming
            if jobs[uid].attempt is None and jobs[uid].job.spec.queue == name
        }


class _Released:
    """Whether what a start or a growth needs is free in fact: accelerators, and a queue's quota.

    A job that is only about to shrink still holds what it holds, of both. And ranks of an earlier
    attempt that came back with their node must be gone before the next attempt begins.
    """

    def __init__(self, snapshot: ClusterSnapshot) -> None:
        self._snapshot = snapshot
        self._in_queues: Counter[QueueName] | None = None
        nodes = (snapshot.nodes[name] for name in snapshot.conditions.strays)
        self._strays = {s.uid: n.id for n in nodes for s in n.strays}

    def awaits(self, record: JobRecord, target: Placement) -> Reason | None:
        """Why the target must wait for others to let go; None if it can start."""
        held = self._snapshot.holders
        wanted = target.accelerator_count
        if record.uid in self._strays:
            text = f"ranks of an earlier attempt are being ended on {self._strays[record.uid]}"
            return _not_released(record, text, wanted, 0, {record.uid: 1})
        # What its own units that leave still hold is not free either.
        own = set(record.attempt.placement.slots()) if record.attempt is not None else set()
        taken = Counter(held[slot] for slot in target.slots() if slot in held and slot not in own)
        if taken:
            count = taken.total()
            text = f"{count} of its {wanted} accelerators are being released"
            return _not_released(record, text, wanted, wanted - count, taken)
        name = record.job.spec.queue
        quota = self._quota(name)
        if quota is None or wanted <= _held_already(record):
            return None  # Who gives back is wanted most where a queue holds too much.
        in_use = self._held_by_queue()[name]
        if wanted - _held_already(record) <= quota - in_use:
            return None
        text = f"queue {name} still holds {in_use} of its {quota}"
        return _not_released(record, text, wanted, max(0, quota - in_use), self._holders_in(name))

    def use(self, record: JobRecord, target: Placement) -> None:
        """The target is taken up."""
        if self._quota(record.job.spec.queue) is not None:
            more = target.accelerator_count - _held_already(record)
            self._held_by_queue()[record.job.spec.queue] += max(0, more)

    def _quota(self, name: QueueName) -> int | None:
        queue = self._snapshot.queues.get(name)
        return queue.limit_accelerators if queue is not None else None

    def _holders_in(self, name: QueueName) -> Counter[JobUid]:
        """The queue's jobs that hold something, and how much."""
        jobs = self._snapshot.jobs
        return Counter(
            uid
            for uid in self._snapshot.holders.values()
            if uid in jobs and jobs[uid].job.spec.queue == name
        )

    def _held_by_queue(self) -> Counter[QueueName]:
        """Accelerators that each queue's jobs hold, those being released included."""
        if self._in_queues is None:
            self._in_queues = Counter()
            for uid in self._snapshot.holders.values():
                record = self._snapshot.jobs.get(uid)
                if record is not None:
                    self._in_queues[record.job.spec.queue] += 1
        return self._in_queues


def _held_already(record: JobRecord) -> int:
    return record.attempt.placement.accelerator_count if record.attempt is not None else 0


def _not_released(
    record: JobRecord, text: str, wanted: int, free: int, held: Mapping[JobUid, int]
) -> Reason:
    return Reason(
        ReasonCode.WAITING_FOR_RELEASE,
        text,
        wanted,
        free,
        *named_holders(held),
        type=record.job.spec.accelerators.type,
    )


def _start(record: JobRecord, target: Placement, why: Reason | None, at: Instant) -> StartAttempt:
    nodes = ", ".join(sorted(target.nodes))
    reason = why or Reason(ReasonCode.STARTED)
    if reason.code in (ReasonCode.RUNNING, ReasonCode.STARTED):
        message = f"starts as {target.plan} on {nodes}{_as_chosen(why)}"
        if record.stage is Stage.BACKING_OFF and record.reason is not None:
            ended = record.reason.message.partition("\n")[0]
            message += f" again, after attempt {record.attempts_made}: {ended}"
        message += remark(record, target, at)
        reason = changed(reason, code=ReasonCode.STARTED, message=message)
    return StartAttempt(record.uid, record.next_attempt, target, reason)
