"""The state comes back as it was folded; what is not needed any more goes."""

import asyncio
from collections.abc import Sequence

import pytest

from controlplane.domain.clock import SECOND, Instant, seconds
from controlplane.domain.event import Event, JobSubmitted, ProposalFound
from controlplane.domain.ids import JobUid, QueueName, SequenceNumber
from controlplane.domain.job import AcceleratorRequest, Job, JobSpec
from controlplane.domain.proposal import PROPOSAL_KEPT_SECONDS, Proposal
from controlplane.edges.store import pruning
from controlplane.edges.store.pruning import Retention
from controlplane.edges.store.store import Store
from controlplane.engine.state import ClusterState, SequencedEvent
from tests.contract.store.builders import (
    T0,
    Running,
    decided,
    numbers,
    progressed,
    running,
    started,
    stop,
    why,
)

Names = tuple[str, ...]


def names(events: Sequence[SequencedEvent]) -> list[str]:
    return [getattr(item.event, "uid", item.event.kind) for item in events]


def test_an_empty_store_has_no_state(url: str) -> None:
    store = Store.open(url)
    assert store.load(ClusterState) == (None, [])
    assert store.last_instant() == 0
    store.close()


def test_decisions_come_right_after_what_they_had_seen(url: str) -> None:
    async def scenario() -> list[SequencedEvent]:
        async with running(url) as world:
            await world.writer.append(started("one"))  # 1
            await world.writer.append(started("two"))  # 2
            await world.decisions.append(decided(world.term, 1))  # 3: had not seen 2
            await world.writer.append(started("three"))  # 4
            await world.decisions.append(decided(world.term, 3))  # 5: had seen 2, not 4
            await world.decisions.append(decided(world.term, 5))  # 6: had seen all
            return world.store.load(ClusterState)[1]

    assert numbers(asyncio.run(scenario())) == [1, 3, 2, 5, 4, 6]


