"""What is appended: numbered, in order, read back, and handed to the loop."""

import asyncio
import math

import pytest

from controlplane.domain.clock import FOREVER
from controlplane.domain.event import Event, JobSubmitted
from controlplane.domain.ids import JobUid, QueueName, SequenceNumber
from controlplane.domain.job import AcceleratorRequest, Job, JobSpec
from controlplane.edges.store.errors import StoreClosedError
from controlplane.edges.store.rows import without_losses
from controlplane.edges.store.store import Store
from tests.contract.store.builders import (
    LONG,
    T0,
    decided,
    numbers,
    progressed,
    running,
    started,
    stop,
    why,
    withdrawn,
)


def test_events_get_numbers_in_order_and_are_read_back(url: str) -> None:
    job = Job(
        JobUid("ä-1"), "default", "bert \x00", 1, JobSpec(QueueName("q"), AcceleratorRequest(1, 2))
    )
    events: list[Event] = [JobSubmitted(job, T0), started("ä-1"), progressed("ä-1"), withdrawn("b")]

    async def scenario() -> list[int]:
        async with running(url) as world:
            appended = [world.writer.append(event) for event in events]
            assert await asyncio.gather(*appended) == [1, 2, 3, 4]
            return [await world.writer.append(started("c"))]

    assert asyncio.run(scenario()) == [5]
    store = Store.open(url)
    assert [item.event for item in store.events()] == [*events, started("c")]
    assert numbers(store.events()) == [1, 2, 3, 4, 5]
    store.close()


def test_numbers_go_on_after_a_restart(url: str) -> None:
    async def life() -> list[int]:
        async with running(url) as world:
            return [await world.writer.append(started()) for _ in range(3)]

    assert [asyncio.run(life()) for _ in range(3)] == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


