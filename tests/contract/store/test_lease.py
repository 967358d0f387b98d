"""One decider: terms only grow, and whoever lost one can write nothing more."""

import asyncio

import pytest
from sqlalchemy import update

from controlplane.domain.clock import SECOND, Instant
from controlplane.domain.ids import SequenceNumber, Term
from controlplane.edges.store.database import connect, for_writing
from controlplane.edges.store.errors import LeaseHeldError, StoreError
from controlplane.edges.store.lease import LEASE_FRESH
from controlplane.edges.store.pruning import Retention
from controlplane.edges.store.store import Store
from controlplane.edges.store.tables import LEASE
from controlplane.edges.store.tail import EventTail
from controlplane.engine.ports import TermLostError
from tests.contract.store.builders import T0, SetClock, decided, numbers, running, started

LATER = Instant(T0 + LEASE_FRESH)


def test_each_term_is_higher_than_any_before(url: str) -> None:
    store = Store.open(url)
    assert store.acquire_term("one", T0) == 1
    assert store.acquire_term("one", T0) == 2, "the same one, started again, gets in at once"
    assert store.acquire_term("one", T0, at_least=Term(40)) == 40
    assert store.acquire_term("one", T0, at_least=Term(7)) == 41
    store.close()


@pytest.mark.parametrize("term", [2**62 - 1, 2**62, 2**63 - 1])
def test_a_store_at_an_absurd_term_is_refused_and_not_raised_further(url: str, term: int) -> None:
    store = Store.open(url)
    engine = connect(url)
    with for_writing(engine).begin() as connection:
        connection.execute(update(LEASE).values(term=term))
    engine.dispose()
    for _ in range(2):
        with pytest.raises(StoreError, match=f"at term {term}, .* restore the last good backup"):
            store.acquire_term("one", T0)
    store.close()


def test_a_fresh_lease_keeps_others_out(url: str) -> None:
    store = Store.open(url)
    store.acquire_term("one", T0)
    with pytest.raises(LeaseHeldError, match="one decides on this store") as refused:
        store.acquire_term("two", Instant(LATER - 1))
    assert refused.value.holder == "one"
    assert store.acquire_term("two", LATER) == 2
    store.close()


def test_a_lease_from_the_far_future_keeps_nobody_out(url: str) -> None:
    store = Store.open(url)
    store.acquire_term("one", Instant(T0 + 3600 * SECOND))  # its clock was wrong
    assert store.acquire_term("two", T0) == 2
    store.close()


def test_renewing_keeps_the_lease_fresh(url: str) -> None:
    async def scenario() -> None:
        async with running(url, "one") as world:
            await world.writer.renew_lease(LATER)
            with pytest.raises(LeaseHeldError):
                world.store.acquire_term("two", LATER)
            await world.writer.give_up_lease()
            assert world.store.acquire_term("two", LATER) == 2

    asyncio.run(scenario())


def test_a_second_decider_fences_the_first(url: str) -> None:
    async def scenario() -> None:
        async with running(url, "one") as old:
            await old.writer.append(started("a"))
            async with running(url, "two", now=LATER) as new:
                assert new.term > old.term
                with pytest.raises(TermLostError, match=f"term {old.term} is over"):
                    await old.decisions.append(decided(old.term, 1))
                for late in (
                    old.writer.append(started("late")),
                    old.writer.renew_lease(LATER),
                    old.writer.save_checkpoint({}, dict, SequenceNumber(1), T0),
                    old.writer.prune(Retention(), T0, set, ()),
                ):
                    with pytest.raises(TermLostError):
                        await late
                assert await new.writer.append(started("b")) == 2
                assert await new.decisions.append(decided(new.term, 2)) == 3
                assert numbers(new.store.events()) == [1, 2, 3]

    asyncio.run(scenario())


def test_a_group_of_the_old_decider_is_stored_whole_or_not_at_all(url: str) -> None:
    """The term changes hands while the old decider is writing as fast as it can."""

    async def scenario() -> None:
        async with running(url, "one") as old:
            acknowledged: list[int] = []
            well_under_way = asyncio.Event()

            async def write() -> None:
                while True:
                    group = [old.writer.append(started("old", n)) for n in range(7)]
                    acknowledged.extend(await asyncio.gather(*group))
                    if len(acknowledged) > 70:
                        well_under_way.set()

            writing = asyncio.ensure_future(write())
            await well_under_way.wait()
            term = await asyncio.to_thread(old.store.acquire_term, "two", LATER)
            store = Store.open(url)
            _, before = await asyncio.to_thread(store.load, dict)
            tail = EventTail(SetClock())
            writer = store.start_writer(term, tail)
            first = await writer.append(started("new"))
            with pytest.raises(TermLostError):
                await asyncio.wait_for(writing, 60)
            await writer.close()
            stored = store.events(limit=100_000)
            store.close()
            assert numbers(stored) == [*numbers(before), first]
            assert set(acknowledged) <= set(numbers(before))

    asyncio.run(scenario())


def test_a_decision_of_another_term_is_refused(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as world:
            with pytest.raises(TermLostError, match="decided in term 7"):
                await world.decisions.append(decided(7, 0))
            assert world.store.events() == []

    asyncio.run(scenario())
