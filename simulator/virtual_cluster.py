"""A cluster that answers as a real one would: the loop's event source and action sink.

Nodes, agents and ranks are played from a heap of what is to come. It obeys the same contracts as
real agents: it starts what it is told once, reports every exit, and its messages may be late or
doubled where the scenario says so.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import isinf, log

from controlplane.domain.chance import draw, draw_between
from controlplane.domain.clock import FOREVER, SECOND, Duration, Instant, after, seconds
from controlplane.domain.event import (
    CycleDecided,
    Event,
    JobProgressed,
    JobSubmitted,
    NodeLost,
    NodeRegistered,
    PlanChanged,
    PlanObserved,
    QueueChanged,
    RendezvousBound,
    UnitExited,
    UnitStarted,
)
from controlplane.domain.ids import Attempt, JobUid, NodeId, Term
from controlplane.domain.node import Contact, Node
from controlplane.domain.placement import LaunchUnit
from controlplane.domain.reason import WITHOUT_A_WORD, Reason, ReasonCode
from controlplane.domain.record import AttemptRecord, Intent, JobRecord, Outcome, Progress, UnitExit
from controlplane.engine.assignment import extra_launches
from controlplane.engine.duties import next_due
from controlplane.engine.state import ClusterState, SequencedEvent
from simulator.coming import Coming, End, Noted, OfRun, Tells, Tick, is_message
from simulator.memory_store import MemoryStore
from simulator.physics import Run
from simulator.results.allocation_log import Happened, Row
from simulator.running import Speeds, is_limited, row_of
from simulator.scenario import Arrival, Scenario
from simulator.telling import STEPS_UNTIL_TOLD, observed
from simulator.virtual_clock import VirtualClock

_DAY_SECONDS = 86_400.0
_STALLED_AFTER = seconds(_DAY_SECONDS)
_AT_ONCE_MAX = 1_000


class StalledError(RuntimeError):
    """Time does not pass, or passes for nothing: the policy's doing."""


