"""What happened, told to people: one sentence an event, and the event itself without secrets."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from controlplane.domain import codec
from controlplane.domain.action import (
    Action,
    ChangePlan,
    EndAttempt,
    FailJob,
    ForgetJob,
    StartAttempt,
    StopAttempt,
)
from controlplane.domain.clock import SECOND, Instant
from controlplane.domain.event import (
    AcceleratorHealthChanged,
    CheckpointMissed,
    CycleDecided,
    Event,
    JobOverdue,
    JobProgressed,
    JobsForecast,
    JobSubmitted,
    JobUpdated,
    JobWithdrawn,
    MeasurementsImported,
    ModelFitted,
    NodeDrained,
    NodeLost,
    NodeRegistered,
    NodeRemoved,
    NodesClosed,
    OperatorTermRaised,
    PlanChanged,
    PlanObserved,
    PlanRefused,
    PolicyChanged,
    ProposalFound,
    QueueChanged,
    QueueRemoved,
    RendezvousBound,
    UnitExited,
    UnitStarted,
)
from controlplane.domain.ids import JobUid, SequenceNumber
from controlplane.domain.reason import Reason
from controlplane.domain.record import JobRecord, Outcome
from controlplane.domain.refusal import Refusal
from controlplane.wire import redact
from controlplane.wire.translate import reason_to_wire, timestamp
from headrace.api.counted import counted
from headrace.api.generated import jobs_pb2
from headrace.api.plan import ExecutionPlan

Names = Callable[[JobUid], str]
"""What people call a job; its uid if nobody knows any more."""

_MOST_TOLD = 5
_CLOSED_NAMED = 8
_DECIDED = "CycleDecided"


@dataclass(frozen=True, slots=True)
class _Telling:
    message: str
    uid: str = ""
    node: str = ""
    reason: Reason | None = None


def action_sentence(action: Action) -> str:
    """What was ordered, e.g. ``start attempt 2 with dp4 on node-a, node-b``."""
    match action:
        case StartAttempt():
            nodes = ", ".join(sorted(action.placement.nodes))
            return f"start attempt {action.attempt} with {action.placement.plan} on {nodes}"
        case StopAttempt():
            return f"stop attempt {action.attempt} at a checkpoint"
        case ChangePlan():
            where = f"on {len(action.units)} ranks" if action.units else "where it is"
            return f"let attempt {action.attempt} go on as {action.plan} {where}"
        case EndAttempt():
            return f"end attempt {action.attempt} now"
        case FailJob():
            return "give the job up"
        case ForgetJob():
            return "forget the job" + (" and remove its checkpoints" if action.purge else "")


def set_aside_sentence(record: JobRecord, refusal: Refusal, at: Instant) -> str:
    """That nothing is decided about a job because of what was decided before, and until when."""
    meanwhile = "waits" if record.attempt is None else "keeps what it has"
    left = (refusal.until - at) / SECOND
    return (
        f"What the policy decided about it was refused: {refusal.text}. It {meanwhile} meanwhile, "
        f"and the policy is asked about it again in {left:.0f} s, or once its spec or the policy's "
        "settings change."
    )


def _because(reason: Reason | None) -> str:
    if reason is None:
        return ""
    return f": {reason.message}" if reason.message else f" ({reason.code.value})"


def _why(action: Action) -> str:
    """What a job lost its place for; a start's own sentence says where and how."""
    match action:
        case StopAttempt() | ChangePlan() | EndAttempt() | FailJob():
            return _because(action.reason)
        case ForgetJob():
            return _because(action.cause)
    return ""


def _decided(event: CycleDecided, names: Names) -> _Telling:
    parts = [f"{names(a.uid)}: {action_sentence(a)}{_why(a)}" for a in event.actions]
    if not parts:
        parts = [f"{names(uid)}{_because(reason)}" for uid, reason in event.reasons]
    if not parts:
        parts = [f"nothing about {names(uid)}: {each.text}" for uid, each in event.refused]
    told = "; ".join(parts[:_MOST_TOLD])
    if len(parts) > _MOST_TOLD:
        told += f"; and {len(parts) - _MOST_TOLD} more"
    jobs = set(_of_jobs(event))
    return _Telling(
        f"decided: {told}",
        uid=next(iter(jobs)) if len(jobs) == 1 else "",
        reason=event.reasons[0][1] if len(event.reasons) == 1 else None,
    )


def _of_jobs(event: CycleDecided) -> Iterator[JobUid]:
    yield from (action.uid for action in event.actions)
    yield from (uid for uid, _ in event.reasons)
    yield from (uid for uid, _ in event.refused)


