"""A cluster that answers as a real one would: the loop's event source and action sink.

Nodes, agents and ranks are played from an event heap. It obeys the same contracts as real
agents: it starts what it is told once, reports every exit, and its messages may be late or
doubled where the scenario says so.
"""

import heapq
from collections.abc import Sequence
from dataclasses import replace
from math import log

from controlplane.domain.chance import draw, draw_between
from controlplane.domain.clock import Instant, after, seconds
from controlplane.domain.event import (
    CycleDecided,
    Event,
    JobProgressed,
    JobSubmitted,
    NodeLost,
    NodeRegistered,
    PlanChanged,
    QueueChanged,
    RendezvousBound,
    UnitExited,
    UnitStarted,
)
from controlplane.domain.ids import Attempt, JobUid, NodeId, Term
from controlplane.domain.node import Node
from controlplane.domain.placement import LaunchUnit
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import AttemptRecord, Intent, JobRecord, Outcome, Progress, UnitExit
from controlplane.engine.assignment import extra_launches
from controlplane.engine.state import ClusterState, SequencedEvent
from simulator.memory_store import MemoryStore
from simulator.physics import Run, step_seconds
from simulator.scenario import Arrival, Scenario
from simulator.virtual_clock import VirtualClock

_DELAY = seconds(0.05)
_DAY_SECONDS = 86_400.0