class VirtualCluster:
    """Plays nodes and ranks; give the same object as event source and as action sink.

    Attributes:
        rows: The allocation log so far.
        unfinished: Jobs that are to come or have not ended.
        quiet_since: When the last event happened.
        ended_at: When the last job had ended, if time jumped then; else None.
    """

    def __init__(
        self,
        scenario: Scenario,
        clock: VirtualClock,
        horizon: Instant,
        store: MemoryStore,
        term: Term,
        *,
        until_finished: bool = False,
        round_seconds: float = 0.0,
        changes: Sequence[Event] = (),
        coarser: float = 0.0,
    ) -> None:
        """Schedules the scenario's nodes, jobs and faults up to ``horizon``.

        Args:
            scenario: What to play.
            clock: Virtual time; this cluster is what advances it.
            horizon: No node is lost after this instant.
            store: Where events become durable, so to speak, before the loop takes them.
            term: Reign under which they are appended.
            until_finished: Whether time jumps to the horizon once all jobs have ended.
            round_seconds: What happens is told to the loop at multiples of this only, as for a
                policy that decides in rounds; 0 for at once.
            changes: What else happens at once.
            coarser: What only time alone or a report asks for may wait for this share of the time
                that was played so far; 0 for not at all.
        """
        self._coarser, self._began = coarser, clock.now()
        self._round = seconds(round_seconds)
        self._store, self._term = store, term
        self._scenario = scenario
        self._clock = clock
        self._horizon = horizon
        self._until_finished = until_finished
        self._speeds = Speeds(scenario)
        self._heap: list[tuple[Instant, int, Coming]] = []
        self._pushed = 0
        self._versions = 0
        self._arrivals: dict[JobUid, Arrival] = {}
        self._away: set[NodeId] = set()
        self._runs: dict[JobUid, Run] = {}
        self._told: dict[JobUid, tuple[Attempt, Intent]] = {}
        self._asked: dict[JobUid, tuple[Attempt, Instant]] = {}
        self._steps: dict[JobUid, float] = {}
        self._touched: dict[JobUid, None] = {}
        self._state: ClusterState | None = None
        self._with_strays = False
        self.rows: list[Row] = []
        self.unfinished: set[JobUid] = set()
        self.ended_at: Instant | None = None
        self.quiet_since = clock.now()
        self._at_once = 0
        self._schedule_all()
        for event in changes:
            self.push(clock.now(), event)

    # -- event source ---------------------------------------------------------------------

    async def take(self, deadline: Instant) -> Sequence[SequencedEvent]:
        """The next events in virtual time; jumps the clock there."""
        if self._until_finished and not self.unfinished:
            self.ended_at = self._clock.now()
            self._clock.advance(self._horizon)
            return []
        if self._coarser and self._state is not None:
            idle = min(self._later(Duration(0)), next_due(self._state, self._clock.now()))
            deadline = max(deadline, min(idle, self._horizon))
        while self._heap and self._heap[0][0] <= deadline:
            now = self._end_of_round(self._heap[0][0], deadline)
            while self._heap and self._heap[0][0] <= now:
                at, _, what = heapq.heappop(self._heap)
                self._clock.advance(at)
                self._happens(what)
            self._clock.advance(now)
            batch = await self._store.take(deadline)
            if batch:
                self._count(now)
                return batch
        if not self._heap and deadline > after(self.quiet_since, _STALLED_AFTER):
            deadline = max(deadline, self._awaited())
        self._clock.advance(deadline)
        return []

    def _end_of_round(self, first: Instant, deadline: Instant) -> Instant:
        """When the loop is told of what happens then."""
        if not self._round:
            return first
        return min(deadline, Instant(-(-first // self._round) * self._round))

    def _count(self, now: Instant) -> None:
        """Counts decisions of one instant, of which a policy that contradicts itself has no end."""
        self._at_once = self._at_once + 1 if now == self.quiet_since else 0
        self.quiet_since = now
        if self._until_finished and self._at_once > _AT_ONCE_MAX:
            raise StalledError(
                f"{self._at_once} decisions were made at {now / SECOND:g} s, each of them because "
                "of the one before: the policy contradicts itself"
            )

    def _awaited(self) -> Instant:
        """The time limit that is next, where nothing else is to come; time may jump there.

        Raises:
            StalledError: There is none, and jobs wait.
        """
        if not self._until_finished:
            return Instant(0)
        due = FOREVER if self._state is None else next_due(self._state, self._clock.now())
        if due == FOREVER:
            waiting = sorted(self.unfinished)
            raise StalledError(
                f"nothing runs and nothing is to come, but {len(waiting)} jobs have not ended: "
                f"{', '.join(waiting[:5])}; the policy never starts them"
            )
        return due

    def continue_from(
        self, state: ClusterState, known: Mapping[JobUid, Arrival] | None = None
    ) -> None:
        """Takes over what ``state`` (an exported snapshot) says is running.

        Args:
            state: The cluster.
            known: How fast its jobs train, where more is known than what they told last.
        """
        self._with_strays = True
        self._arrivals |= known or {}
        for node in state.nodes.values():
            self._nodes.setdefault(node.id, node.node)
            if node.contact is Contact.LOST:
                self._away.add(node.id)
            else:
                self._note_online(node.node)
        for record in state.jobs.values():
            self._steps[record.uid] = record.progress.checkpoint_step
            if record.finished_at is None:
                self.unfinished.add(record.uid)
            if record.uid not in self._arrivals:
                pace = record.progress.step_seconds or 1.0
                self._arrivals[record.uid] = Arrival(
                    self._clock.now(), record.job, pace, endless=not record.job.spec.steps
                )
            if record.attempt is not None:
                self._go_on_from(record, record.attempt)

    def _go_on_from(self, record: JobRecord, attempt: AttemptRecord) -> None:
        """A run that began before virtual time did."""
        self._start(record, attempt, since=attempt.started_at)
        self._told[record.uid] = (attempt.number, Intent.RUN)
        if not attempt.trained:
            return
        # What it has done since its last checkpoint is done, and lost only if it fails.
        run, now = self._runs[record.uid], self._clock.now()
        since = (now - record.progress.at) / SECOND if attempt.change is None else 0.0
        done = min(record.progress.step + since / run.step_seconds, run.last_step)
        self._runs[record.uid] = run = replace(
            run, version=self._next_version(), begins_at=now, first_step=done
        )
        self._go_on(run)

    # -- action sink ----------------------------------------------------------------------

    async def carry_out(self, state: ClusterState, decided: CycleDecided) -> None:
        """Starts, stops and ends what the state now wants. Looked at are the jobs that something
        happened to: what is wanted of the others is what they do.
        """
        self._state = state
        if self.ended_at is not None:
            return
        touched, self._touched = self._touched, {}
        touched.update(dict.fromkeys(action.uid for action in decided.actions))
        for uid in touched:
            record = state.jobs.get(uid)
            if record is None or record.finished_at is not None:
                self.unfinished.discard(uid)
            if record is None or record.attempt is None:
                self._forget(uid)
            else:
                self._follow(record, record.attempt)
        if self._with_strays:
            for node in state.nodes.values():
                if node.strays:
                    self._end_strays(state, node.id)

    def _forget(self, uid: JobUid) -> None:
        self._lose(uid)
        self._told.pop(uid, None)
        self._asked.pop(uid, None)

    def _lose(self, uid: JobUid) -> None:
        """The job's run is no more. If it did not end, all its nodes were lost at once."""
        run = self._runs.pop(uid, None)
        if run is not None and not run.over:
            now = self._clock.now()
            self._steps[uid] = self._saved(run, run.steps_at(now))
            self._note(run, Happened.FAILED, now, self._steps[uid])

    def _saved(self, run: Run, step: float) -> int:
        """The step of the last checkpoint."""
        every = self._scenario.costs.checkpointEverySteps
        return max(run.saved_step, int(step) // every * every)

    def _follow(self, record: JobRecord, attempt: AttemptRecord) -> None:
        self._change_plan(record, attempt)
        told = self._told.get(record.uid)
        number, intent = attempt.number, attempt.intent
        if told == (number, intent):
            return
        if intent is Intent.RUN and (told is None or told[0] != number):
            self._start(record, attempt)
        else:
            self._finish(record, attempt)
        self._told[record.uid] = (number, intent)

    def _end_strays(self, state: ClusterState, node: NodeId) -> None:
        for launch in extra_launches(state, state.nodes[node]):
            for unit in launch.units:
                end = UnitExit(unit.index, Outcome.LOST)
                event = UnitExited(launch.uid, launch.attempt, end, node)
                self.push(self._soon(), event)

    # -- what is ordered ------------------------------------------------------------------

    def _start(
        self, record: JobRecord, attempt: AttemptRecord, since: Instant | None = None
    ) -> None:
        self._lose(record.uid)
        now, arrival = self._clock.now(), self._arrivals[record.uid]
        first = self._steps.get(record.uid, 0.0)
        step_seconds = self._speeds.step_seconds(arrival, attempt, self._nodes.get)
        last, fails = self._speeds.ends_at_step(arrival, attempt.number, first, step_seconds)
        run = Run(
            uid=record.uid,
            attempt=attempt.number,
            version=self._next_version(),
            placement=attempt.placement,
            begins_at=max(now, after(since or now, seconds(self._scenario.costs.startSeconds))),
            first_step=first,
            saved_step=int(first),
            step_seconds=step_seconds,
            last_step=last,
            fails=fails,
        )
        self._runs[record.uid] = run
        if arrival.endless and not is_limited(record):
            self.unfinished.discard(record.uid)  # There is no end to be waited for.
        self._note(run, Happened.STARTED, now)
        self._come_up(run, attempt.placement.units, run.begins_at)
        bound = RendezvousBound(
            run.uid, run.attempt, f"{run.first_unit.node}:29500", node=run.first_unit.node
        )
        self.push(run.begins_at, OfRun(bound, run.uid, run.version))
        self._go_on(run)

    def _come_up(self, run: Run, units: Iterable[LaunchUnit], at: Instant) -> None:
        for unit in units:
            started = UnitStarted(run.uid, run.attempt, unit.index, node=unit.node)
            self.push(at, OfRun(started, run.uid, run.version))

    def _go_on(self, run: Run) -> None:
        """What is to come of a run that stands still, or begins."""
        if isinf(run.last_step):
            return  # A program of the user's own, which tells nothing.
        if run.first_step < run.last_step:
            self.push(run.begins_at, Tick(run.uid, run.version))
        if self._scenario.tells:
            told = after(run.begins_at, seconds(STEPS_UNTIL_TOLD * run.step_seconds))
            self.push(told, Tells(run.uid, run.version))
        self.push(run.ends_at, End(run.uid, run.version))

    def _finish(self, record: JobRecord, attempt: AttemptRecord) -> None:
        """A planned stop saves the step reached; an end leaves the last checkpoint."""
        run, now = self._runs.get(record.uid), self._clock.now()
        if run is None or run.attempt != attempt.number:
            self._exit(record.uid, attempt, attempt.units, self._soon(), Outcome.NEVER_STARTED)
            return
        stops = attempt.intent is Intent.STOP
        if run.over and stops:
            return  # It has ended by itself, or is stopping already.
        step = run.steps_at(now)
        if not run.over:
            self._steps[record.uid] = step if stops else self._saved(run, step)
            self._note(run, Happened.STOPS, now, step)
            self._runs[record.uid] = replace(run, version=self._next_version(), over=True)
        if stops:
            gone = after(now, seconds(self._scenario.costs.checkpointSeconds))
            self._exit(record.uid, attempt, attempt.units, gone, Outcome.STOPPED, int(step))
        else:
            gone = self._soon()
            self._exit(record.uid, attempt, attempt.units, gone, Outcome.LOST, int(step))
        happened = Happened.RELEASED if stops else Happened.FAILED
        if not run.over:
            row = row_of(self._runs[record.uid], happened, gone, self._steps[record.uid])
            self.push(gone, Noted(row))

    def _change_plan(self, record: JobRecord, attempt: AttemptRecord) -> None:
        """The ranks go over to the plan that they are asked for, and stand still meanwhile. Who is
        to join them starts first, while they train.
        """
        change, run = attempt.plan_change, self._runs.get(record.uid)
        if change is None or self._asked.get(record.uid) == (attempt.number, change.ordered_at):
            return
        self._asked[record.uid] = (attempt.number, change.ordered_at)
        if run is None or run.attempt != attempt.number or run.over:
            return
        costs, now = self._scenario.costs, self._clock.now()
        joining = [unit for unit in attempt.placement.units if unit.index in attempt.joining]
        join = costs.startSeconds if costs.joinSeconds is None else costs.joinSeconds
        ready = after(now, seconds(join if joining else 0.0))
        pause = 0.0 if change.given_up else costs.planChangeSeconds
        step = run.steps_at(ready)
        if step >= run.last_step:
            # It is done before they are there.
            self._exit(record.uid, attempt, joining, run.ends_at, Outcome.STOPPED)
            return
        arrival = self._arrivals[record.uid]
        run = replace(
            run,
            version=self._next_version(),
            placement=attempt.placement,
            begins_at=after(ready, seconds(pause)),
            first_step=step,
            step_seconds=self._speeds.step_seconds(arrival, attempt, self._nodes.get),
        )
        self._runs[record.uid] = run
        self._note(run, Happened.CHANGED, now, step)
        self._come_up(run, joining, after(now, seconds(join / 2)))
        # What leaves has handed its part over once the others have what they need of it.
        leave = ready if costs.joinSeconds == 0 else run.begins_at
        self._exit(record.uid, attempt, attempt.leaving, leave, Outcome.STOPPED, int(step))
        told = PlanChanged(
            run.uid,
            run.attempt,
            str(change.before),
            str(attempt.placement.plan),
            int(step),
            pause,
            (("moments", pause),),
            run.first_unit.node,
        )
        self.push(run.begins_at, OfRun(told, run.uid, run.version))
        self._go_on(run)

    # -- what happens ---------------------------------------------------------------------

    def _happens(self, what: Coming) -> None:
        match what:
            case Tick():
                run = self._present(what.uid, what.version)
                if run is not None:
                    self._tick(run)
            case Tells():
                run = self._present(what.uid, what.version)
                if run is not None and not run.over:
                    self._tell(run)
            case End():
                run = self._present(what.uid, what.version)
                if run is not None:
                    self._ends(run)
            case Noted():
                self.rows.append(what.row)
            case OfRun():
                if self._present(what.uid, what.version) is not None:
                    self._arrive(what.event)
            case _:
                self._arrive(what)

    def _present(self, uid: JobUid, version: int) -> Run | None:
        run = self._runs.get(uid)
        return run if run is not None and run.version == version and not run.over else None

    def _tick(self, run: Run) -> None:
        now, costs = self._clock.now(), self._scenario.costs
        step = run.steps_at(now)
        if now <= run.begins_at:
            self._note(run, Happened.TRAINS, now, step, 1.0 / run.step_seconds)
        else:
            run = self._runs[run.uid] = replace(run, saved_step=self._saved(run, step))
        self.push(now, self._progress(run, int(step), run.saved_step))
        later = self._later(max(seconds(costs.progressSeconds), seconds(run.step_seconds)))
        if later < run.ends_at:
            self.push(later, Tick(run.uid, run.version))

    def _later(self, least: Duration) -> Instant:
        now = self._clock.now()
        return after(now, max(least, Duration(int(self._coarser * (now - self._began)))))

    def _progress(self, run: Run, step: int, saved: int) -> JobProgressed:
        progress = Progress(step, saved, 1.0 / (1.0 + step), run.step_seconds)
        return JobProgressed(run.uid, run.attempt, progress, node=run.first_unit.node)

    def _tell(self, run: Run) -> None:
        told = observed(run, self._arrivals[run.uid].job.spec, self._nodes.get)
        if told is not None:
            self.push(self._clock.now(), told)

    def _ends(self, run: Run) -> None:
        """The last step is done, or the run fails at it."""
        now = self._clock.now()
        self._runs[run.uid] = replace(run, over=True)
        gone = after(now, seconds(self._scenario.costs.checkpointSeconds))
        step = int(run.last_step)
        if run.fails:
            saved = self._saved(run, step)
            # Only what fails in every attempt is the job's own doing.
            own = bool(self._arrivals[run.uid].fails_at_step)
            how = f"failed at step {step}" if own else f"ended at step {step} {WITHOUT_A_WORD}"
            why = Reason(ReasonCode.RANK_FAILED, f"rank 0 {how}")
            outcome, happened = Outcome.FAILED, Happened.FAILED
        else:
            saved, why, outcome, happened = step, None, Outcome.SUCCEEDED, Happened.FINISHED
            self.push(now, self._progress(run, step, step))
        self._steps[run.uid] = saved
        for unit in run.placement.units:
            end = UnitExit(unit.index, outcome, step, why)
            self.push(gone, UnitExited(run.uid, run.attempt, end, unit.node))
        self.push(gone, Noted(row_of(run, happened, gone, saved)))

    def _arrive(self, event: Event) -> None:
        """A message arrives, unless its node cannot be heard; what it means for the cluster."""
        now = self._clock.now()
        uid: JobUid | None = None
        match event:
            case JobSubmitted():
                self.rows.append(Row(now, event.job.uid, Happened.SUBMITTED))
            case NodeRegistered():
                self._comes(event.node)
            case NodeLost():
                self._goes(event.node)
            case (
                UnitExited()
                | JobProgressed()
                | UnitStarted()
                | RendezvousBound()
                | PlanChanged()
                | PlanObserved()
            ):
                if event.node in self._away:
                    return
                uid = event.uid
        if uid is not None:
            self._touched[uid] = None
        self._store.append(replace(event, at=now), self._term)

    def _comes(self, node: Node) -> None:
        self._away.discard(node.id)
        self._note_online(node)
        self._schedule_loss(node)

    def _note_online(self, node: Node) -> None:
        held = ((node.id, len(node.accelerators)),)
        self.rows.append(Row(self._clock.now(), JobUid(""), Happened.NODE_ONLINE, held))

    def _goes(self, node: NodeId) -> None:
        self._away.add(node)
        now = self._clock.now()
        self.rows.append(Row(now, JobUid(""), Happened.NODE_LOST, ((node, 0),)))
        for uid, run in self._runs.items():
            if node in run.placement.nodes:
                self._touched[uid] = None

    # -- schedule -------------------------------------------------------------------------

    def _note(
        self, run: Run, happened: Happened, at: Instant, step: float | None = None, speed: float = 0
    ) -> None:
        done = run.first_step if step is None else step
        self.rows.append(row_of(run, happened, at, done, speed))

    def _exit(
        self,
        uid: JobUid,
        attempt: AttemptRecord,
        units: Iterable[LaunchUnit],
        at: Instant,
        outcome: Outcome,
        step: int = 0,
    ) -> None:
        for unit in units:
            end = UnitExit(unit.index, outcome, step)
            self.push(at, UnitExited(uid, attempt.number, end, unit.node))

    def _soon(self) -> Instant:
        return after(self._clock.now(), seconds(self._scenario.costs.messageSeconds))

    def _next_version(self) -> int:
        self._versions += 1
        return self._versions

    def push(self, at: Instant, what: Coming) -> None:
        """Something is to happen at an instant."""
        faults, seed = self._scenario.faults, self._scenario.seed
        self._pushed += 1
        number = self._pushed
        if faults.lateShare and is_message(what):
            if draw(seed, "late", number) < faults.lateShare:
                wait = draw_between(0.0, faults.lateSeconds, seed, "lateness", number)
                at = after(at, seconds(wait))
            if draw(seed, "doubled", number) < faults.doubledShare:
                self._pushed += 1
                again = after(at, seconds(faults.lateSeconds))
                heapq.heappush(self._heap, (again, self._pushed, what))
        heapq.heappush(self._heap, (at, number, what))

    def _schedule_all(self) -> None:
        start = self._clock.now()
        for queue in self._scenario.queues:
            self.push(start, QueueChanged(queue))
        self._nodes = {node.id: node for node in self._scenario.nodes}
        self._losses = dict.fromkeys(self._nodes, 0)
        for node in self._scenario.nodes:
            self.push(start, NodeRegistered(node))
        for arrival in self._scenario.arrivals:
            self._arrivals[arrival.job.uid] = arrival
            self.unfinished.add(arrival.job.uid)
            self.push(Instant(start + arrival.at), JobSubmitted(arrival.job))

    def _schedule_loss(self, node: Node) -> None:
        """When a node that is there will be lost, and will be back."""
        faults = self._scenario.faults
        if not faults.nodeLossesPerDay:
            return
        count = self._losses[node.id]
        self._losses[node.id] = count + 1
        luck = draw(self._scenario.seed, "loss", node.id, count)
        wait = -log(1.0 - luck) * _DAY_SECONDS / faults.nodeLossesPerDay
        lost = after(self._clock.now(), seconds(wait))
        if lost < self._horizon:
            self.push(lost, NodeLost(node.id))
            back = after(lost, seconds(faults.nodeAwaySeconds))
            self.push(back, NodeRegistered(node))