def _exited(event: UnitExited) -> _Telling:
    end = event.exit
    how = {
        Outcome.SUCCEEDED: f"finished at step {end.step}",
        Outcome.STOPPED: f"stopped at step {end.step} as planned",
        Outcome.FAILED: "failed",
        Outcome.LOST: "was lost",
        Outcome.NEVER_STARTED: "never started",
    }[end.outcome]
    return _Telling(
        f"unit {end.unit} of attempt {event.attempt} {how} on {event.node}{_because(end.reason)}",
        uid=event.uid,
        node=event.node,
        reason=end.reason,
    )


def _under(plans: tuple[ExecutionPlan, ...]) -> str:
    if not plans:
        return ""
    if len(plans) > _MOST_TOLD:
        return f" under one of {counted(len(plans), 'plan')}"
    *others, last = map(str, plans)
    return " under " + " or ".join(filter(None, (", ".join(others), last)))


def _about_job(event: Event) -> _Telling | None:
    match event:
        case JobSubmitted(job) | JobUpdated(job):
            verb = "submitted" if isinstance(event, JobSubmitted) else "updated"
            by = f" by {job.submitter}" if job.submitter else ""
            wanted = job.spec.accelerators
            size = (
                str(wanted.minimum)
                if wanted.minimum == wanted.maximum
                else f"{wanted.minimum} to {wanted.maximum}"
            )
            return _Telling(
                f"{verb}{by}: generation {job.generation} in queue {job.spec.queue}, "
                f"wants {size} accelerator{'' if size == '1' else 's'}{_under(job.spec.plans)}",
                uid=job.uid,
            )
        case JobWithdrawn():
            more = " together with its checkpoints" if event.purge else ""
            return _Telling(f"withdrawn{more}", uid=event.uid)
        case RendezvousBound():
            return _Telling(f"attempt {event.attempt} meets at {event.address}", uid=event.uid)
        case UnitStarted():
            return _Telling(f"unit {event.unit} of attempt {event.attempt} is up", uid=event.uid)
        case JobProgressed():
            step, loss = event.progress.step, event.progress.loss
            told = f"step {step}" + ("" if loss is None else f", loss {loss:.4g}")
            return _Telling(told, uid=event.uid)
        case PlanChanged():
            if event.before == event.after:
                text = f"attempt {event.attempt} trains on as {event.after}, as it did"
                return _Telling(text, uid=event.uid, node=event.node)
            return _Telling(
                f"attempt {event.attempt} went from {event.before} to {event.after} after step "
                f"{event.step}, and stood still for {event.stood_still_seconds:.2f} s",
                uid=event.uid,
                node=event.node,
            )
        case PlanRefused():
            return _Telling(
                f"attempt {event.attempt} does not go over to {event.plan}: {event.message}",
                uid=event.uid,
                node=event.node,
            )
        case PlanObserved(row=row):
            took = "" if row.iteration is None else f" takes {1000 * row.iteration:.1f} ms a step"
            return _Telling(
                f"attempt {event.attempt} under {row.plan}{took} (median of {row.steps})",
                uid=event.uid,
                node=event.node,
            )
        case CheckpointMissed():
            return _Telling(
                f"attempt {event.attempt} trains on without a checkpoint of step {event.step}"
                f"{_because(event.reason)}",
                uid=event.uid,
                node=event.node,
                reason=event.reason,
            )
        case UnitExited():
            return _exited(event)
    return None


def _closed(event: NodesClosed) -> str:
    named = [f"{each.node} ({each.closed.value})" for each in event.nodes[:_CLOSED_NAMED]]
    more = len(event.nodes) - len(named)
    if more:
        named.append(f"{more} more")
    return f"Kubernetes keeps work off {', '.join(named) or 'no node'}"


