"""How each event changes the state: one small function an event. Nothing is decided here.

An event about an attempt that is not the job's present one changes no job: late and doubled
messages fall through. So does what a node tells of units that are not placed on it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import isfinite
from typing import Any

from controlplane.domain.action import (
    Action,
    ChangePlan,
    EndAttempt,
    FailJob,
    ForgetJob,
    StartAttempt,
    StopAttempt,
)
from controlplane.domain.changing import changed
from controlplane.domain.clock import Instant
from controlplane.domain.event import (
    AcceleratorHealthChanged,
    AttemptReport,
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
from controlplane.domain.forecast import ForecastOutcome, KnownForecasts
from controlplane.domain.ids import ATTEMPT_LIMIT, Attempt, JobUid, NodeId, QueueName, Term
from controlplane.domain.job import AcceleratorRequest, Job, JobSpec, Owner
from controlplane.domain.lifecycle import IDLE, Stage, check
from controlplane.domain.memory_loss import MemoryLoss, keep_losses
from controlplane.domain.node import ClosedNode, Contact
from controlplane.domain.observation import Observation
from controlplane.domain.policy import PolicySettings
from controlplane.domain.proposal import Proposal
from controlplane.domain.queue import Queue
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import (
    AttemptRecord,
    Intent,
    JobRecord,
    NodeRecord,
    Outcome,
    Progress,
    RunningUnit,
    UnitExit,
)
from controlplane.domain.settings_version import SettingsVersion, with_version
from controlplane.domain.step_time_fit import StepTimeFit
from controlplane.domain.switch_price import SwitchPrice
from controlplane.engine import (
    forecasts,
    observations,
    refusals,
    resizing,
    saves,
    switch_prices,
    switches,
)
from controlplane.engine.attempt_end import conclude, type_of, with_exit, with_last_step
from controlplane.engine.closed_nodes import close, closing_of
from controlplane.engine.dating import dated
from controlplane.engine.hearsay import is_hearsay
from controlplane.engine.new_specs import attempt_under_new_spec
from controlplane.engine.operator_terms import raised
from controlplane.engine.purges import Purges, hand_over, purger
from controlplane.engine.remembered_uids import remember_attempt, unwant

_REPORTERS_KEPT = 16


@dataclass(slots=True)
class Draft:
    """The maps of the next state while a batch is folded into them."""

    jobs: dict[JobUid, JobRecord]
    nodes: dict[NodeId, NodeRecord]
    queues: dict[QueueName, Queue]
    settings: PolicySettings
    term: Term
    attempts_seen: dict[JobUid, Attempt]
    unwanted: dict[JobUid, None]
    purges: Purges
    attempt_floor: Attempt = Attempt(0)
    observations: dict[str, Observation] = field(default_factory=dict)
    switch_prices: dict[str, SwitchPrice] = field(default_factory=dict)
    fits: dict[str, StepTimeFit] = field(default_factory=dict)
    _own_uids: bool = False
    settings_versions: tuple[SettingsVersion, ...] = ()
    proposal: Proposal | None = None
    operator_terms: dict[str, int] = field(default_factory=dict)
    memory_losses: dict[str, MemoryLoss] = field(default_factory=dict)
    closed_nodes: dict[str, tuple[ClosedNode, ...]] = field(default_factory=dict)
    forecasts: dict[JobUid, KnownForecasts] = field(default_factory=dict)
    forecast_outcomes: tuple[ForecastOutcome, ...] = ()
    _placed: dict[NodeId, list[tuple[JobUid, Attempt, int]]] | None = None

    def units_on(self, node: NodeId) -> Sequence[tuple[JobUid, Attempt, int]]:
        """Units that were placed on a node; some may have ended since. All nodes are looked through
        at once: when many are lost, one after the other would take longer than anyone waits.
        """
        if self._placed is None:
            self._placed = {}
            for record in self.jobs.values():
                if (attempt := record.attempt) is not None:
                    for unit in attempt.units:
                        held = self._placed.setdefault(unit.node, [])
                        held.append((record.uid, attempt.number, unit.index))
        return self._placed.get(node, ())

    def remembers(self) -> None:
        """Uids are about to be remembered, or not any more. Thousands are, and few events change
        which, so they are the state's own until then.
        """
        if not self._own_uids:
            self.attempts_seen, self.unwanted = dict(self.attempts_seen), dict(self.unwanted)
            self._own_uids = True

    def starts(self) -> None:
        """Units are about to begin, so what was placed has to be looked through again."""
        self._placed = None

    def move(self, record: JobRecord, stage: Stage, why: str, **changes: Any) -> None:
        """Puts a changed job back, if the lifecycle table knows the step."""
        if stage is not record.stage:
            check(record.stage, stage, f"{record.uid}: {why}")
        self.jobs[record.uid] = changed(record, stage=stage, **changes)

    def current(self, uid: JobUid, number: Attempt) -> tuple[JobRecord, AttemptRecord] | None:
        """The job and its present attempt, if that is the one meant."""
        record = self.jobs.get(uid)
        if record is None or record.attempt is None or record.attempt.number != number:
            return None
        return record, record.attempt

    def told_of(self, report: AttemptReport) -> tuple[JobRecord, AttemptRecord] | None:
        """The same, if whoever reports may speak for it."""
        found = self.current(report.uid, report.attempt)
        return None if found is None or is_hearsay(found[1], report) else found


def fold_event(draft: Draft, event: Event) -> None:
    """Changes ``draft`` as ``event`` says."""
    _FOLDS[type(event)](draft, event)
    if draft.proposal is not None and draft.proposal.is_outdated(event.at):
        draft.proposal = None
    if draft.forecasts:
        draft.forecast_outcomes = forecasts.followed(
            draft.forecasts, draft.forecast_outcomes, draft.jobs, draft.nodes, event
        )


def _idle_stage(spec: JobSpec) -> Stage:
    return Stage.SUSPENDED if spec.suspend else Stage.QUEUED


def _submitted(draft: Draft, event: JobSubmitted | JobUpdated) -> None:
    job = event.job
    known = draft.jobs.get(job.uid)
    if known is not None:
        if job.generation > known.job.generation:
            _replaced(draft, known, job, event.at)
        return
    if job.uid in draft.unwanted or job.uid in draft.attempts_seen:
        draft.remembers()
    draft.unwanted.pop(job.uid, None)
    # Its owner wants it again: what was still to be removed is a living job's by now.
    draft.purges.pop(job.uid, None)
    draft.jobs[job.uid] = JobRecord(
        job=_kept(job, event.at),
        stage=_idle_stage(job.spec),
        attempts_made=draft.attempts_seen.pop(job.uid, Attempt(0)),
        # Only a uid that its owner brings can be of the future that was lost in a restore.
        attempt_floor=draft.attempt_floor if job.owner is Owner.KUBERNETES else Attempt(0),
    )


def _kept(job: Job, submitted_at: Instant) -> Job:
    spec = changed(job.spec, accelerators=one_object(job.spec.accelerators))
    return changed(job, spec=spec, submitted_at=submitted_at)


@lru_cache(maxsize=4096)
def one_object(request: AcceleratorRequest) -> AcceleratorRequest:
    """The same object for equal requests: thousands of jobs ask for few different things, and a
    policy that looks one up finds the very same object sooner than an equal one.
    """
    return request


def _replaced(draft: Draft, known: JobRecord, job: Job, at: Instant) -> None:
    if known.withdrawn:
        return
    stage = known.stage
    failures, setbacks, backoff_until = known.failures, known.setbacks, known.backoff_until
    if stage in IDLE:
        # A changed spec gets a new chance: what failed before may be what was changed.
        stage = _idle_stage(job.spec)
        failures, setbacks, backoff_until = 0, 0, Instant(0)
    draft.move(
        known,
        stage,
        "its spec was replaced",
        job=_kept(job, known.job.submitted_at),
        attempt=attempt_under_new_spec(known, job),
        failures=failures,
        setbacks=setbacks,
        backoff_until=backoff_until,
        out_of_memory=(),
        came_apart_at=-1,
        raised=None,
        refusal=None,
    )
    draft.jobs[job.uid] = dated(known, draft.jobs[job.uid], at)


def _withdrawn(draft: Draft, event: JobWithdrawn) -> None:
    record = draft.jobs.get(event.uid)
    if record is None:
        _unwant(draft, event.uid)
        return
    draft.jobs[event.uid] = changed(record, withdrawn=True, purge=record.purge or event.purge)


def _node_registered(draft: Draft, event: NodeRegistered) -> None:
    name = event.node.id
    before = draft.nodes.get(name)
    strays = [unit for unit in event.running if not _adopted(draft, name, unit, event.at)]
    alive = ((unit.uid, unit.attempt) for unit in event.running)
    for uid, attempt in (*event.highest_attempts, *alive):
        if attempt >= ATTEMPT_LIMIT:
            continue
        record = draft.jobs.get(uid)
        if record is None:
            _remember_attempt(draft, uid, attempt)
        elif attempt > record.attempts_made:
            draft.jobs[uid] = changed(record, attempts_made=attempt)
    draft.nodes[name] = NodeRecord(
        node=event.node,
        contact=Contact.ONLINE,
        drained=before.drained if before else False,
        strays=tuple(strays),
        last_change_at=event.at,
        closed=closing_of(draft.closed_nodes, name),
    )
    for uid, (holder, attempt, manifest) in draft.purges.items():
        if not holder:
            draft.purges[uid] = (name, attempt, manifest)


def _remember_attempt(draft: Draft, uid: JobUid, attempt: Attempt) -> None:
    draft.remembers()
    remember_attempt(draft.attempts_seen, uid, attempt)


def _unwant(draft: Draft, uid: JobUid) -> None:
    draft.remembers()
    unwant(draft.unwanted, uid)


def _adopted(draft: Draft, node: NodeId, unit: RunningUnit, at: Instant) -> bool:
    """Whether the running unit belongs to its job's present attempt; notes that it is up."""
    started = UnitStarted(unit.uid, unit.attempt, unit.unit, at, node)
    found = draft.told_of(started)
    if found is None or not found[1].holds(unit.unit):
        return False
    record, attempt = found
    if unit.unit == 0 and attempt.plan_change is not None:
        change = changed(attempt.plan_change, heard_at=at)
        draft.jobs[unit.uid] = changed(record, attempt=changed(attempt, plan_change=change))
    _unit_started(draft, started)
    return True