class VirtualCluster:
    """Plays nodes and ranks; give the same object as event source and as action sink."""

    def __init__(
        self,
        scenario: Scenario,
        clock: VirtualClock,
        horizon: Instant,
        store: MemoryStore,
        term: Term,
    ) -> None:
        """Schedules the scenario's nodes, jobs and faults up to ``horizon``.

        Args:
            scenario: What to play.
            clock: Virtual time; this cluster is what advances it.
            horizon: No node is lost after this instant.
            store: Where events become durable, so to speak, before the loop takes them.
            term: Reign under which they are appended.
        """
        self._store, self._term = store, term
        self._scenario = scenario
        self._clock = clock
        self._heap: list[tuple[Instant, int, Event]] = []
        self._pushed = 0
        self._arrivals: dict[JobUid, Arrival] = {}
        self._nodes: dict[NodeId, Node] = {node.id: node for node in scenario.nodes}
        self._away: dict[NodeId, list[tuple[Instant, Instant]]] = {}
        self._runs: dict[JobUid, Run] = {}
        self._told: dict[tuple[JobUid, Attempt], Intent] = {}
        self._asked: dict[tuple[JobUid, Attempt], Instant] = {}
        self._checkpoints: dict[JobUid, int] = {}
        self._schedule_all(horizon)

    # -- event source ---------------------------------------------------------------------

    async def take(self, deadline: Instant) -> Sequence[SequencedEvent]:
        """The next events in virtual time; jumps the clock there."""
        while self._heap and self._heap[0][0] <= deadline:
            at = self._heap[0][0]
            self._clock.advance(at)
            while self._heap and self._heap[0][0] <= self._clock.now():
                _, _, event = heapq.heappop(self._heap)
                if self._still_true(event):
                    self._store.append(replace(event, at=self._clock.now()), self._term)
            batch = await self._store.take(deadline)
            if batch:
                return batch
        self._clock.advance(deadline)
        return []

    def continue_from(self, state: ClusterState) -> None:
        """Takes over what ``state`` (an exported snapshot) says is running."""
        for record in state.jobs.values():
            self._checkpoints[record.uid] = record.progress.checkpoint_step
            if record.uid not in self._arrivals:
                pace = record.progress.step_seconds or 1.0
                self._arrivals[record.uid] = Arrival(self._clock.now(), record.job, pace)
            if record.attempt is not None:
                self._start(record, record.attempt)

    # -- action sink ----------------------------------------------------------------------

    async def carry_out(self, state: ClusterState, decided: CycleDecided) -> None:
        """Starts, stops and ends what the state now wants."""
        for record in state.jobs.values():
            attempt = record.attempt
            if attempt is None:
                continue
            key = (record.uid, attempt.number)
            self._change_plan(record, attempt)
            told = self._told.get(key)
            if told is attempt.intent:
                continue
            if told is None and attempt.intent is Intent.RUN:
                self._start(record, attempt)
            else:
                self._finish(record, attempt)
            self._told[key] = attempt.intent
        for node in state.nodes.values():
            if node.strays:
                self._end_strays(state, node.id)

    def _end_strays(self, state: ClusterState, node: NodeId) -> None:
        for launch in extra_launches(state, state.nodes[node]):
            for unit in launch.units:
                end = UnitExit(unit.index, Outcome.LOST)
                event = UnitExited(launch.uid, launch.attempt, end, node)
                self._push(after(self._clock.now(), _DELAY), event)

    # -- playing --------------------------------------------------------------------------

    def _start(self, record: JobRecord, attempt: AttemptRecord) -> None:
        costs, now = self._scenario.costs, self._clock.now()
        arrival = self._arrivals[record.uid]
        self._come_up(record, attempt, attempt.placement.units)
        first_node = attempt.placement.units[0].node
        bound = RendezvousBound(record.uid, attempt.number, f"{first_node}:29500", node=first_node)
        self._push(after(now, _DELAY), bound)
        first = self._checkpoints.get(record.uid, 0)
        fails = arrival.fails_at_step
        run = Run(
            uid=record.uid,
            attempt=attempt.number,
            placement=attempt.placement,
            begins_at=after(now, seconds(costs.startSeconds)),
            first_step=first,
            saved_step=first,
            step_seconds=step_seconds(
                arrival.step_seconds, attempt.placement.accelerator_count, costs
            ),
            last_step=max(first, fails) if fails else record.job.spec.steps,
            fails=bool(fails),
        )
        self._runs[record.uid] = run
        self._go_on(run)

    def _come_up(
        self, record: JobRecord, attempt: AttemptRecord, units: Sequence[LaunchUnit]
    ) -> None:
        up = after(self._clock.now(), seconds(self._scenario.costs.startSeconds / 2))
        for unit in units:
            self._push(up, UnitStarted(record.uid, attempt.number, unit.index, node=unit.node))

    def _go_on(self, run: Run) -> None:
        """All that is to come of a run."""
        costs = self._scenario.costs
        self._schedule_progress(run)
        ends_at = after(run.reaches(run.last_step), seconds(costs.checkpointSeconds))
        if run.fails:
            failed = Reason(ReasonCode.RANK_FAILED, f"rank 0 failed at step {run.last_step}")
            self._exits(run, ends_at, Outcome.FAILED, run.last_step, failed)
        else:
            self._exits(run, ends_at, Outcome.SUCCEEDED, run.last_step)

    def _schedule_progress(self, run: Run) -> None:
        step = run.first_step + 1
        stride = max(1, int(self._scenario.costs.progressSeconds / run.step_seconds))
        while step <= run.last_step:
            self._push(run.reaches(step), self._progress(run, step))
            step += stride
        if not run.fails:
            self._push(run.reaches(run.last_step), self._progress(run, run.last_step))

    def _progress(self, run: Run, step: int) -> JobProgressed:
        every = self._scenario.costs.checkpointEverySteps
        saved = max(run.saved_step, step // every * every)
        if step == run.last_step and not run.fails:
            saved = step
        progress = Progress(step, saved, 1.0 / (1.0 + step), run.step_seconds)
        return JobProgressed(run.uid, run.attempt, progress, node=run.placement.units[0].node)

    def _finish(self, record: JobRecord, attempt: AttemptRecord) -> None:
        """A planned stop saves the step reached; an end leaves the last checkpoint."""
        run, now = self._runs.get(record.uid), self._clock.now()
        if run is None or run.attempt != attempt.number:
            for unit in attempt.units:
                end = UnitExit(unit.index, Outcome.NEVER_STARTED)
                event = UnitExited(record.uid, attempt.number, end, unit.node)
                self._push(after(now, _DELAY), event)
            return
        step = run.steps_at(now)
        self._runs[record.uid] = replace(run, last_step=min(run.last_step, step))
        if attempt.intent is Intent.STOP:
            self._checkpoints[record.uid] = step
            gone = after(now, seconds(self._scenario.costs.checkpointSeconds))
            self._exits(run, gone, Outcome.STOPPED, step, units=attempt.units)
        else:
            every = self._scenario.costs.checkpointEverySteps
            self._checkpoints[record.uid] = max(run.saved_step, step // every * every)
            self._exits(run, after(now, _DELAY), Outcome.LOST, step, units=attempt.units)

    def _change_plan(self, record: JobRecord, attempt: AttemptRecord) -> None:
        """The ranks go over to the plan that they are asked for, and stand still meanwhile. Who is
        to join them starts first, while they train.
        """
        change, key = attempt.plan_change, (record.uid, attempt.number)
        if change is None or self._asked.get(key) == change.ordered_at:
            return
        self._asked[key] = change.ordered_at
        run, costs = self._runs[record.uid], self._scenario.costs
        if run.attempt != attempt.number:
            return
        joining = [unit for unit in attempt.placement.units if unit.index in attempt.joining]
        self._come_up(record, attempt, joining)
        ready = after(self._clock.now(), seconds(costs.startSeconds if joining else 0.0))
        pause = 0.0 if change.given_up else costs.planChangeSeconds
        step = run.steps_at(ready)
        if step >= run.last_step:
            # It is done before they are there.
            done = after(run.reaches(run.last_step), seconds(costs.checkpointSeconds))
            self._exits(run, done, Outcome.STOPPED, 0, units=joining)
            return
        single = self._arrivals[record.uid].step_seconds
        run = replace(
            run,
            placement=attempt.placement,
            begins_at=after(ready, seconds(pause)),
            first_step=step,
            step_seconds=step_seconds(single, attempt.placement.accelerator_count, costs),
        )
        self._runs[record.uid] = run
        self._exits(run, after(ready, seconds(pause)), Outcome.STOPPED, step, units=attempt.leaving)
        told = PlanChanged(
            *key,
            str(change.before),
            str(attempt.placement.plan),
            step,
            pause,
            (("moments", pause),),
            run.placement.units[0].node,
        )
        self._push(after(ready, seconds(pause)), told)
        # What was to come before the pause comes after it.
        self._go_on(run)

    def _exits(
        self,
        run: Run,
        at: Instant,
        outcome: Outcome,
        step: int,
        reason: Reason | None = None,
        *,
        units: Sequence[LaunchUnit] | None = None,
    ) -> None:
        for unit in run.placement.units if units is None else units:
            end = UnitExit(unit.index, outcome, step, reason)
            self._push(at, UnitExited(run.uid, run.attempt, end, unit.node))

    def _still_true(self, event: Event) -> bool:
        """Whether the heap's event still happens: stops, ends and lost nodes change the future."""
        if isinstance(event, JobProgressed):
            run = self._runs.get(event.uid)
            known = run is not None and run.attempt == event.attempt
            step = event.progress.step
            if run is not None and known and (step > run.last_step or self._is_early(run, step)):
                return False
            saved = self._checkpoints.get(event.uid, 0)
            self._checkpoints[event.uid] = max(saved, event.progress.checkpoint_step)
            return known and not self._is_away(self._node_of(event.uid, 0))
        if isinstance(event, UnitExited):
            run = self._runs.get(event.uid)
            if run is None or run.attempt != event.attempt:
                return not self._is_away(event.node)
            finished = event.exit.outcome in (Outcome.SUCCEEDED, Outcome.FAILED)
            saves = self._scenario.costs.checkpointSeconds
            cut_short = run.last_step < event.exit.step or self._is_early(
                run, event.exit.step, saves
            )
            return not (finished and cut_short) and not self._is_away(event.node)
        if isinstance(event, UnitStarted | RendezvousBound):
            run = self._runs.get(event.uid)
            return run is not None and run.attempt == event.attempt
        return True

    def _is_early(self, run: Run, step: int, more_seconds: float = 0.0) -> bool:
        """Whether the step is not done yet, because the run stood still meanwhile."""
        return self._clock.now() < after(run.reaches(step), seconds(more_seconds))

    def _node_of(self, uid: JobUid, unit: int) -> NodeId:
        return next(known.node for known in self._runs[uid].placement.units if known.index == unit)

    # -- schedule -------------------------------------------------------------------------

    def _push(self, at: Instant, event: Event) -> None:
        faults, seed = self._scenario.faults, self._scenario.seed
        self._pushed += 1
        number = self._pushed
        if faults.lateShare and not isinstance(event, NodeLost | NodeRegistered):
            if draw(seed, "late", number) < faults.lateShare:
                wait = draw_between(0.0, faults.lateSeconds, seed, "lateness", number)
                at = after(at, seconds(wait))
            if draw(seed, "doubled", number) < faults.doubledShare:
                self._pushed += 1
                again = after(at, seconds(faults.lateSeconds))
                heapq.heappush(self._heap, (again, self._pushed, event))
        heapq.heappush(self._heap, (at, number, event))

    def _schedule_all(self, horizon: Instant) -> None:
        start = self._clock.now()
        for queue in self._scenario.queues:
            self._push(start, QueueChanged(queue))
        for node in self._scenario.nodes:
            self._push(start, NodeRegistered(node))
            self._schedule_losses(node, horizon)
        for arrival in self._scenario.arrivals:
            self._arrivals[arrival.job.uid] = arrival
            self._push(Instant(start + arrival.at), JobSubmitted(arrival.job))

    def _schedule_losses(self, node: Node, horizon: Instant) -> None:
        faults, seed = self._scenario.faults, self._scenario.seed
        if not faults.nodeLossesPerDay:
            return
        at, count = float(self._clock.now()) / 1e9, 0
        while True:
            luck = draw(seed, "loss", node.id, count)
            at += -log(1.0 - luck) * _DAY_SECONDS / faults.nodeLossesPerDay
            lost = Instant(seconds(at))
            if lost >= horizon:
                return
            back = after(lost, seconds(faults.nodeAwaySeconds))
            self._away.setdefault(node.id, []).append((lost, back))
            self._push(lost, NodeLost(node.id))
            self._push(back, NodeRegistered(node))
            at, count = back / 1e9, count + 1

    def _is_away(self, node: NodeId) -> bool:
        now = self._clock.now()
        return any(lost <= now < back for lost, back in self._away.get(node, ()))
