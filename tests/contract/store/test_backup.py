"""A backup is of one moment, fits either database, and goes in whole or not at all."""

import asyncio
import gzip
import json
import math
from collections.abc import Iterator
from typing import Any

import pytest

from controlplane.domain.clock import SECOND, Instant
from controlplane.domain.ids import JobUid, SequenceNumber
from controlplane.edges.store.backup import restore
from controlplane.edges.store.errors import BackupRefusedError, StoreTooNewError
from controlplane.edges.store.store import Store
from tests.contract.store.builders import (
    T0,
    NewUrl,
    decided,
    numbers,
    progressed,
    running,
    started,
    stop,
)
from tests.contract.store.test_restoring import Names

NOW = Instant(T0 + 3600 * SECOND)


async def _fill(url: str) -> bytes:
    async with running(url) as world:
        await world.append_units(3)
        await world.writer.append(progressed("a", (1, 0.5), (2, math.nan), (3, math.inf)))
        await world.decisions.append(decided(world.term, 4, stop("a", "ünï")))
        await world.writer.save_checkpoint(("one", "state"), Names, SequenceNumber(5), T0)
        await world.append_units(2, "later")
        return b"".join(world.store.backup(T0))


def filled(url: str) -> bytes:
    return asyncio.run(_fill(url))


def contents(url: str) -> tuple[Any, ...]:
    store = Store.open(url)
    job = JobUid("a")
    try:
        losses = [(row.step, repr(row.loss), row.attempt) for row in store.losses(job)]
        return store.events(), store.decisions(job), losses, store.load(Names)
    finally:
        store.close()


def in_pieces(data: bytes, size: int = 100) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def rewritten(data: bytes, **header: object) -> bytes:
    first, rest = gzip.decompress(data).split(b"\n", 1)
    return gzip.compress(json.dumps(json.loads(first) | header).encode() + b"\n" + rest)


def test_all_of_it_comes_back(new_url: NewUrl) -> None:
    url, target = new_url(), new_url()
    data = filled(url)
    restore(in_pieces(data), target, NOW)
    assert contents(target) == contents(url)


@pytest.mark.usefixtures("_postgres")
def test_it_fits_the_other_database(new_url: NewUrl, other_url: NewUrl) -> None:
    url, target = new_url(), other_url()
    restore([filled(url)], target, NOW)
    assert contents(target) == contents(url)


def test_terms_and_numbers_go_on_above_all_that_was_given_out(new_url: NewUrl) -> None:
    url = new_url()
    data = filled(url)
    target, again = new_url(), new_url()
    restore([data], target, NOW)

    async def life_after(url: str) -> tuple[int, int]:
        async with running(url, now=NOW) as world:
            return world.term, await world.writer.append(started())

    async def life_of_the_original() -> tuple[int, int]:
        async with running(url) as world:
            await world.append_units(500)
            for _ in range(500):
                term = world.store.acquire_term("one", T0)
            return term, 507

    lost_term, lost_number = asyncio.run(life_of_the_original())
    term, number = asyncio.run(life_after(target))
    assert term > lost_term
    assert number > lost_number
    # The same backup once more, an hour later: above the first restore's terms too.
    restore([data], again, Instant(NOW + 3600 * SECOND))
    assert asyncio.run(life_after(again))[0] > term


def test_a_store_knows_that_it_was_restored_until_something_was_ordered(new_url: NewUrl) -> None:
    url, target = new_url(), new_url()
    data = filled(url)
    restore([data], target, NOW)

    async def life_after() -> tuple[bool, bool]:
        async with running(target, now=NOW) as world:
            await world.writer.append(started())
            before = world.store.expects_strangers()
            await world.writer.expect_strangers_no_more()
            return before, world.store.expects_strangers()

    async def life_before() -> bool:
        async with running(url) as world:
            return world.store.expects_strangers()

    assert asyncio.run(life_after()) == (True, False)
    assert not asyncio.run(life_before())


@pytest.mark.parametrize("clock", [Instant(0), T0, NOW])
def test_attempts_go_on_above_those_of_every_earlier_restore(
    new_url: NewUrl, clock: Instant
) -> None:
    """An attempt a second, at most: of the original, and of what was restored before."""
    first, again = new_url(), new_url()
    restore([filled(new_url())], first, clock)
    store = Store.open(first)
    numbers_up_to, floor = store.attempt_floor()
    copy = b"".join(store.backup(Instant(NOW + SECOND)))
    store.close()
    restore([copy], again, Instant(NOW + 3600 * SECOND))
    store = Store.open(again)
    raised = store.attempt_floor()
    store.close()
    assert floor >= T0 // SECOND
    assert numbers_up_to > 7
    assert raised[1] >= floor + 3600
    assert raised[0] > numbers_up_to