def _node_lost(draft: Draft, event: NodeLost) -> None:
    node = draft.nodes.get(event.node)
    if node is None or node.contact is Contact.LOST:
        return
    draft.nodes[event.node] = changed(
        node, contact=Contact.LOST, strays=(), last_change_at=event.at
    )
    hand_over(draft.purges, draft.nodes, event.node)
    reason = Reason(ReasonCode.NODE_LOST, f"node {event.node} was silent for longer than allowed")
    for uid, number, index in draft.units_on(event.node):
        _release(draft, uid, number, UnitExit(index, Outcome.LOST, 0, reason, event.at))


def _node_drained(draft: Draft, event: NodeDrained) -> None:
    node = draft.nodes.get(event.node)
    if node is not None:
        draft.nodes[event.node] = changed(node, drained=event.drained)


def _nodes_closed(draft: Draft, event: NodesClosed) -> None:
    draft.closed_nodes = close(draft.closed_nodes, draft.nodes, event)


def _node_removed(draft: Draft, event: NodeRemoved) -> None:
    node = draft.nodes.get(event.node)
    if node is not None and node.contact is Contact.LOST:
        del draft.nodes[event.node]


def _health_changed(draft: Draft, event: AcceleratorHealthChanged) -> None:
    record = draft.nodes.get(event.node)
    if record is None:
        return
    accelerators = tuple(
        changed(a, unhealthy=event.problem) if a.id == event.accelerator else a
        for a in record.node.accelerators
    )
    draft.nodes[event.node] = changed(record, node=changed(record.node, accelerators=accelerators))


