"""Runs a scenario through the one loop and says what came of it."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256

from controlplane.baselines import BASELINES
from controlplane.domain.clock import FOREVER, Duration, Instant, after
from controlplane.domain.codec import dump_event
from controlplane.domain.event import CycleDecided, Event, NodeLost, NodeRegistered
from controlplane.domain.ids import JobUid, SequenceNumber, Term
from controlplane.domain.lifecycle import Stage
from controlplane.domain.policy import Policy, PolicySettings
from controlplane.domain.record import JobRecord
from controlplane.engine.loop import CycleReport, Loop
from controlplane.engine.ports import DecisionLog
from controlplane.engine.state import ClusterState, SequencedEvent
from simulator.memory_store import MemoryStore
from simulator.results.allocation_log import Row, offered_ns, stretches
from simulator.scenario import Arrival, Scenario
from simulator.searching import SearchBeside
from simulator.virtual_clock import VirtualClock
from simulator.virtual_cluster import StalledError, VirtualCluster

_COARSER = 0.01
"""What lies a day ahead is played to a quarter of an hour: to decide each minute of a job that
takes months would take hours, and would say no more of them.
"""

_FINISHED_KEPT = 16
"""Finished jobs that a run to the end remembers: to carry more of them along only takes time."""


Learns = Callable[[CycleReport], Iterable[Event]]
"""What a cycle teaches those who stand beside the loop, as events that follow at once."""


@dataclass(slots=True)
class Watcher:
    """Counts what the report needs while the loop runs."""

    cycles: int = 0
    events: int = 0
    refused: list[str] = field(default_factory=list)
    seen: dict[JobUid, JobRecord] = field(default_factory=dict)
    progress: Callable[[int, Instant], None] | None = None
    ended: int = 0
    state: ClusterState | None = None

    def __call__(self, report: CycleReport) -> None:
        """Told by the loop after each cycle. Only jobs to which something happened are looked at,
        since to go through all of them in every cycle takes longer than the cycle.
        """
        self.cycles += 1
        self.state = report.state
        self.events += len(report.events)
        jobs = report.state.jobs
        for numbered in report.events:
            uid = getattr(numbered.event, "uid", None)
            if uid is not None:
                self._see(jobs.get(uid))
            elif isinstance(numbered.event, NodeLost | NodeRegistered):
                self.seen.update(jobs)
        if report.outcome is not None:
            self.refused.extend(report.outcome.refused)
            for action in report.outcome.decided.actions:
                self._see(jobs.get(action.uid))

    def _see(self, record: JobRecord | None) -> None:
        if record is None:
            return
        before = self.seen.get(record.uid)
        self.seen[record.uid] = record
        if record.finished_at is not None and (before is None or before.finished_at is None):
            self.ended += 1
            if self.progress is not None:
                self.progress(self.ended, record.finished_at)


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a simulation.

    Attributes:
        state: The last state.
        jobs: Every job ever seen, as last seen.
        cycles: Cycles of the loop.
        decisions_hash: Hash of all decisions.
        utilisation: Share of the offered accelerator time that was held.
        refused: Sentences of decisions that broke an invariant; must be empty.
        ended_at: Virtual instant at the end.
        events: Events that the loop folded.
        rows: The allocation log.
        decisions: All decisions, in order; none if the log was not kept.
        stalled: Why it ended although jobs were left; empty if none were.
    """

    state: ClusterState
    jobs: Mapping[JobUid, JobRecord]
    cycles: int
    decisions_hash: str
    utilisation: float
    refused: tuple[str, ...]
    ended_at: Instant
    events: int = 0
    rows: tuple[Row, ...] = ()
    decisions: tuple[SequencedEvent, ...] = ()
    stalled: str = ""

    def completion_seconds(self) -> list[float]:
        """Submission to finish of every job that succeeded, ascending."""
        return sorted(
            (record.finished_at - record.job.submitted_at) / 1e9
            for record in self.jobs.values()
            if record.stage is Stage.SUCCEEDED and record.finished_at is not None
        )


class _Hashed:
    """A decision log that hashes what goes by."""

    def __init__(self, log: DecisionLog) -> None:
        self._log = log
        self._digest = sha256()

    async def append(self, decided: CycleDecided) -> SequenceNumber:
        self._digest.update(dump_event(decided).encode())
        return await self._log.append(decided)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def simulate(
    scenario: Scenario,
    *,
    policy: str,
    horizon: Duration,
    start: ClusterState | None = None,
    start_at: Instant = Instant(0),
    policies: Mapping[str, Policy] = BASELINES,
) -> Result:
    """Plays ``scenario`` for ``horizon`` of virtual time.

    Args:
        scenario: Nodes, jobs, faults and costs.
        policy: Name of the policy that decides.
        horizon: How long.
        start: A state to go on from (an exported snapshot); empty if None.
        start_at: The instant of ``start``.
        policies: Policies by name.
    """
    until = after(start_at, horizon)
    state = start or ClusterState.empty()
    settings = replace(state.settings, policy=policy, period_seconds=60.0)
    if start is None:
        settings = PolicySettings(policy=policy, period_seconds=60.0)
    state = replace(state, settings=settings)
    clock = VirtualClock(start_at)
    store = MemoryStore(after=state.last_sequence)
    term = store.acquire_term(at_least=Term(state.term + 1))
    cluster = VirtualCluster(scenario, clock, until, store, term)
    if start is not None:
        cluster.continue_from(state)
    result = _play(cluster, clock, store, policies, term, state, until, Watcher())
    decisions = tuple(logged for logged in store.log if isinstance(logged.event, CycleDecided))
    return replace(result, decisions=decisions)