def test_many_appenders_get_each_number_once(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as world:

            async def appender(name: int) -> list[int]:
                return [await world.writer.append(started(f"job-{name}", n)) for n in range(20)]

            given = await asyncio.gather(*(appender(name) for name in range(50)))
            assert sorted(n for mine in given for n in mine) == list(range(1, 1001))
            assert all(mine == sorted(mine) for mine in given)

            taken = await world.tail.take(LONG)
            assert numbers(list(taken)) == list(range(1, 1001))
            assert world.store.events(limit=2000) == list(taken)

    asyncio.run(scenario())


def test_losses_are_rows_and_leave_the_event(url: str) -> None:
    event = progressed("a", (1, 2.5), (2, math.nan), (3, math.inf))

    async def scenario() -> None:
        async with running(url) as world:
            await world.writer.append(event)
            await world.writer.append(progressed("other", (1, 9.0)))
            stored = world.store.losses(JobUid("a"))
            assert [(row.step, row.attempt, row.at) for row in stored] == [
                (1, 1, T0),
                (2, 1, T0),
                (3, 1, T0),
            ]
            assert stored[0].loss == 2.5
            assert math.isnan(stored[1].loss)
            assert stored[2].loss == math.inf
            assert [row.step for row in world.store.losses(JobUid("a"), after_step=1)] == [2, 3]
            assert [row.step for row in world.store.losses(JobUid("a"), limit=1)] == [1]
            # Live and replayed, the loop folds the very same.
            live = await world.tail.take(LONG)
            assert live[0].event == without_losses(event)
            assert world.store.events(JobUid("a")) == [live[0]]

    asyncio.run(scenario())


def test_a_step_done_again_overwrites_unless_an_older_attempt_reports_late(url: str) -> None:
    async def scenario() -> dict[int, float]:
        async with running(url) as world:
            await world.writer.append(progressed("a", (1, 1.0), (2, 2.0), (2, 2.5)))
            await world.writer.append(progressed("a", (2, 20.0), (3, 30.0), attempt=2))
            late = [progressed("a", (3, 3.0)), progressed("a", (3, 31.0), attempt=2)]
            await asyncio.gather(*(world.writer.append(event) for event in late))
            await world.writer.append(progressed("a", (2, 2.0), (4, 4.0)))
            return {row.step: row.loss for row in world.store.losses(JobUid("a"))}

    assert asyncio.run(scenario()) == {1: 1.0, 2: 20.0, 3: 31.0, 4: 4.0}


def test_events_of_one_job_come_in_pages(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as world:
            for n in range(6):
                await world.writer.append(started("even" if n % 2 else "odd", n))
            first = world.store.events(JobUid("odd"), limit=2)
            assert numbers(first) == [1, 3]
            assert numbers(world.store.events(JobUid("odd"), first[-1].sequence)) == [5]
            assert numbers(world.store.events(after=SequenceNumber(4))) == [5, 6]
            assert world.store.events(JobUid("nobody")) == []

    asyncio.run(scenario())


def test_decisions_are_listed_by_job(url: str) -> None:
    reason = why("behind b \x00")

    async def scenario() -> None:
        async with running(url) as world:
            first = decided(world.term, 0, stop("a", "make room"), a=why("make room"), b=reason)
            second = decided(world.term, 0, a=why("waits"))
            await world.decisions.append(first)
            await world.decisions.append(second)
            of_a = world.store.decisions(JobUid("a"))
            assert [(row.sequence, row.action, row.reason) for row in of_a] == [
                (1, stop("a", "make room"), why("make room")),
                (2, None, why("waits")),
            ]
            assert [row.term for row in of_a] == [world.term, world.term]
            assert [row.reason for row in world.store.decisions(JobUid("b"))] == [reason]
            assert [row.sequence for row in world.store.decisions(JobUid("a"), limit=1)] == [2]
            assert [item.event for item in world.store.events()] == [first, second]

    asyncio.run(scenario())


def test_decisions_are_paged_and_none_is_told_in_part(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as world:
            for n in range(5):
                decision = decided(world.term, n, stop("a"), stop("b"), a=why(str(n)))
                await world.decisions.append(decision)

            def page(after: int, limit: int) -> list[int]:
                found = world.store.decisions_after(JobUid("a"), SequenceNumber(after), limit)
                return [row.sequence for row in found]

            assert page(0, 3) == [1, 1, 2, 2]
            assert page(2, 4) == [3, 3, 4, 4, 5, 5]
            assert page(2, 6) == [3, 3, 4, 4, 5, 5]
            assert page(5, 1) == []

    asyncio.run(scenario())


def test_a_decision_is_not_handed_to_the_loop_that_made_it(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as world:
            early = world.writer.append(started("a"))
            sequence = await world.decisions.append(decided(world.term, 0))
            late = world.writer.append(started("b"))
            assert sequence == 2
            # Whoever knows a decision's number finds all before it in the tail.
            assert numbers(list(await world.tail.take(LONG))) == [1]
            await late
            assert numbers(list(await world.tail.take(LONG))) == [3]
            assert await early == 1

    asyncio.run(scenario())


def test_the_loop_wakes_at_the_first_event(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as world:
            asleep = asyncio.ensure_future(world.tail.take(FOREVER))
            done, _ = await asyncio.wait([asleep], timeout=0.05)
            assert not done
            await world.writer.append(started())
            assert numbers(list(await asyncio.wait_for(asleep, 60))) == [1]
            # Nothing new, and the deadline is now.
            assert list(await world.tail.take(world.clock.now())) == []

    asyncio.run(scenario())


def test_an_abandoned_append_does_no_harm(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as world:
            world.writer.append(started("a")).cancel()
            assert await world.writer.append(started("b")) == 2
            assert numbers(list(await world.tail.take(LONG))) == [1, 2]

    asyncio.run(scenario())


def test_one_bad_event_fails_alone(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as world:
            good, bad, fine = (
                world.writer.append(event)
                for event in (started("a"), started("b", at=2**70), started("c"))
            )
            assert await good == 1
            assert await fine == 2
            with pytest.raises(Exception, match=r"int|range|large"):
                await bad
            assert numbers(world.store.events()) == [1, 2]
            assert numbers(list(await world.tail.take(LONG))) == [1, 2]

    asyncio.run(scenario())


def test_what_is_no_text_fails_where_it_is_appended(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as world:
            with pytest.raises(ValueError, match="surrogate"):
                await world.writer.append(started("\ud800"))
            assert await world.writer.append(started("b")) == 1

    asyncio.run(scenario())


def test_closing_commits_what_waits_and_refuses_more(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as world:
            waiting = [world.writer.append(started("a", n)) for n in range(1200)]
            await world.writer.close()
            assert await asyncio.gather(*waiting) == list(range(1, 1201))
            with pytest.raises(StoreClosedError, match="ending"):
                await world.writer.append(started())

    asyncio.run(scenario())