def _rendezvous_bound(draft: Draft, event: RendezvousBound) -> None:
    found = draft.told_of(event)
    if found is not None:
        record, attempt = found
        draft.jobs[event.uid] = changed(record, attempt=changed(attempt, rendezvous=event.address))


def _unit_started(draft: Draft, event: UnitStarted) -> None:
    found = draft.told_of(event)
    if found is None or event.unit in found[1].units_up:
        return
    record, attempt = found
    if attempt.plan_change is None and any(u.index == event.unit for u in attempt.leaving):
        return  # It has left already as far as the others are concerned.
    attempt = changed(attempt, units_up=attempt.units_up | {event.unit})
    complete = attempt.all_up and attempt.up_at is None
    if complete:
        attempt = changed(attempt, up_at=event.at)
        if not record.job.spec.steps and attempt.running_at is None:
            # A user's command reports no steps, so being up is all that can be known.
            attempt = changed(attempt, running_at=event.at)
            record = _trains(draft, record, attempt, event.at)
    starts = complete and record.stage is Stage.STARTING
    stage = Stage.RUNNING if starts else record.stage
    draft.move(record, stage, "all units are up", attempt=attempt)


def _progressed(draft: Draft, event: JobProgressed) -> None:
    found = draft.told_of(event)
    if found is None:
        return
    record, attempt = found
    if not attempt.trained and _shows_a_step(event.progress):
        attempt = changed(attempt, trained=True, running_at=attempt.running_at or event.at)
        record = _trains(draft, record, attempt, event.at)
    known, progress = record.progress, event.progress
    if attempt.trained and (progress.step > known.step or not found[1].trained):
        attempt = changed(attempt, last_step_at=event.at)
    # A new attempt may begin at an older checkpoint; within one, what comes late is only older.
    late = found[1].trained and progress.step < known.step
    progress = changed(
        known if late else progress,
        checkpoint_step=max(
            progress.checkpoint_step, known.checkpoint_step if found[1].trained else 0
        ),
        loss=progress.loss if not late and _finite(progress.loss) else known.loss,
        at=known.at if late else event.at,
    )
    stage = Stage.RUNNING if record.stage is Stage.STARTING else record.stage
    record = saves.reported(record, progress, begins=not found[1].trained, at=event.at)
    draft.move(record, stage, "it reported a step", attempt=attempt)


