"""Searching beside the loop: when, what goes through the door, and what goes wrong without harm."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from controlplane.domain.clock import FOREVER, SECOND, Instant, seconds
from controlplane.domain.event import ProposalFound
from controlplane.domain.ids import JobUid, SequenceNumber
from controlplane.domain.policy import Decision, Optimality, Policy
from controlplane.domain.proposal import (
    PROPOSAL_KEPT_SECONDS,
    Proposal,
    ProposalUse,
    ProposedTarget,
    Verdict,
)
from controlplane.domain.refusal import Refusal
from controlplane.domain.snapshot import ClusterSnapshot
from controlplane.edges.grpc_server.door import Door
from controlplane.edges.grpc_server.feed import StateFeed
from controlplane.edges.searching import Searcher
from controlplane.edges.telemetry import Telemetry
from controlplane.edges.wall_clock import WallClock
from controlplane.engine.cycle import Outcome
from controlplane.engine.loop import CycleReport
from tests.builders import a_cluster, a_job
from tests.unit.edges.test_learning import FoldedLog

KEPT = seconds(PROPOSAL_KEPT_SECONDS)
FAR, NEAR = Optimality(1.0, 2.0, {}), Optimality(2.0, 2.0, {})
STATE = a_cluster("searches").state
LEAVES = ProposedTarget(JobUid("a"))


class Searches:
    """A policy that finds something each time, unless it is told otherwise."""

    def __init__(self, fails: bool = False, finds: bool = True) -> None:
        self.searched: list[SequenceNumber] = []
        self.fails = fails
        self.finds = finds
        self.stopped: Callable[[], bool] | None = None

    def __call__(self, snapshot: ClusterSnapshot) -> Decision:
        return Decision({}, {}, FAR)

    def wants_search(self, knobs: Mapping[str, float], optimality: Optimality) -> bool:
        return optimality.gap > 0.1

    def search(
        self, snapshot: ClusterSnapshot, made_of: SequenceNumber, stopped: Callable[[], bool]
    ) -> Proposal | None:
        self.searched.append(made_of)
        self.stopped = stopped
        if self.fails:
            raise ArithmeticError("no answer")
        return Proposal(made_of, snapshot.at, 2.0, 1.0, 2.0, 3, ()) if self.finds else None


class Bench:
    """A searcher, its clock, and how long it rested."""

    def __init__(self, policy: Policy, took_seconds: float = 0.0) -> None:
        self.feed = StateFeed(STATE, lambda: 0)
        self.log = FoldedLog(self.feed)
        door = Door(WallClock(), self.feed)
        door.open(self.log)
        self.rested: list[float] = []
        self.rests = asyncio.Event()
        self._ns = 0
        self._took_ns = round(took_seconds * SECOND)
        self.searcher = Searcher(self.feed, door, {"searches": policy}, self._tick, self._rest)

    def _tick(self) -> int:
        self._ns += self._took_ns
        return self._ns

    async def _rest(self, seconds: float) -> None:
        self.rested.append(seconds)
        self.rests.set()

    def decided(self, optimality: Optimality | None, refused: tuple[str, ...] = ()) -> None:
        outcome = Outcome(a_cluster().cycle().decided, refused, optimality=optimality)
        self.searcher.look(CycleReport(self.feed.state, (), outcome))

    async def until_it_rests(self) -> None:
        """Runs the searcher until it has searched once more, and ends it."""
        self.rests = asyncio.Event()
        task = asyncio.create_task(self.searcher.run())
        await self.rests.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_what_is_found_is_an_event_like_any() -> None:
    policy = Searches()
    bench = Bench(policy)

    async def once() -> None:
        bench.decided(FAR)
        await bench.until_it_rests()

    asyncio.run(once())
    (event,) = bench.log.stored
    assert isinstance(event, ProposalFound)
    assert event.proposal.made_of == STATE.last_sequence
    assert bench.feed.state.proposal == event.proposal


def test_it_rests_nine_times_as_long_as_it_searched() -> None:
    # Each look at the clock is 2 s later: two within a search, one before it and one after.
    bench = Bench(Searches(), took_seconds=2.0)

    async def once() -> None:
        bench.decided(FAR)
        await bench.until_it_rests()

    asyncio.run(once())
    assert bench.rested == [9 * 3 * 2.0]


@pytest.mark.parametrize("optimality", [None, NEAR])
def test_it_searches_only_where_that_can_gain_something(optimality: Optimality | None) -> None:
    policy = Searches()
    bench = Bench(policy)

    async def both() -> None:
        bench.decided(optimality)
        bench.decided(FAR, refused=("the whole decision",))
        task = asyncio.create_task(bench.searcher.run())
        for _ in range(20):
            await asyncio.sleep(0)
        assert policy.searched == []
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        bench.decided(FAR)
        await bench.until_it_rests()

    asyncio.run(both())
    assert len(policy.searched) == 1


def test_a_policy_that_searches_nothing_is_left_alone() -> None:
    def plain(snapshot: ClusterSnapshot) -> Decision:
        return Decision({}, {}, FAR)

    bench = Bench(plain)

    async def nothing() -> None:
        bench.decided(FAR)
        await bench.searcher.search_once(lambda: False)

    asyncio.run(nothing())
    assert bench.log.stored == []


def test_what_goes_wrong_is_told_and_the_next_is_searched(
    capsys: pytest.CaptureFixture[str],
) -> None:
    policy = Searches(fails=True)
    bench = Bench(policy)

    async def twice() -> None:
        bench.decided(FAR)
        await bench.until_it_rests()
        policy.fails = False
        bench.decided(FAR)
        await bench.until_it_rests()

    asyncio.run(twice())
    assert "no answer" in capsys.readouterr().out
    assert len(bench.log.stored) == 1


def test_nothing_found_is_no_event() -> None:
    bench = Bench(Searches(finds=False))
    asyncio.run(bench.searcher.search_once(lambda: False))
    assert bench.log.stored == []


def test_the_same_found_again_is_no_event_until_the_first_is_half_forgotten() -> None:
    class Repeats(Searches):
        found = Proposal(SequenceNumber(1), Instant(seconds(1)), 2.0, 1.0, 2.0, 3, (LEAVES,))

        def search(
            self, snapshot: ClusterSnapshot, made_of: SequenceNumber, stopped: Callable[[], bool]
        ) -> Proposal | None:
            return self.found

    policy = Repeats()
    bench = Bench(policy)
    begin = WallClock().now()

    def found(age: float, target: ProposedTarget) -> int:
        at = Instant(begin + seconds(age))
        policy.found = replace(policy.found, made_at=at, targets=(target,))
        asyncio.run(bench.searcher.search_once(lambda: False))
        return len(bench.log.stored)

    assert found(0.0, LEAVES) == 1
    assert found(PROPOSAL_KEPT_SECONDS / 2 - 1, LEAVES) == 1
    assert found(PROPOSAL_KEPT_SECONDS / 2 - 1, replace(LEAVES, uid=JobUid("other"))) == 2
    assert found(PROPOSAL_KEPT_SECONDS, replace(LEAVES, uid=JobUid("other"))) == 3


def test_what_was_found_too_late_is_no_event(capsys: pytest.CaptureFixture[str]) -> None:
    class Slow(Searches):
        def search(
            self, snapshot: ClusterSnapshot, made_of: SequenceNumber, stopped: Callable[[], bool]
        ) -> Proposal | None:
            found = super().search(snapshot, made_of, stopped)
            assert found is not None
            return replace(found, made_at=Instant(found.made_at - 2 * KEPT))

    bench = Bench(Slow())
    asyncio.run(bench.searcher.search_once(lambda: False))
    assert bench.log.stored == []
    assert "took too long" in capsys.readouterr().out


def test_who_searches_when_it_ends_is_told_to_stop() -> None:
    policy = Searches()
    bench = Bench(policy)

    async def once() -> None:
        bench.decided(FAR)
        await bench.until_it_rests()

    asyncio.run(once())
    assert policy.stopped is not None
    assert policy.stopped()


def test_each_verdict_on_a_proposal_is_counted_once_and_the_gain_is_shown() -> None:
    telemetry = Telemetry("0", lambda: 0)

    def told(made_of: int, verdict: Verdict, gained: float = 0.0) -> None:
        use = ProposalUse(SequenceNumber(made_of), verdict, "as played", gained)
        outcome = Outcome(a_cluster().cycle().decided, optimality=FAR, proposal=use)
        telemetry.cycle_ended(CycleReport(STATE, (), outcome))

    def count(verdict: Verdict) -> float | None:
        name = "headrace_search_proposals_total"
        return telemetry.registry.get_sample_value(name, {"verdict": verdict.value})

    told(5, Verdict.WORTH_NO_MORE)
    told(5, Verdict.WORTH_NO_MORE)
    told(5, Verdict.TAKEN, 0.03)
    told(5, Verdict.NOTHING_LEFT)
    told(8, Verdict.TAKEN, 0.02)
    assert (count(Verdict.TAKEN), count(Verdict.WORTH_NO_MORE)) == (2.0, 1.0)
    assert count(Verdict.NOT_NOW) is None
    assert telemetry.registry.get_sample_value("headrace_search_gain_ratio") == 0.02


def test_nothing_is_searched_for_a_job_that_is_set_aside() -> None:
    class Notes(Searches):
        """Remembers about which jobs it was asked."""

        asked: tuple[str, ...] = ()

        def search(
            self, snapshot: ClusterSnapshot, made_of: SequenceNumber, stopped: Callable[[], bool]
        ) -> Proposal | None:
            self.asked = tuple(snapshot.jobs)
            return super().search(snapshot, made_of, stopped)

    policy = Notes()
    bench = Bench(policy)
    jobs = a_cluster().submit(a_job("odd"), a_job("good")).state.jobs
    odd = replace(jobs[JobUid("odd")], refusal=Refusal("wrong", Instant(0), FOREVER))
    bench.feed.publish(replace(STATE, jobs={**jobs, JobUid("odd"): odd}))

    async def once() -> None:
        bench.decided(FAR)
        await bench.until_it_rests()

    asyncio.run(once())
    assert policy.asked == ("good",)