def test_a_checkpoint_holds_what_was_folded_and_nothing_else(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as world:
            folded: list[str] = []
            for name in ("one", "two"):
                await world.writer.append(started(name))
            folded += names(await world.tail.take(T0))
            await world.writer.append(started("three"))  # comes in while the loop decides
            folded.append(f"decision {await world.decisions.append(decided(world.term, 2))}")
            await world.writer.append(started("four"))
            await world.writer.save_checkpoint(tuple(folded), Names, SequenceNumber(4), T0)
            state, later = world.store.load(Names)
            assert state == ("one", "two", "decision 4")
            assert names(later) == ["three", "four"]
            await world.decisions.append(decided(world.term, 5))
            assert numbers(world.store.load(Names)[1]) == [3, 5, 6]

    asyncio.run(scenario())


def test_a_checkpoint_without_a_decision_holds_all_up_to_its_number(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as world:
            await world.append_units(3)
            for _ in range(2):  # saved twice is harmless
                await world.writer.save_checkpoint(("x",), Names, SequenceNumber(2), T0)
            assert world.store.load(Names)[0] == ("x",)
            assert numbers(world.store.load(Names)[1]) == [3]

    asyncio.run(scenario())


def test_the_clusters_state_survives_a_restart(url: str) -> None:
    def job(n: int) -> Event:
        spec = JobSpec(QueueName("default"), AcceleratorRequest(1, 4))
        return JobSubmitted(Job(JobUid(f"job-{n}"), "default", f"j{n}", 1, spec), T0)

    async def first_life() -> ClusterState:
        async with running(url) as world:
            state = ClusterState.empty()
            for n in range(10):
                await world.writer.append(job(n))
                state = state.fold(await world.tail.take(T0))
                decision = decided(world.term, state.last_sequence, **{f"job-{n}": why("waits")})
                sequence = await world.decisions.append(decision)
                state = state.fold([SequencedEvent(sequence, decision)])
                if n == 5:
                    await world.writer.save_checkpoint(state, ClusterState, state.last_sequence, T0)
            return state

    before = asyncio.run(first_life())
    store = Store.open(url)
    checkpoint, later = store.load(ClusterState)
    store.close()
    assert checkpoint is not None
    assert len(checkpoint.jobs) == 6
    assert checkpoint.fold(later) == before


def test_the_store_remembers_the_latest_time(url: str) -> None:
    async def scenario() -> list[Instant]:
        async with running(url) as world:
            times = [world.store.last_instant()]
            for second in (5, 9):
                at = Instant(T0 + second * SECOND)
                await world.writer.append(started(at=at))
                times.append(world.store.last_instant())
            await world.writer.renew_lease(Instant(T0 + 12 * SECOND))
            return [*times, world.store.last_instant()]

    assert [(at - T0) / SECOND for at in asyncio.run(scenario())] == [0, 5, 9, 12]


@pytest.fixture
def few_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr(pruning, "_JOBS_AT_ONCE", 1)


@pytest.mark.usefixtures("few_rows_at_once")
def test_pruning_keeps_the_stated_bound(url: str) -> None:
    kept = Retention(checkpoints=2, events=5, decisions=3)

    async def scenario() -> None:
        async with running(url) as world:
            for sequence in (20, 40, 60):
                await world.append_units(20)
                await world.writer.save_checkpoint((), Names, SequenceNumber(sequence), T0)
            await world.append_units(4)
            for n in range(6):
                await world.decisions.append(decided(world.term, 64 + n, stop("a"), b=why("x")))
            assert await world.writer.prune(kept, T0, set, ()) > 0

            # The oldest checkpoint kept is at 40; what came later is needed for it.
            assert numbers(world.store.events(limit=1000)) == list(range(41, 71))
            assert numbers(world.store.load(Names)[1]) == list(range(61, 71))
            # Three rows, rounded up to whole decisions of two.
            assert [row.sequence for row in world.store.decisions(JobUid("a"))] == [69, 70]
            assert await world.writer.prune(kept, T0, set, ()) == 0
            assert await world.writer.append(started()) == 71

    asyncio.run(scenario())


@pytest.mark.usefixtures("few_rows_at_once")
def test_pruning_keeps_history_that_is_young_enough(url: str) -> None:
    day = 24 * 3600 * SECOND
    kept = Retention(checkpoints=1, events=30, age=day)  # type: ignore[arg-type]

    async def scenario() -> None:
        async with running(url) as world:
            for n in range(50):
                old = n < 35
                await world.writer.append(started("a", n, at=T0 if old else T0 + day))
            await world.writer.save_checkpoint((), Names, SequenceNumber(50), T0)
            await world.writer.prune(kept, Instant(T0 + day), set, ())
            assert numbers(world.store.events(limit=1000)) == list(range(21, 51))
            await world.writer.prune(kept, Instant(T0 + day + 1), set, ())
            assert numbers(world.store.events(limit=1000)) == list(range(36, 51))
            # However old, the last one stays: numbers go on from it.
            await world.writer.prune(kept, Instant(T0 + 9 * day), set, ())
            assert numbers(world.store.events(limit=1000)) == [50]

        async with running(url) as world:
            assert await world.writer.append(started()) == 51

    asyncio.run(scenario())


@pytest.mark.usefixtures("few_rows_at_once")
def test_proposals_go_when_nobody_remembers_them_and_nothing_is_folded_from_them(url: str) -> None:
    now = Instant(T0 + seconds(10_000))
    kept = Retention(checkpoints=1)

    def proposal(age: float) -> Event:
        at = Instant(now - seconds(age))
        return ProposalFound(Proposal(SequenceNumber(1), at, 2.0, 1.0, 2.0, 1, ()), at)

    async def scenario() -> None:
        async with running(url) as world:
            for _ in range(4):
                await world.append_units(4)
                await world.writer.append(proposal(PROPOSAL_KEPT_SECONDS + 1))  # 5, 10, 15, 20
            await world.writer.append(proposal(PROPOSAL_KEPT_SECONDS))  # 21
            await world.writer.append(proposal(PROPOSAL_KEPT_SECONDS))  # 22
            await world.writer.save_checkpoint((), Names, SequenceNumber(19), now)
            assert await world.writer.prune(kept, now, set, ()) == 3
            left = set(range(1, 23)) - {5, 10, 15}
            assert set(numbers(world.store.events(limit=1000))) == left
            await world.writer.save_checkpoint((), Names, SequenceNumber(22), now)
            await world.writer.prune(kept, now, set, ())
            assert numbers(world.store.events(limit=1000))[-3:] == [19, 21, 22]
            await world.writer.prune(kept, Instant(now + 1), set, ())
            # However old, the last one stays: numbers go on from it.
            assert numbers(world.store.events(limit=1000))[-2:] == [19, 22]

    asyncio.run(scenario())


def test_nothing_is_pruned_that_no_checkpoint_holds(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as world:
            await world.append_units(10)
            await world.writer.prune(Retention(events=1), Instant(T0 * 2), set, ())
            assert len(world.store.events()) == 10

    asyncio.run(scenario())


@pytest.mark.usefixtures("few_rows_at_once")
def test_a_long_curve_is_thinned_evenly_and_whole_where_attempts_meet(url: str) -> None:
    kept = Retention(losses=25)
    attempts = [range(50), range(41, 130), range(130, 200)]  # The second did nine again.
    meet = {40, 41, 129, 130}
    job = (JobUid("a"), JobUid("short"))

    def steps(world: Running) -> list[int]:
        return [loss.step for loss in world.store.losses(JobUid("a"))]

    async def scenario() -> None:
        async with running(url) as world:
            short = [(n, 1.0) for n in range(25)]
            await world.writer.append(progressed("short", *short))
            for number, done in enumerate(attempts, 1):
                losses = [(n, float(n)) for n in done]
                await world.writer.append(progressed("a", *losses, attempt=number))
            assert await world.writer.prune(kept, T0, lambda: job, job) > 0
            once = steps(world)
            assert once == sorted({*range(0, 200, 8), 199} | meet)
            assert [loss.loss for loss in world.store.losses(JobUid("a"))] == once
            assert len(world.store.losses(JobUid("short"))) == 25
            assert await world.writer.prune(kept, T0, lambda: job, job) == 0

            # However often it grows: a curve that was thinned before, and what came since.
            for begin in range(200, 1600, 100):
                losses = [(n, float(n)) for n in range(begin, begin + 100)]
                await world.writer.append(progressed("a", *losses, attempt=3))
                await world.writer.prune(kept, T0, lambda: job, job)
                assert len(steps(world)) <= 25 + 2 * len(attempts)
            assert steps(world) == sorted({*range(0, 1600, 64), 1599} | meet)

    asyncio.run(scenario())


@pytest.mark.usefixtures("few_rows_at_once")
def test_losses_of_forgotten_jobs_go(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as world:
            for uid in ("a", "b", "c", "d"):
                await world.writer.append(progressed(uid, *((n, 1.0) for n in range(20))))
            live = {JobUid("b"), JobUid("d")}
            assert await world.writer.prune(Retention(), T0, lambda: live, ()) == 40
            left = {uid: len(world.store.losses(JobUid(uid))) for uid in ("a", "b", "c", "d")}
            assert left == {"a": 0, "b": 20, "c": 0, "d": 20}

    asyncio.run(scenario())


def test_a_job_that_comes_while_pruning_goes_on_keeps_its_losses(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "ROWS_AT_ONCE", 10)
    live: set[JobUid] = set()

    async def scenario() -> None:
        async with running(url) as world:
            for name in "abcdef":
                await world.writer.append(progressed(name, *((n, 1.0) for n in range(40))))
            removed = asyncio.create_task(world.writer.prune(Retention(), T0, lambda: live, ()))
            await world.writer.append(progressed("a", (40, 1.0)))  # pruning has begun by then
            live.add(JobUid("new"))
            await world.writer.append(progressed("new", *((n, 1.0) for n in range(5))))
            assert not removed.done()
            await removed
            assert len(world.store.losses(JobUid("new"))) == 5
            assert world.store.losses(JobUid("f")) == []

    asyncio.run(scenario())