def _trains(draft: Draft, record: JobRecord, attempt: AttemptRecord, at: Instant) -> JobRecord:
    after = switches.trains(record, attempt, at)
    switch_prices.paid(draft.switch_prices, record, after)
    return after


def _shows_a_step(progress: Progress) -> bool:
    """Whether a step was trained. A loss that is no number does not survive being stored, so it
    must not count: what is folded from the log has to come out the same.
    """
    return progress.step_seconds > 0 or _finite(progress.loss)


def _finite(loss: float | None) -> bool:
    return loss is not None and isfinite(loss)


def _plan_told(draft: Draft, event: PlanChanged | PlanRefused) -> None:
    found = draft.told_of(event)
    after = switches.told(*found, event) if found is not None else None
    if found is not None and after is not None:
        switch_prices.paid(draft.switch_prices, found[0], after)
        draft.jobs[event.uid] = dated(found[0], after, event.at)


def _plan_observed(draft: Draft, event: PlanObserved) -> None:
    found = draft.told_of(event)
    if found is not None:
        attempt = observations.told(draft.observations, *found, event)
        draft.jobs[event.uid] = changed(found[0], attempt=attempt)


def _checkpoint_missed(draft: Draft, event: CheckpointMissed) -> None:
    found = draft.told_of(event)
    if found is not None:
        draft.jobs[event.uid] = saves.missed(found[0], event)


def _unit_exited(draft: Draft, event: UnitExited) -> None:
    purge = draft.purges.get(event.uid)
    if purge is not None and purge[:2] == (event.node, event.attempt):
        del draft.purges[event.uid]
    node = draft.nodes.get(event.node)
    if node is not None and node.strays:
        strays = tuple(
            s
            for s in node.strays
            if (s.uid, s.attempt, s.unit) != (event.uid, event.attempt, event.exit.unit)
        )
        if strays != node.strays:
            draft.nodes[event.node] = changed(node, strays=strays)
    if draft.told_of(event) is not None:
        _release(draft, event.uid, event.attempt, changed(event.exit, at=event.at))


def _release(draft: Draft, uid: JobUid, number: Attempt, exit_: UnitExit) -> None:
    found = draft.current(uid, number)
    if found is None or found[1].unit(exit_.unit) is None or not found[1].holds(exit_.unit):
        return
    record, attempt = found
    if resizing.is_farewell(attempt, exit_):
        record = resizing.farewell(record, attempt, exit_)
    else:
        attempt = with_exit(attempt, exit_)
        progress = with_last_step(record.progress, exit_)
        record = saves.reported(record, progress, begins=False, at=exit_.at)
        record = changed(record, attempt=attempt)
    assert record.attempt is not None
    if record.attempt.is_over:
        ended = conclude(record, record.attempt, exit_.at, type_of(draft.nodes, attempt))
        check(record.stage, ended.stage, f"{uid}: attempt {number} ended")
        keep_losses(draft.memory_losses, record, ended, exit_.at)
        record = ended
    draft.jobs[uid] = dated(found[0], record, exit_.at)


def _queue_removed(draft: Draft, event: QueueRemoved) -> None:
    draft.queues.pop(event.name, None)


def _policy_changed(draft: Draft, event: PolicyChanged) -> None:
    draft.settings_versions = with_version(draft.settings_versions, draft.settings, event)
    draft.settings = event.settings
    # It was found under others, and what was refused under others may be right now.
    draft.proposal = None
    refusals.forget(draft.jobs)


def _proposal_found(draft: Draft, event: ProposalFound) -> None:
    draft.proposal = event.proposal


