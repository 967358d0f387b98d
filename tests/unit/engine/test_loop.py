"""The loop: when it decides, what it logs before it acts, and what it holds back after a start."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from controlplane.baselines import BASELINES
from controlplane.domain.clock import Instant, after, seconds
from controlplane.domain.event import CycleDecided, Event, JobSubmitted, NodeRegistered
from controlplane.domain.ids import Attempt, JobUid, SequenceNumber, Term
from controlplane.domain.lifecycle import Stage
from controlplane.domain.reason import ReasonCode
from controlplane.domain.record import RunningUnit
from controlplane.engine.loop import CycleReport, Loop
from controlplane.engine.ports import TermLostError
from controlplane.engine.state import ClusterState, SequencedEvent
from tests.builders import World, a_cluster, a_job, a_node


@dataclass
class Edges:
    """Clock, event source, decision log and action sink of a loop, kept in lists."""

    now: Instant
    coming: list[tuple[Instant, Event]] = field(default_factory=list)
    sequence: int = 1000
    story: list[str] = field(default_factory=list)
    reports: list[CycleReport] = field(default_factory=list)
    deadlines: list[Instant] = field(default_factory=list)
    term_lost: bool = False

    async def take(self, deadline: Instant) -> Sequence[SequencedEvent]:
        self.deadlines.append(deadline)
        self.now = min([deadline, *(at for at, _ in self.coming)])
        came = [(at, event) for at, event in self.coming if at <= self.now]
        self.coming = [item for item in self.coming if item not in came]
        return [self._numbered(replace(event, at=at)) for at, event in came]

    def _numbered(self, event: Event) -> SequencedEvent:
        self.sequence += 1
        return SequencedEvent(SequenceNumber(self.sequence), event)

    async def append(self, decided: CycleDecided) -> SequenceNumber:
        if self.term_lost:
            raise TermLostError("term 2 decides now")
        self.story.append("logged " + ",".join(action.kind for action in decided.actions))
        return self._numbered(decided).sequence

    async def carry_out(self, state: ClusterState, decided: CycleDecided) -> None:
        self.story.append(f"acted on {len(decided.actions)}")

    @property
    def clock(self) -> "EdgesClock":
        return EdgesClock(self)


@dataclass
class EdgesClock:
    edges: Edges

    def now(self) -> Instant:
        return self.edges.now


def run(
    world: World, edges: Edges, for_seconds: float, hold: float = 0, *, strangers: bool = False
) -> ClusterState:
    loop = Loop(
        clock=edges.clock,
        events=edges,
        log=edges,
        actions=edges,
        policies=BASELINES,
        term=Term(1),
        hold_until=after(world.now, seconds(hold)) if hold else Instant(0),
        expects_strangers=strangers,
        observe=edges.reports.append,
    )
    return asyncio.run(loop.run(world.state, until=after(world.now, seconds(for_seconds))))


def test_an_event_wakes_it_and_decisions_are_logged_before_anyone_acts() -> None:
    world = a_cluster().with_nodes(1, 1)
    edges = Edges(world.now)
    edges.coming.append((after(world.now, seconds(2)), JobSubmitted(a_job().job)))
    state = run(world, edges, 4)
    assert edges.story == ["logged StartAttempt", "acted on 1", "acted on 0"]
    assert next(iter(state.jobs.values())).stage is Stage.STARTING
    assert edges.reports[0].state.last_sequence == 1002


def test_without_events_it_decides_once_a_period() -> None:
    world = a_cluster().with_settings(period_seconds=5)
    edges = Edges(world.now)
    run(world, edges, 20)
    assert edges.story == ["acted on 0"] * 4


def test_it_wakes_when_time_alone_changes_something() -> None:
    world = a_cluster().with_settings(period_seconds=3600).with_nodes(1, 1)
    world.submit(a_job()).settle().fails("job")
    edges = Edges(world.now)
    run(world, edges, 6)
    assert edges.deadlines[0] == after(world.now, seconds(5))
    assert edges.story[0] == "logged StartAttempt"


def test_nothing_is_ordered_until_known_nodes_have_spoken_but_waiting_jobs_are_told() -> None:
    world = a_cluster().with_nodes(2, 1).submit(a_job("runs")).settle()
    world.submit(a_job("new"))
    world.state = world.state.after_restart()
    edges = Edges(world.now)
    state = run(world, edges, 15, hold=20)
    assert edges.story[0] == "logged "
    assert {report.outcome for report in edges.reports} == {None}
    reasons = {uid: record.reason for uid, record in state.jobs.items()}
    assert [r.code for r in reasons.values() if r] == [ReasonCode.RUNNING, ReasonCode.RECOVERING]
    assert all(not action for line in edges.story if (action := line.count("StartAttempt")))


def test_deciding_begins_as_soon_as_the_last_known_node_has_spoken() -> None:
    world = a_cluster().with_nodes(2, 1).submit(a_job())
    world.state = world.state.after_restart()
    edges = Edges(world.now)
    for wait, name in ((1, "n1"), (2, "n2")):
        node = NodeRegistered(a_node(name, 1))
        edges.coming.append((after(world.now, seconds(wait)), node))
    run(world, edges, 3, hold=20)
    assert [line for line in edges.story if line.startswith("logged")] == [
        "logged ",
        "logged StartAttempt",
    ]


def test_a_restored_store_waits_for_nodes_that_it_does_not_know() -> None:
    """One that it knows has spoken; another runs a later attempt of the job than it remembers."""
    world = a_cluster().with_nodes(1, 1).submit(a_job())
    edges = Edges(world.now)
    ghost = RunningUnit(JobUid("job"), Attempt(9), 0, (a_node("new", 1).accelerators[0].id,))
    stranger = NodeRegistered(a_node("new", 1), (ghost,), ((ghost.uid, ghost.attempt),))
    edges.coming.append((after(world.now, seconds(15)), stranger))
    state = run(world, edges, 19, hold=20, strangers=True)
    record = state.jobs[JobUid("job")]
    assert (record.attempt, record.attempts_made) == (None, 9)
    assert record.reason is not None
    assert record.reason.code is ReasonCode.RECOVERING
    assert "nodes that its store does not know" in record.reason.message


def test_after_the_grace_it_decides_without_those_that_stay_silent() -> None:
    world = a_cluster().with_nodes(2, 1).submit(a_job())
    world.state = world.state.after_restart()
    edges = Edges(world.now)
    edges.coming.append((after(world.now, seconds(1)), NodeRegistered(a_node("n1", 1))))
    state = run(world, edges, 21, hold=20)
    attempt = next(iter(state.jobs.values())).attempt
    assert attempt is not None
    assert attempt.placement.nodes == {"n1"}


def test_who_lost_the_term_stops_before_acting() -> None:
    world = a_cluster().with_nodes(1, 1).submit(a_job())
    edges = Edges(world.now, term_lost=True)
    with pytest.raises(TermLostError, match="term 2"):
        run(world, edges, 10)
    assert edges.story == []