@pytest.mark.parametrize("clock", [Instant(0), T0, NOW])
def test_terms_jump_whatever_the_clock_says(new_url: NewUrl, clock: Instant) -> None:
    target = new_url()
    restore([filled(new_url())], target, clock)
    store = Store.open(target)
    assert store.acquire_term("anyone", T0) > 1_000_000
    store.close()


def test_a_backup_while_writing_is_of_one_moment(new_url: NewUrl) -> None:
    url, target = new_url(), new_url()

    async def scenario() -> None:
        async with running(url) as world:
            stopped = asyncio.Event()

            async def write() -> int:
                count = 0
                while not stopped.is_set():
                    # An event and its loss are one transaction.
                    await world.writer.append(progressed("a", (count, float(count))))
                    count += 1
                return count

            writing = asyncio.ensure_future(write())
            chunks = world.store.backup(T0)
            parts = []
            while (part := await asyncio.to_thread(next, chunks, None)) is not None:
                parts.append(part)
                await world.writer.append(started("between chunks"))
            stopped.set()
            assert await writing > 0
            restore(parts, target, NOW)

    asyncio.run(scenario())
    store = Store.open(target)
    events = store.events(limit=1_000_000)
    progress = [item for item in events if getattr(item.event, "uid", "") == "a"]
    assert numbers(events) == list(range(1, len(events) + 1))
    assert len(store.losses(JobUid("a"))) == len(progress)
    store.close()


def test_an_abandoned_backup_lets_go(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as world:
            for n in range(300):
                await world.writer.append(started(f"{n * 7919:0400d}"))
            chunks = world.store.backup(T0)
            next(chunks)
            chunks.close()  # type: ignore[attr-defined]
            assert await world.writer.append(started()) == 301

    asyncio.run(scenario())


def test_a_target_with_something_in_it_is_refused(new_url: NewUrl) -> None:
    url, target = new_url(), new_url()
    data = filled(url)

    async def one_event() -> None:
        async with running(target) as world:
            await world.append_units(1)

    asyncio.run(one_event())
    before = contents(target)
    with pytest.raises(BackupRefusedError, match=r"not empty.*events"):
        restore([data], target, NOW)
    assert contents(target) == before


def test_a_target_that_was_only_opened_is_empty(new_url: NewUrl) -> None:
    url, target = new_url(), new_url()
    data = filled(url)
    Store.open(target).close()
    restore([data], target, NOW)
    assert contents(target) == contents(url)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.99])
def test_a_backup_that_was_cut_off_restores_nothing(new_url: NewUrl, share: float) -> None:
    url, target = new_url(), new_url()
    data = filled(url)
    with pytest.raises(BackupRefusedError):
        restore(in_pieces(data[: int(len(data) * share)]), target, NOW)
    # Nothing is left behind, so the whole one still fits.
    restore(in_pieces(data), target, NOW)
    assert contents(target) == contents(url)


def _without_a_row(lines: list[bytes]) -> list[bytes]:
    return lines[:-2] + lines[-1:]


def _with_a_broken_line(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], b'["events",[1]]', *lines[2:]]


def _without_the_end(lines: list[bytes]) -> list[bytes]:
    return lines[:-1]


def _with_something_after_the_end(lines: list[bytes]) -> list[bytes]:
    return [*lines, lines[1]]


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (_without_a_row, "is damaged: it holds"),
        (_without_the_end, "has no end"),
        (_with_a_broken_line, "damaged at"),
        (_with_something_after_the_end, "goes on after its end"),
    ],
)
def test_a_backup_that_does_not_add_up_restores_nothing(
    new_url: NewUrl, damage: Any, sentence: str
) -> None:
    target = new_url()
    lines = gzip.decompress(filled(new_url())).splitlines()
    with pytest.raises(BackupRefusedError, match=sentence):
        restore([gzip.compress(b"\n".join(damage(lines)) + b"\n")], target, NOW)
    store = Store.open(target)
    assert store.events() == []
    store.close()


@pytest.mark.parametrize(
    "header", [{"format_version": 99}, {"schema_version": 99}, {"revision": "9999"}]
)
def test_a_newer_backup_is_refused_with_a_sentence(
    new_url: NewUrl, header: dict[str, object]
) -> None:
    data = rewritten(filled(new_url()), **header)
    with pytest.raises(StoreTooNewError, match=r"newer Headrace made this backup"):
        restore([data], new_url(), NOW)


@pytest.mark.parametrize(
    "data",
    [b"", b"plain text", *map(gzip.compress, (b"{}\n", b"[1]\n", b"\xff\n"))],
    # Compressed data holds the time, which must not get into the names: workers compare theirs.
    ids=["empty", "text", "no-header", "list", "no-text"],
)
def test_what_is_no_backup_is_refused_with_a_sentence(new_url: NewUrl, data: bytes) -> None:
    with pytest.raises(BackupRefusedError):
        restore([data], new_url(), NOW)
