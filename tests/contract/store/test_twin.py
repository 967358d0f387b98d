"""What the loop relies on holds for the store and for its twin in memory alike."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import pytest

from controlplane.domain.event import Event
from controlplane.domain.ids import SequenceNumber, Term
from controlplane.engine.ports import DecisionLog, EventSource, TermLostError
from controlplane.engine.state import ClusterState, SequencedEvent
from simulator.memory_store import MemoryStore
from tests.contract.store.builders import (
    T0,
    NewUrl,
    Running,
    decided,
    numbers,
    progressed,
    running,
    started,
)


class Twin(Protocol):
    """What both can do."""

    events: EventSource
    log: DecisionLog
    term: Term

    async def append(self, event: Event) -> SequenceNumber: ...
    async def save(self, state: ClusterState, sequence: SequenceNumber) -> None: ...
    def load(self) -> tuple[ClusterState | None, list[SequencedEvent]]: ...
    def lose_the_term(self) -> None: ...


class Stored:
    """The real one."""

    def __init__(self, world: Running) -> None:
        self.events: EventSource = world.tail
        self.log: DecisionLog = world.decisions
        self.term = world.term
        self._world = world

    async def append(self, event: Event) -> SequenceNumber:
        return await self._world.writer.append(event)

    async def save(self, state: ClusterState, sequence: SequenceNumber) -> None:
        await self._world.writer.save_checkpoint(state, ClusterState, sequence, T0)

    def load(self) -> tuple[ClusterState | None, list[SequencedEvent]]:
        return self._world.store.load(ClusterState)

    def lose_the_term(self) -> None:
        self._world.store.acquire_term("one", T0)


class Remembered:
    """The twin in memory."""

    def __init__(self) -> None:
        self._store = MemoryStore()
        self.term = self._store.acquire_term()
        self.events: EventSource = self._store
        self.log: DecisionLog = self._store.decisions()

    async def append(self, event: Event) -> SequenceNumber:
        return self._store.append(event, self.term)

    async def save(self, state: ClusterState, sequence: SequenceNumber) -> None:
        self._store.save_checkpoint(state, sequence)

    def load(self) -> tuple[ClusterState | None, list[SequencedEvent]]:
        return self._store.load()

    def lose_the_term(self) -> None:
        self._store.acquire_term()


Opened = Callable[[], AbstractAsyncContextManager[Twin]]


@asynccontextmanager
async def _stored(url: str) -> AsyncIterator[Twin]:
    async with running(url) as world:
        yield Stored(world)


@asynccontextmanager
async def _remembered() -> AsyncIterator[Twin]:
    yield Remembered()


@pytest.fixture
def in_store(new_url: NewUrl) -> Opened:
    return lambda: _stored(new_url())


@pytest.fixture
def in_memory() -> Opened:
    return _remembered


async def _scenario_of_order(twin: Twin) -> tuple[list[int], ...]:
    first: list[int] = [await twin.append(started("a", n)) for n in range(3)]
    taken = numbers(list(await twin.events.take(T0)))
    late = await twin.append(started("late"))
    decision = await twin.log.append(decided(twin.term, 3))
    rest = numbers(list(await twin.events.take(T0)))
    nothing = numbers(list(await twin.events.take(T0)))
    replayed = numbers(twin.load()[1])
    return first, taken, [late, decision], rest, nothing, replayed


async def _scenario_of_a_checkpoint(twin: Twin) -> tuple[list[int], list[int], bool]:
    await twin.append(started("a"))
    await twin.append(started("b"))
    await twin.log.append(decided(twin.term, 1))
    before = numbers(twin.load()[1])
    state = ClusterState.empty()
    await twin.save(state, SequenceNumber(3))
    await twin.log.append(decided(twin.term, 3))
    loaded, later = twin.load()
    return before, numbers(later), loaded == state


async def _scenario_of_losses(twin: Twin) -> list[Event]:
    await twin.append(progressed("a", (1, 1.0)))
    return [item.event for item in await twin.events.take(T0)]


async def _scenario_of_a_lost_term(twin: Twin) -> int:
    await twin.append(started())
    twin.lose_the_term()
    with pytest.raises(TermLostError):
        await twin.log.append(decided(twin.term, 1))
    with pytest.raises(TermLostError):
        await twin.append(started())
    return len(twin.load()[1])


@pytest.mark.parametrize(
    ("scenario", "expected"),
    [
        (_scenario_of_order, ([1, 2, 3], [1, 2, 3], [4, 5], [4], [], [1, 2, 3, 5, 4])),
        (_scenario_of_a_checkpoint, ([1, 3, 2], [2, 4], True)),
        (_scenario_of_a_lost_term, 1),
    ],
)
def test_both_do_the_same(
    in_store: Opened, in_memory: Opened, scenario: Callable[[Twin], object], expected: object
) -> None:
    async def play(opened: Opened) -> object:
        async with opened() as twin:
            return await scenario(twin)  # type: ignore[misc]

    assert asyncio.run(play(in_store)) == expected
    assert asyncio.run(play(in_memory)) == expected


def test_both_strip_losses_from_events(in_store: Opened, in_memory: Opened) -> None:
    async def play(opened: Opened) -> list[Event]:
        async with opened() as twin:
            return await _scenario_of_losses(twin)

    stored = asyncio.run(play(in_store))
    assert [getattr(event, "losses", None) for event in stored] == [()]
    assert asyncio.run(play(in_memory)) == stored
