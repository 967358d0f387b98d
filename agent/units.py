"""Carries out commands on this node's launch units, and watches them.

A unit is alive while its supervisor's process is; both that and all else about it is read from
its control folder, so a unit found there after the agent was restarted is like any other.
"""

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import structlog

from agent import desired, launching, outcome, processes
from agent.control_folder import ControlFolder, Observation, Phase, clear_old_folders
from agent.desired import Assignment, LocalUnit, UnitEnd, UnitKey
from agent.job_pods import JobPods, PodControlFolder
from agent.journal import Journal
from agent.launching import LaunchSettings
from agent.outbox import Batch, Outbox
from agent.output_log import last_lines
from agent.starting import Ray, RayStarts, start_in_pod
from controlplane.domain.node import Accelerator
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import Outcome

ENDS_KEPT = 1000
"""Ends of units kept in memory; those of older ones are read from their folders again."""
PURGE_RETRY_SECONDS = 60.0
RAY_ENDS_WITHIN_SECONDS = 0.5
"""Ray's own processes, and those that it started, do not all die in the same instant."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class UnitSettings:
    """How this node treats its units.

    Attributes:
        node: Name of the node.
        root: Folder of this node's state.
        launch: How ranks are started.
        end_grace_seconds: Between SIGTERM and SIGKILL.
        supervisor_grace_seconds: After that, until a supervisor that does not tell the end of its
            rank is killed too.
        ray_patience_seconds: How long a start waits for Ray before it counts as failed.
        pod_patience_seconds: The same of a pod of the job's own, whose image may have to be pulled.
    """

    node: str
    root: Path
    launch: LaunchSettings = field(default_factory=LaunchSettings)
    end_grace_seconds: float = 10.0
    supervisor_grace_seconds: float = 20.0
    ray_patience_seconds: float = 60.0
    pod_patience_seconds: float = 600.0


@dataclass
class _Tracked:
    """A unit that is alive, or about to be.

    Attributes:
        plan: What it was started with, or asked for since.
        changes_offset: How far its ``changes.jsonl`` was read.
        busy: Something else sees to it (its start, its burial), so a tick leaves it alone.
        end_since: When it was told to exit at once.
    """

    folder: ControlFolder
    accelerators: tuple[str, ...]
    offset: int
    step: int = 0
    plan: str = ""
    changes_offset: int = 0
    busy: bool = False
    told_started: bool = False
    told_rendezvous: bool = False
    end_since: float | None = None
    terminated: bool = False
    killed: bool = False


class Units:
    """All launch units of this node."""

    def __init__(
        self,
        settings: UnitSettings,
        accelerators: Mapping[str, Accelerator],
        journal: Journal,
        outbox: Outbox,
        ray: Ray,
        changed: Callable[[], None],
    ) -> None:
        self.settings = settings
        self.folder = settings.root / "units"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.accelerators = dict(accelerators)
        self.assignment: Assignment | None = None
        self.steps_total: dict[str, int] = {}
        self._journal = journal
        self._outbox = outbox
        self._ray = ray
        self._ray_starts = RayStarts(ray, settings.node, settings.ray_patience_seconds)
        self._pods = JobPods()
        self._pods_wanted: dict[tuple[str, int], float] = {}
        self._changed = changed
        self._tracked: dict[UnitKey, _Tracked] = {}
        self._ends: dict[UnitKey, UnitEnd] = {}
        self._told: set[UnitKey] = set()
        self._purging: set[str] = set()
        self._speaks = False
        self._found: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()

    # What others ask.

    def running(self) -> dict[UnitKey, tuple[str, ...]]:
        """Units that are alive, with what they hold."""
        return {key: unit.accelerators for key, unit in sorted(self._tracked.items())}

    def alive(self, key: UnitKey) -> bool:
        """Whether more output may come from this unit."""
        return key in self._tracked

    def latest_attempt(self, uid: str) -> int:
        """Highest attempt of a job with a folder here; 0 if there is none."""
        with contextlib.suppress(OSError):
            names = [path.name for path in (self.folder / uid).iterdir()]
            return max((int(name) for name in names if name.isdigit()), default=0)
        return 0

    # What the control plane says.

    def obey(self, assignment: Assignment) -> str:
        """Takes a new assignment; returns why it is refused, or empty."""
        refused = desired.refusal(assignment, self._journal.memory)
        if refused:
            _log.warning("assignment_refused", why=refused)
            return refused
        self._journal.obey(assignment.term, assignment.number)
        self.assignment = assignment
        self._told.clear()
        alive = {key.uid for key in self._tracked}
        self.steps_total = {uid: n for uid, n in self.steps_total.items() if uid in alive}
        for launch in assignment.launches:
            self.steps_total[launch.uid] = launching.steps_total(launch.manifest_json)
        self.reconcile()
        return ""

    def acknowledged(self, batch: Batch) -> None:
        """The control plane has made this report durable."""
        self._outbox.acknowledged(batch)
        for key, _ in batch.exits:
            self._told.add(key)
        self._journal.release(key for key, _ in batch.exits)
        for key, progress in batch.progress:
            # The folder may be gone, or the disk full: then the lines are told again.
            with contextlib.suppress(OSError):
                ControlFolder(self.folder, key).remember_reported(progress.offset)
        for key, changes in batch.plans:
            with contextlib.suppress(OSError):
                ControlFolder(self.folder, key).remember_changes_told(changes.offset)
        if batch.exits:
            self._spawn(self._clear_old())

    def health(self, problems: Mapping[str, str]) -> None:
        """The probe's newest finding."""
        for slot, known in self.accelerators.items():
            problem = problems.get(slot, "")
            if problem != known.unhealthy:
                self.accelerators[slot] = replace(known, unhealthy=problem)
                self._outbox.health(slot, problem)
                self._changed()

    def registered(self) -> None:
        """The control plane lets this agent, and no other, speak for the node."""
        self._speaks = True
        names, self._found = self._found, []
        self.prune_actors(names)

    def prune_actors(self, names: list[str]) -> None:
        """Ray was joined: ends actors of this node that supervise nothing (any more).

        Once registered: until then they may be those of another agent that has this node's name.
        """
        if not self._speaks:
            self._found = names
            return
        mine = {launching.actor_name(self.settings.node, key) for key in self._tracked}
        for name in names:
            if name not in mine:
                self._spawn(self._kill_actor(name))

    # What happens here.

    def reconcile(self) -> None:
        """Brings the node closer to its assignment."""
        if self.assignment is None:
            return
        memory = self._journal.memory
        for launch in self.assignment.launches:
            for unit in launch.units:
                self._recall(launch.key(unit), memory)
        pods_up, pods_overdue = self._look_for_pods(self.assignment)
        local = desired.Local(
            running={key: _local(unit) for key, unit in self._tracked.items()},
            ends=self._ends,
            ends_pending=self._outbox.exits | self._told,
            accelerators={slot: one.unhealthy for slot, one in self.accelerators.items()},
            pods_up=pods_up,
            pods_overdue=pods_overdue,
        )
        for command in desired.commands(self.assignment, local, memory):
            self._carry_out(command)

    def _look_for_pods(
        self, assignment: Assignment
    ) -> tuple[set[tuple[str, int]], set[tuple[str, int]]]:
        """Pods that units wait for: those that are up, and those that take too long."""
        known, now = self._journal.memory.started, time.monotonic()
        wanted = {
            (launch.uid, launch.attempt)
            for launch in assignment.launches
            if launch.own_pod and any(launch.key(unit) not in known for unit in launch.units)
        }
        self._pods_wanted = {key: self._pods_wanted.get(key, now) for key in wanted}
        up = {key for key in wanted if self._pods.find(*key) is not None}
        patience = self.settings.pod_patience_seconds
        return up, {key for key, since in self._pods_wanted.items() if now > since + patience}

    def tick(self) -> None:
        """Looks after every unit once."""
        for key, unit in list(self._tracked.items()):
            if not unit.busy:
                self._look(key, unit, unit.folder.observe())
        self.reconcile()

    async def close(self, *, end_units: bool) -> None:
        """Leaves the units running, or ends them first."""
        if end_units:
            self.assignment = None
            for key in list(self._tracked):
                self._carry_out(desired.EndUnit(key))
            while self._tracked:
                self.tick()
                await asyncio.sleep(0.1)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def adopt(self) -> None:
        """Picks up what the journal says was started and not yet acknowledged as gone. First."""
        for key, slots in self._journal.unreleased().items():
            folder = self._folder_of(key)
            self._recall(key, self._journal.memory)
            if key in self._ends:
                self._outbox.exited(key, self._ends[key])
                continue
            unit = _Tracked(folder, slots, folder.reported_offset(), plan=folder.plan())
            unit.changes_offset = folder.changes_told()
            unit.end_since = time.monotonic() if folder.end_requested else None
            self._tracked[key] = unit
        supervised = {
            unit.folder.path
            for unit in self._tracked.values()
            if unit.folder.observe().phase in (Phase.STARTING, Phase.RUNNING)
        }
        for left_over, folder_path in processes.of_control_folder(self.folder, below=True):
            if folder_path not in supervised:
                _log.warning("leftover_killed", pid=left_over.pid, folder=str(folder_path))
                left_over.signal(signal.SIGKILL)
        self.tick()
        _log.info("adopted", running=[str(key) for key in self._tracked])

    def _folder_of(self, key: UnitKey) -> ControlFolder:
        """The control folder of a unit that an agent before this one started."""
        folder = ControlFolder(self.folder, key)
        if PodControlFolder.is_one(folder):
            return PodControlFolder(self.folder, key, self._pods)
        return folder

    def _recall(self, key: UnitKey, memory: desired.Memory) -> None:
        if key in self._tracked or key in self._ends or key not in memory.started:
            return
        verdict = ControlFolder(self.folder, key).verdict()
        if verdict is not None:
            with contextlib.suppress(KeyError, ValueError):
                self._ends[key] = outcome.from_json(verdict)

    def _carry_out(self, command: desired.Command) -> None:
        match command:
            case desired.StartUnit(key, launch, unit):
                self._start(key, launch, unit)
            case desired.RequestStop(key):
                _log.info("unit_stop_requested", unit=str(key))
                self._tracked[key].folder.request_stop()
            case desired.AskForPlan(key, plan):
                with contextlib.suppress(OSError):  # a full disk: asked again on the next tick
                    self._tracked[key].folder.ask_for_plan(plan)
                    self._tracked[key].plan = plan
                    _log.info("plan_asked_for", unit=str(key), plan=plan)
            case desired.EndUnit(key):
                _log.info("unit_end_requested", unit=str(key))
                unit_ = self._tracked[key]
                unit_.end_since = time.monotonic()
                with contextlib.suppress(OSError):  # only matters after a restart
                    unit_.folder.request_end()
            case desired.ReportExit(key, end):
                self._answer(key, end)
            case desired.PurgeCheckpoints(key, manifest_json):
                if key.uid not in self._purging:
                    self._purging.add(key.uid)
                    self._spawn(self._purge(key, manifest_json))

    def _answer(self, key: UnitKey, end: UnitEnd) -> None:
        """Says that a unit does not run; from then on it must not be started either."""
        _log.info("unit_not_running", unit=str(key), outcome=end.outcome.value)
        memory = self._journal.memory
        if key.uid not in memory.purged:
            if key not in memory.started:
                self._journal.start(key, ())
            self._keep_end(key, end)
        self._outbox.exited(key, end)
        self._changed()

    # Starting.

    def _start(self, key: UnitKey, launch: desired.WantedLaunch, unit: desired.WantedUnit) -> None:
        settings, folder = self.settings.launch, ControlFolder(self.folder, key)
        told_folder = folder.path
        try:
            if launch.own_pod:
                pod = self._pods.find(key.uid, key.attempt)
                if pod is None:
                    raise FileNotFoundError("the pod of its job ended just now")
                folder = PodControlFolder(self.folder, key, self._pods)
                settings = launching.in_pod(settings, pod.address)
                told_folder = folder.inside
            folder.prepare(launching.launch_json(launch, unit, settings, self.accelerators))
            spec = launching.unit_spec(
                launch, unit, str(told_folder), settings, self.accelerators
            ).to_json()
            self._journal.start(key, unit.accelerators)
        except (OSError, ValueError, KeyError, TypeError) as error:
            # A full disk, or a manifest from a version that this agent cannot read.
            message = f"unit {key.unit} cannot be prepared on this node: {error}"
            reason = Reason(ReasonCode.START_REFUSED, message)
            self._answer(key, UnitEnd(Outcome.FAILED, reason=reason))
            return
        _log.info("unit_starting", unit=str(key), accelerators=unit.accelerators)
        self._tracked[key] = _Tracked(folder, unit.accelerators, 0, plan=launch.plan, busy=True)
        self._spawn(self._bring_up(key, spec))

    async def _bring_up(self, key: UnitKey, spec: dict[str, object]) -> None:
        unit = self._tracked[key]
        folder = unit.folder
        try:
            if isinstance(folder, PodControlFolder):
                problem = await start_in_pod(folder, spec)
            else:
                problem = await self._ray_starts.start(
                    key,
                    spec,
                    leaving=lambda: _local(unit).leaving,
                    unclaimed=lambda: folder.observe().phase is Phase.UNCLAIMED,
                )
        finally:
            unit.busy = False
        if problem is not None and unit.folder.fence():
            # Nobody can start it any more, so it is safe to say that it does not run.
            outcome_ = Outcome.NEVER_STARTED if _local(unit).leaving else Outcome.FAILED
            self._gone(key, unit, UnitEnd(outcome_, reason=problem))
        self._look(key, unit, unit.folder.observe())

    # Watching.

    def _look(self, key: UnitKey, unit: _Tracked, seen: Observation) -> None:
        if self._tracked.get(key) is not unit:
            return
        match seen.phase:
            case Phase.UNCLAIMED:
                unit.folder.fence()  # looked at again on the next tick, whoever won
            case Phase.FENCED:
                self._gone(
                    key,
                    unit,
                    outcome.vanished(unit=key.unit, step=0, end_requested=False, last=""),
                )
            case Phase.STARTING:
                self._end_supervisor_in_time(key, unit, seen)
            case Phase.RUNNING:
                self._look_at_running(key, unit, seen)
                self._end_supervisor_in_time(key, unit, seen)
            case Phase.ENDED if not self._killed_by_others(unit, seen):
                self._read_progress(key, unit)
                self._gone(key, unit, self._concluded(key, unit, seen))
            case Phase.ENDED | Phase.VANISHED:
                unit.busy = True  # not looked at again until this is through
                self._spawn(self._bury(key, unit, seen))

    def _look_at_running(self, key: UnitKey, unit: _Tracked, seen: Observation) -> None:
        if not unit.told_started:
            unit.told_started = True
            self._outbox.started(key)
            self._changed()
        if key.unit == 0 and not unit.told_rendezvous:
            address = unit.folder.rendezvous()
            if address:
                unit.told_rendezvous = True
                self._outbox.rendezvous(key, address)
                self._changed()
        self._read_progress(key, unit)
        if unit.end_since is not None and not unit.terminated and seen.rank is not None:
            unit.terminated = True
            seen.rank.signal(signal.SIGTERM)
        late = (
            unit.end_since is not None
            and time.monotonic() > unit.end_since + self.settings.end_grace_seconds
        )
        if late and not unit.killed:
            unit.killed = True
            session = seen.rank.pid if seen.rank is not None else 0
            self._spawn(_in_thread(unit.folder.kill_processes, session))

    def _end_supervisor_in_time(self, key: UnitKey, unit: _Tracked, seen: Observation) -> None:
        """One that hangs would keep its accelerators for ever."""
        grace = self.settings.end_grace_seconds + self.settings.supervisor_grace_seconds
        late = unit.end_since is not None and time.monotonic() > unit.end_since + grace
        if late and seen.supervisor is not None:
            _log.error("supervisor_hangs", unit=str(key), pid=seen.supervisor.pid)
            seen.supervisor.signal(signal.SIGKILL)

    def _read_progress(self, key: UnitKey, unit: _Tracked) -> None:
        lines, offset = unit.folder.progress_since(unit.offset)
        while offset != unit.offset:
            unit.offset = offset
            if lines:
                unit.step = max(unit.step, lines[-1].step)
                self._outbox.progress(key, lines, offset)
                self._changed()
            lines, offset = unit.folder.progress_since(offset)
        if key.unit == 0:
            self._read_changes(key, unit)

    def _read_changes(self, key: UnitKey, unit: _Tracked) -> None:
        """What became of the plans that were asked for, and of checkpoints; rank 0 says so."""
        changes, offset = unit.folder.changes_since(unit.changes_offset)
        if offset != unit.changes_offset:
            unit.changes_offset = offset
            self._outbox.plans(key, changes, offset)
            self._changed()

    async def _bury(self, key: UnitKey, unit: _Tracked, seen: Observation) -> None:
        """The supervisor is dead, or somebody killed the rank: Ray's end may be behind either.

        What a supervisor left behind must go before its accelerators are free.
        """
        session = seen.rank.pid if seen.rank is not None and seen.rank.alive else 0
        while not await asyncio.to_thread(unit.folder.kill_processes, session):
            _log.error("unit_outlives_kill", unit=str(key))
        self._read_progress(key, unit)
        # Whoever ends Ray and all below it kills in no order: a rank may die first.
        await asyncio.sleep(RAY_ENDS_WITHIN_SECONDS)
        host_lost = seen.raylet is None or not seen.raylet.alive
        if not unit.folder.in_pod:
            host_lost = host_lost or not await self._ray.head_answers()
            if host_lost:
                self._ray.rejoin()
        self._gone(key, unit, self._concluded(key, unit, seen, host_lost=host_lost))

    def _killed_by_others(self, unit: _Tracked, seen: Observation) -> bool:
        return outcome.killed_by_others(
            seen.ended or {},
            unit.folder.exit_statement(),
            end_requested=unit.end_since is not None,
            killed=unit.killed,
        )

    def _concluded(
        self, key: UnitKey, unit: _Tracked, seen: Observation, *, host_lost: bool = False
    ) -> UnitEnd:
        """How it ended; with ``host_lost`` its Ray, or its pod, went away under it."""
        told = last_lines(unit.folder.path)
        end_requested = unit.end_since is not None
        if seen.ended is None or host_lost:
            return outcome.vanished(
                unit=key.unit,
                step=unit.step,
                ray_lost=host_lost and not unit.folder.in_pod,
                pod_lost=host_lost and unit.folder.in_pod,
                end_requested=end_requested,
                last=told,
            )
        return outcome.conclude(
            seen.ended,
            unit.folder.exit_statement(),
            unit=key.unit,
            step=unit.step,
            end_requested=end_requested,
            killed=unit.killed,
            last_lines=told,
        )

    def _gone(self, key: UnitKey, unit: _Tracked, end: UnitEnd) -> None:
        """The unit is over for good."""
        with contextlib.suppress(OSError):  # then it is concluded again after a restart
            unit.folder.decide(outcome.to_json(end))
        code = end.reason.code.value if end.reason else ""
        _log.info("unit_gone", unit=str(key), outcome=end.outcome.value, reason=code)
        del self._tracked[key]
        self._keep_end(key, end)
        self._outbox.exited(key, end)
        self._changed()
        unit.folder.close()
        if not unit.folder.in_pod:
            self._spawn(self._kill_actor(launching.actor_name(self.settings.node, key)))

    def _keep_end(self, key: UnitKey, end: UnitEnd) -> None:
        self._ends[key] = end
        while len(self._ends) > ENDS_KEPT:
            del self._ends[next(iter(self._ends))]

    # Clearing up.

    async def _kill_actor(self, name: str) -> None:
        await self._ray.kill(name)

    async def _purge(self, key: UnitKey, manifest_json: str) -> None:
        store = launching.checkpoint_store(manifest_json)
        if not store or await self._purged(store, key.uid):
            self._journal.purge(key.uid)
        else:
            await asyncio.sleep(PURGE_RETRY_SECONDS)
        self._purging.discard(key.uid)
        self.reconcile()

    async def _purged(self, store: str, uid: str) -> bool:
        """A process of its own: the agent loads no storage libraries."""
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "headrace.workloads.checkpoints", "purge"),
            *("--store", store, "--uid", uid),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            _, said = await child.communicate()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            raise
        if child.returncode != 0:
            _log.warning("purge_failed", uid=uid, code=child.returncode, said=said.decode()[-500:])
        return child.returncode == 0

    async def _clear_old(self) -> None:
        busy = {key.uid for key in self._tracked} | {key.uid for key in self._outbox.exits}
        await asyncio.to_thread(clear_old_folders, self.folder, busy)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("task_failed", error=repr(task.exception()))


async def _in_thread(work: Callable[[int], object], session: int) -> None:
    await asyncio.to_thread(work, session)


def _local(unit: _Tracked) -> LocalUnit:
    return LocalUnit(
        accelerators=unit.accelerators,
        plan=unit.plan,
        stop_requested=unit.folder.stop_requested,
        end_requested=unit.end_since is not None,
    )