def _about_cluster(event: Event) -> _Telling:
    match event:
        case NodeRegistered():
            found = event.node.accelerators
            types = ", ".join(sorted({accelerator.type for accelerator in found}))
            of_type = f" ({types})" if types else ""
            alive = f", {counted(len(event.running), 'unit')} alive" if event.running else ""
            return _Telling(
                f"{event.node.id} registered with "
                f"{counted(len(found), 'accelerator')}{of_type}{alive}",
                node=event.node.id,
            )
        case NodeLost():
            return _Telling(f"{event.node} was silent for too long", node=event.node)
        case NodeDrained():
            verb = "is drained" if event.drained else "takes work again"
            return _Telling(f"{event.node} {verb}", node=event.node)
        case NodeRemoved():
            return _Telling(f"{event.node} was removed", node=event.node)
        case AcceleratorHealthChanged():
            told = f"is unhealthy: {event.problem}" if event.problem else "is healthy again"
            return _Telling(f"accelerator {event.accelerator} {told}", node=event.node)
        case QueueChanged(queue):
            quota = queue.quota_accelerators
            limit = "no quota" if quota is None else f"a quota of {quota}"
            more = queue.borrowing_accelerators
            if quota is not None and more != 0:
                limit += f" and borrows {'without limit' if more is None else f'up to {more}'}"
            if queue.namespaces:
                limit += f", for jobs of {', '.join(queue.namespaces)} only"
            return _Telling(f"queue {queue.name} has {limit}")
        case QueueRemoved():
            return _Telling(f"queue {event.name} was removed")
        case PolicyChanged(settings, who=who, rolls_back_to=version):
            which = f"the settings of version {version}" if version else "new settings"
            by = f", by {who}" if who else ""
            return _Telling(f"policy {settings.policy} decides, with {which}{by}")
        case OperatorTermRaised():
            return _Telling(f"operator {event.operator} leads under term {event.term}")
    return _about_deciding(event)


def _about_deciding(event: Event) -> _Telling:
    """What decisions follow from: what others tell, was measured, learnt, or found by a search."""
    match event:
        case NodesClosed():
            return _Telling(_closed(event))
        case ModelFitted(fit):
            return _Telling(f"steps of {fit.key} are fitted to {counted(fit.rows, 'measurement')}")
        case ProposalFound(proposal):
            count = len(proposal.targets)
            return _Telling(
                f"a longer search of event {proposal.made_of} proposes to start or change {count} "
                f"jobs: the round would be worth {100 * proposal.gain:.2g} % more"
            )
        case JobOverdue():
            return _Telling(
                f"it trains on past what was predicted{_because(event.reason)}",
                uid=event.uid,
                reason=event.reason,
            )
        case JobsForecast(told):
            return _Telling(
                f"when {len(told.jobs)} jobs start and end is predicted of event {told.made_of}, "
                f"played {told.plays} times in {told.took_seconds:.2g} s"
            )
        case MeasurementsImported(rows, who):
            models = ", ".join(dict.fromkeys(row.asked.model for row in rows))
            were = "was" if len(rows) == 1 else "were"
            return _Telling(
                f"{counted(len(rows), 'measurement')} of {models} {were} imported by {who}"
            )
    return _Telling(event.kind)


def named_in(event: Event) -> tuple[JobUid, ...]:
    """The jobs that ``logged_event`` calls by their names."""
    if isinstance(event, CycleDecided):
        ordered = [action.uid for action in event.actions] or [uid for uid, _ in event.reasons]
        return tuple((ordered or [uid for uid, _ in event.refused])[:_MOST_TOLD])
    told = _about_job(event)
    return (JobUid(told.uid),) if told is not None else ()


def logged_event(sequence: SequenceNumber, event: Event, names: Names) -> jobs_pb2.LoggedEvent:
    """One event of the log for people."""
    if isinstance(event, CycleDecided):
        told = _decided(event, names)
    else:
        told = _about_job(event) or _about_cluster(event)
    return jobs_pb2.LoggedEvent(
        sequence=sequence,
        at=timestamp(event.at),
        kind=event.kind,
        uid=told.uid,
        node=told.node,
        job_name=names(JobUid(told.uid)) if told.uid else "",
        message=told.message,
        reason=reason_to_wire(told.reason),
        body_json=redact.manifests_in(codec.dump_event(event)),
    )


class Decision(Protocol):
    """What one decision says of one job."""

    @property
    def sequence(self) -> SequenceNumber:
        """Place of the whole decision in the log."""
        ...

    @property
    def uid(self) -> JobUid:
        """The job."""
        ...

    @property
    def at(self) -> Instant:
        """When it was decided."""
        ...

    @property
    def action(self) -> Action | None:
        """What was ordered; None where only the reason changed."""
        ...

    @property
    def reason(self) -> Reason | None:
        """Why."""
        ...


def logged_decision(decision: Decision, names: Names) -> jobs_pb2.LoggedEvent:
    """What was decided about one job, for people."""
    action = decision.action
    # Without an order only the reason is new, which may well be that it runs as planned.
    told = action_sentence(action) if action is not None else names(decision.uid)
    return jobs_pb2.LoggedEvent(
        sequence=decision.sequence,
        at=timestamp(decision.at),
        kind=_DECIDED,
        uid=decision.uid,
        job_name=names(decision.uid),
        message=f"decided: {told}{_because(decision.reason)}",
        reason=reason_to_wire(decision.reason),
        body_json=codec.dump(action, Action) if action is not None else "{}",
    )
