"""Runs a scenario through the one loop and says what came of it."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256

from controlplane.baselines import BASELINES
from controlplane.domain.clock import Duration, Instant, after
from controlplane.domain.codec import dump_event
from controlplane.domain.event import CycleDecided
from controlplane.domain.ids import JobUid, Term
from controlplane.domain.lifecycle import Stage
from controlplane.domain.policy import Policy, PolicySettings
from controlplane.domain.record import JobRecord
from controlplane.engine.loop import CycleReport, Loop
from controlplane.engine.state import ClusterState, SequencedEvent
from simulator.memory_store import MemoryStore
from simulator.scenario import Scenario
from simulator.virtual_clock import VirtualClock
from simulator.virtual_cluster import VirtualCluster


@dataclass(slots=True)
class Watcher:
    """Counts what the report needs while the loop runs."""

    cycles: int = 0
    refused: list[str] = field(default_factory=list)
    held_ns: int = 0
    capacity_ns: int = 0
    last_at: Instant | None = None
    last_held: int = 0
    last_capacity: int = 0
    seen: dict[JobUid, JobRecord] = field(default_factory=dict)

    def __call__(self, report: CycleReport) -> None:
        """Told by the loop after each cycle."""
        self.cycles += 1
        if report.outcome is not None:
            self.refused.extend(report.outcome.refused)
            self._account(report.state, report.outcome.decided.at)
        self.seen.update(report.state.jobs)

    def _account(self, state: ClusterState, now: Instant) -> None:
        if self.last_at is not None:
            passed = now - self.last_at
            self.held_ns += passed * self.last_held
            self.capacity_ns += passed * self.last_capacity
        snapshot = state.snapshot(now)
        self.last_at = now
        self.last_held = len(snapshot.holders)
        self.last_capacity = sum(
            len(node.node.accelerators) for node in state.nodes.values() if node.usable
        )


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a simulation.

    Attributes:
        state: The last state.
        jobs: Every job ever seen, as last seen.
        cycles: Cycles of the loop.
        decisions_hash: Hash of all decisions.
        utilisation: Share of usable accelerator time that was held.
        refused: Sentences of decisions that broke an invariant; must be empty.
        ended_at: Virtual instant at the end.
        decisions: All decisions, in order.
    """

    state: ClusterState
    jobs: Mapping[JobUid, JobRecord]
    cycles: int
    decisions_hash: str
    utilisation: float
    refused: tuple[str, ...]
    ended_at: Instant
    decisions: tuple[SequencedEvent, ...] = ()

    def completion_seconds(self) -> list[float]:
        """Submission to finish of every job that succeeded, ascending."""
        return sorted(
            (record.finished_at - record.job.submitted_at) / 1e9
            for record in self.jobs.values()
            if record.stage is Stage.SUCCEEDED and record.finished_at is not None
        )


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
    clock = VirtualClock(start_at)
    until = after(start_at, horizon)
    state = start or ClusterState.empty()
    settings = replace(state.settings, policy=policy, period_seconds=60.0)
    if start is None:
        settings = PolicySettings(policy=policy, period_seconds=60.0)
    state = replace(state, settings=settings)
    store = MemoryStore(after=state.last_sequence)
    term = store.acquire_term(at_least=Term(state.term + 1))
    cluster = VirtualCluster(scenario, clock, until, store, term)
    if start is not None:
        cluster.continue_from(state)
    watcher = Watcher()
    loop = Loop(clock, cluster, store.decisions(), cluster, policies, term, observe=watcher)
    last = asyncio.run(loop.run(state, until))
    share = watcher.held_ns / watcher.capacity_ns if watcher.capacity_ns else 0.0
    decisions = tuple(logged for logged in store.log if isinstance(logged.event, CycleDecided))
    return Result(
        state=last,
        jobs=watcher.seen,
        cycles=watcher.cycles,
        decisions_hash=_hash(decisions),
        utilisation=share,
        refused=tuple(watcher.refused),
        ended_at=clock.now(),
        decisions=decisions,
    )


def _hash(decisions: tuple[SequencedEvent, ...]) -> str:
    digest = sha256()
    for logged in decisions:
        digest.update(dump_event(logged.event).encode())
    return digest.hexdigest()