def _operator_term_raised(draft: Draft, event: OperatorTermRaised) -> None:
    draft.operator_terms = raised(draft.operator_terms, event)


def _cycle_decided(draft: Draft, event: CycleDecided) -> None:
    draft.term = max(draft.term, event.term)
    for action in event.actions:
        _ordered(draft, action, event.at)
    for uid, reason in event.reasons:
        record = draft.jobs.get(uid)
        if record is not None:
            draft.jobs[uid] = changed(record, reason=reason)
    refusals.remember(draft.jobs, event.refused)


def _ordered(draft: Draft, action: Action, at: Instant) -> None:
    record = draft.jobs.get(action.uid)
    if record is None:
        return
    match action:
        case StartAttempt():
            draft.starts()
            draft.move(
                record,
                Stage.STARTING,
                "a start was ordered",
                attempts_made=action.attempt,
                first_started_at=record.first_started_at or at,
                reason=action.reason,
                next_placement=None,
                refusal=None,
                attempt=AttemptRecord(
                    action.attempt, record.job.generation, action.placement, started_at=at
                ),
                progress_reporters=(
                    *record.progress_reporters[-_REPORTERS_KEPT + 1 :],
                    (action.attempt, action.placement.units[0].node),
                ),
            )
        case StopAttempt() | EndAttempt():
            intent = Intent.STOP if isinstance(action, StopAttempt) else Intent.END
            found = draft.current(action.uid, action.attempt)
            if found is None or found[1].intent is Intent.END:
                return
            then = action.then if isinstance(action, StopAttempt) else found[1].then
            attempt = changed(
                found[1], intent=intent, intent_reason=action.reason, intent_at=at, then=then
            )
            draft.move(
                record,
                Stage.STOPPING,
                f"{intent} was ordered",
                attempt=attempt,
                reason=action.reason,
            )
            draft.jobs[action.uid] = dated(record, draft.jobs[action.uid], at)
        case ChangePlan():
            found = draft.current(action.uid, action.attempt)
            if found is not None and found[1].intent is Intent.RUN:
                draft.starts()
                draft.jobs[action.uid] = switches.asked(*found, action, at)
        case FailJob():
            draft.move(record, Stage.FAILED, "it failed", reason=action.reason, finished_at=at)
            draft.jobs[action.uid] = dated(record, draft.jobs[action.uid], at)
        case ForgetJob():
            _forget(draft, record, purge=action.purge)


def _forget(draft: Draft, record: JobRecord, *, purge: bool) -> None:
    del draft.jobs[record.uid]
    # Strays of it that may come back later are unwanted: its deletion is proven.
    _unwant(draft, record.uid)
    # One that was restored may have been started in the future that was lost.
    made = max(record.attempts_made, record.attempt_floor)
    if purge and made:
        # An attempt number of its own: a late exit of the job's last attempt is no answer to it.
        made = Attempt(made + 1)
        draft.purges[record.uid] = (purger(draft.nodes), made, record.job.spec.manifest_json)
    if made:
        _remember_attempt(draft, record.uid, made)


_FOLDS: dict[type, Callable[[Draft, Any], None]] = {
    JobSubmitted: _submitted,
    JobUpdated: _submitted,
    JobWithdrawn: _withdrawn,
    NodeRegistered: _node_registered,
    NodeLost: _node_lost,
    NodeDrained: _node_drained,
    NodesClosed: _nodes_closed,
    NodeRemoved: _node_removed,
    AcceleratorHealthChanged: _health_changed,
    RendezvousBound: _rendezvous_bound,
    UnitStarted: _unit_started,
    JobProgressed: _progressed,
    PlanChanged: _plan_told,
    PlanRefused: _plan_told,
    PlanObserved: _plan_observed,
    CheckpointMissed: _checkpoint_missed,
    UnitExited: _unit_exited,
    QueueChanged: lambda draft, event: draft.queues.update({event.queue.name: event.queue}),
    QueueRemoved: _queue_removed,
    PolicyChanged: _policy_changed,
    ModelFitted: lambda draft, event: observations.fitted(draft.fits, event),
    MeasurementsImported: lambda draft, event: observations.imported(draft.observations, event),
    ProposalFound: _proposal_found,
    JobsForecast: lambda draft, event: forecasts.told(draft.forecasts, draft.jobs, event),
    JobOverdue: lambda draft, event: forecasts.overdue_told(draft.forecasts, event),
    OperatorTermRaised: _operator_term_raised,
    CycleDecided: _cycle_decided,
}