def simulate_to_the_end(
    scenario: Scenario,
    policy: Policy,
    *,
    name: str,
    period_seconds: float = 60.0,
    round_seconds: float = 0.0,
    progress: Callable[[int, Instant], None] | None = None,
    learns: Learns | None = None,
) -> Result:
    """Plays ``scenario`` until its last job has ended.

    Args:
        scenario: Nodes, jobs, faults and costs.
        policy: What decides.
        name: Its name.
        period_seconds: Longest virtual time between two decisions.
        round_seconds: Decisions are made at multiples of this only; 0 for whenever something
            happens.
        progress: Told, whenever a job has ended, how many have, and when.
        learns: What becomes known after each cycle; None for nothing.

    Raises:
        UnknownPlacementError: The policy put a job where nobody knows what its steps take.
        StalledError: Jobs are left that the policy never starts.
    """
    settings = replace(
        _unhurried(PolicySettings(), name, period_seconds),
        finished_jobs_kept=_FINISHED_KEPT,
        finished_kept_seconds=0.0,
    )
    state = replace(ClusterState.empty(), settings=settings)
    clock = VirtualClock()
    store = MemoryStore(keeps_log=False)
    term = store.acquire_term()
    cluster = VirtualCluster(
        scenario, clock, FOREVER, store, term, until_finished=True, round_seconds=round_seconds
    )
    watcher = Watcher(progress=progress)
    policies = {name: policy}
    return _play(cluster, clock, store, policies, term, state, FOREVER, watcher, learns=learns)


def continue_to_the_end(
    scenario: Scenario,
    start: ClusterState,
    *,
    start_at: Instant,
    policy: str,
    policies: Mapping[str, Policy],
    known: Mapping[JobUid, Arrival],
    changes: Sequence[Event] = (),
    progress: Callable[[int, Instant], None] | None = None,
    period_seconds: float = 60.0,
) -> Result:
    """Plays on from ``start`` until every job has ended whose end is known, or none is ever started
    that is left.

    Args:
        scenario: Nodes and jobs that join at once, and what starts and changes take.
        start: An exported snapshot.
        start_at: Its instant.
        policy: Name of the policy that decides.
        policies: By name.
        known: How fast the jobs of the snapshot train.
        changes: What else happens at once.
        progress: Told, whenever a job has ended, how many have, and when.
        period_seconds: Longest virtual time between two decisions.

    Raises:
        UnknownPlacementError: The policy put a job where nobody knows what its steps take.
    """
    state = replace(start, settings=_unhurried(start.settings, policy, period_seconds))
    clock = VirtualClock(start_at)
    store = MemoryStore(after=state.last_sequence, keeps_log=False)
    term = store.acquire_term(at_least=Term(state.term + 1))
    cluster = VirtualCluster(
        *(scenario, clock, FOREVER, store, term),
        until_finished=True,
        changes=changes,
        coarser=_COARSER,
    )
    cluster.continue_from(state, known)
    watcher = Watcher(progress=progress, state=state)
    return _play(cluster, clock, store, policies, term, state, FOREVER, watcher, may_stall=True)


def _unhurried(settings: PolicySettings, policy: str, period_seconds: float) -> PolicySettings:
    """The settings without limits on starts and changes: what a switch or a slow step takes is the
    scenario's business.
    """
    return replace(
        settings,
        policy=policy,
        period_seconds=period_seconds,
        start_grace_seconds=0.0,
        answer_seconds=86_400.0,
    )


def _play(
    cluster: VirtualCluster,
    clock: VirtualClock,
    store: MemoryStore,
    policies: Mapping[str, Policy],
    term: Term,
    state: ClusterState,
    until: Instant,
    watcher: Watcher,
    *,
    may_stall: bool = False,
    learns: Learns | None = None,
) -> Result:
    log = _Hashed(store.decisions())
    beside = SearchBeside(policies, clock.now, cluster.push)
    begins = clock.now()

    def observe(report: CycleReport) -> None:
        # What has no end is left as it was, not as it would be at the end of time.
        if not (may_stall and cluster.ended_at is not None):
            watcher(report)
            beside.look(report)
        for event in learns(report) if learns is not None else ():
            cluster.push(clock.now(), event)

    loop = Loop(clock, cluster, log, cluster, policies, term, observe=observe)
    last, stalled = state, ""
    try:
        last = asyncio.run(loop.run(state, until))
    except StalledError as error:
        if not may_stall:
            raise
        stalled = str(error)
    if may_stall:
        last = watcher.state or state
    watcher.seen.update(last.jobs)
    ended = cluster.ended_at or clock.now()
    return Result(
        state=last,
        jobs=watcher.seen,
        cycles=watcher.cycles,
        decisions_hash=log.hexdigest(),
        utilisation=_utilisation(cluster.rows, begins, ended),
        refused=tuple(watcher.refused),
        ended_at=ended,
        events=watcher.events,
        rows=tuple(cluster.rows),
        stalled=stalled,
    )


def _utilisation(rows: list[Row], start: Instant, until: Instant) -> float:
    offered = offered_ns(rows, start, until)
    held = sum(stretch.accelerator_ns for stretch in stretches(rows, until))
    return held / offered if offered else 0.0
