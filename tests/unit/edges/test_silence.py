"""Silence is counted while this process was awake, and never by a clock that can be set."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from controlplane.domain.clock import SECOND, Instant
from controlplane.domain.event import Event, NodeLost, NodeRegistered
from controlplane.domain.ids import NodeId, SequenceNumber
from controlplane.domain.node import Node
from controlplane.edges.grpc_server.contacts import Contacts
from controlplane.edges.grpc_server.door import Door
from controlplane.edges.grpc_server.feed import StateFeed
from controlplane.edges.grpc_server.ports import Told
from controlplane.edges.wall_clock import WallClock
from controlplane.engine.state import ClusterState, SequencedEvent

A, B = NodeId("node-a"), NodeId("node-b")


class SlowLog:
    """An event log that makes nothing durable until a test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[Event, asyncio.Future[SequenceNumber]]] = []

    def append(self, event: Event, told: Told | None = None) -> "asyncio.Future[SequenceNumber]":
        durable = asyncio.get_running_loop().create_future()
        self.asked.append((event, durable))
        return durable


class Stopwatch:
    """A monotonic clock that tests turn."""

    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        return self.ns


@pytest.fixture
def watch() -> Stopwatch:
    return Stopwatch()


@pytest.fixture
def contacts(watch: Stopwatch) -> Contacts:
    registered = [
        SequencedEvent(SequenceNumber(n), NodeRegistered(Node(name, ())))
        for n, name in enumerate((A, B), 1)
    ]
    feed = StateFeed(ClusterState.empty().fold(registered), lambda: 0)
    return Contacts(feed, Door(WallClock(), feed), watch)


def ticks(contacts: Contacts, watch: Stopwatch, seconds: int) -> Iterator[list[NodeId]]:
    for _ in range(seconds):
        watch.ns += SECOND
        yield contacts.tick(SECOND)


def test_a_node_is_overdue_after_its_grace_and_a_heard_one_is_not(
    contacts: Contacts, watch: Stopwatch
) -> None:
    contacts.registered(A)
    contacts.registered(B)
    for overdue in ticks(contacts, watch, 15):
        contacts.heard(B)
        assert overdue == []
    assert list(ticks(contacts, watch, 1)) == [[A]]


def test_a_pause_of_the_control_plane_makes_nobody_silent(
    contacts: Contacts, watch: Stopwatch
) -> None:
    contacts.registered(A)
    contacts.registered(B)
    watch.ns += 3600 * SECOND
    assert contacts.tick(SECOND) == []
    assert all(overdue == [] for overdue in ticks(contacts, watch, 13))


def test_nodes_from_before_a_restart_have_the_recovery_grace(
    contacts: Contacts, watch: Stopwatch
) -> None:
    contacts.registered(A)
    seen = []
    for second, overdue in enumerate(ticks(contacts, watch, 21), 1):
        contacts.heard(A)
        if overdue:
            seen.append((second, overdue))
    assert seen == [(21, [B])]


def test_who_registers_while_it_is_being_lost_has_to_register_again(watch: Stopwatch) -> None:
    """Both events are on their way at once, and the loss may be the later one."""
    registered = SequencedEvent(SequenceNumber(1), NodeRegistered(Node(A, ())))
    feed = StateFeed(ClusterState.empty().fold([registered]), lambda: 0)
    door = Door(WallClock(), feed)
    contacts = Contacts(feed, door, watch)

    async def story() -> None:
        log = SlowLog()
        door.open(log)
        losing = asyncio.create_task(contacts.lose(A))
        await asyncio.sleep(0)
        lost, durable = log.asked[0]
        assert isinstance(lost, NodeLost)
        contacts.registered(A)
        assert contacts.knows(A)
        durable.set_result(SequenceNumber(3))
        await losing
        assert not contacts.knows(A)

    asyncio.run(story())


def test_a_jump_of_the_machines_clock_moves_ours_by_next_to_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wall, monotonic = [1_000 * SECOND], [0]
    monkeypatch.setattr(time, "time_ns", lambda: wall[0])
    monkeypatch.setattr(time, "monotonic_ns", lambda: monotonic[0])
    clock = WallClock()
    before = clock.now()
    for jump in (3600 * SECOND, -7200 * SECOND):
        wall[0] += jump
        for _ in range(10):
            wall[0] += SECOND
            monotonic[0] += SECOND
            now = clock.now()
            assert before < now
            assert abs((now - before) - SECOND) <= SECOND // 200
            before = now


def test_the_clock_follows_a_small_drift_and_never_goes_before_the_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wall, monotonic = [1_000 * SECOND], [0]
    monkeypatch.setattr(time, "time_ns", lambda: wall[0])
    monkeypatch.setattr(time, "monotonic_ns", lambda: monotonic[0])
    clock = WallClock()
    wall[0] += SECOND // 10
    for _ in range(40):
        wall[0] += SECOND
        monotonic[0] += SECOND
        now = clock.now()
    assert now == wall[0]
    clock.not_before(Instant(wall[0] + 50 * SECOND))
    assert clock.now() >= wall[0] + 50 * SECOND
