"""What was acknowledged is there, whatever happens; what failed is not, and may be tried again."""

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from controlplane.domain.clock import Instant
from controlplane.domain.ids import JobUid
from controlplane.edges.store import sqlite_inserts
from controlplane.edges.store.database import connect, for_writing
from controlplane.edges.store.errors import (
    StoreError,
    StoreFullError,
    StoreLockedError,
    StoreUnavailableError,
)
from controlplane.edges.store.lease import LEASE_FRESH
from controlplane.edges.store.store import Store
from controlplane.edges.store.writer import GroupCommitWriter
from tests.contract.store.builders import LONG, T0, decided, numbers, running, started
from tests.contract.store.postgres_server import PostgresServer

ROOT = Path(__file__).parents[3]


def _killed_after(lines: int, url: str, term: int) -> list[tuple[str, int]]:
    """What a process had acknowledged when it was killed, after about so many lines."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.contract.store.appending_process", url, str(term)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        heard = [process.stdout.readline() for _ in range(lines)]
        process.send_signal(signal.SIGKILL)
        heard.extend(process.stdout.readlines())
        trouble = process.stderr.read()
    assert process.returncode == -signal.SIGKILL, trouble.decode()
    whole = [line.decode().split() for line in heard if line.endswith(b"\n")]
    return [(uid, int(sequence)) for uid, sequence in whole]


@pytest.mark.failure
def test_all_that_was_acknowledged_survives_kill_9(url: str) -> None:
    acknowledged: dict[int, str] = {}
    now = T0
    for _ in range(3):
        store = Store.open(url)
        now = Instant(now + LEASE_FRESH)
        term = store.acquire_term("victim", now)
        store.close()
        for uid, sequence in _killed_after(random.randint(1, 400), url, term):
            assert sequence not in acknowledged, "a number was given twice"
            acknowledged[sequence] = uid

        store = Store.open(url)
        stored = store.events(limit=1_000_000)
        named = {item.sequence: getattr(item.event, "uid", item.event.kind) for item in stored}
        assert numbers(stored) == list(range(1, len(stored) + 1))
        assert acknowledged.items() <= named.items()
        # The losses were in the same transactions, also of events that were not acknowledged.
        for sequence, uid in list(named.items())[-25:]:
            if uid != "CycleDecided":
                assert len(store.losses(JobUid(uid))) == 1, f"{sequence} lost its loss"
        store.close()


async def _is_refused(writer: GroupCommitWriter, kind: type[StoreError], sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        await writer.append(started("refused"))
    assert writer.problem


@pytest.mark.process
def test_a_crashed_server_refuses_and_comes_back(own_postgres: PostgresServer) -> None:
    url = own_postgres.new_database()

    async def scenario() -> None:
        async with running(url) as world:
            assert await world.writer.append(started("a")) == 1
            await asyncio.to_thread(own_postgres.crash)
            for _ in range(3):
                await _is_refused(world.writer, StoreUnavailableError, "cannot be used now")
            with pytest.raises(StoreUnavailableError):
                await world.decisions.append(decided(world.term, 1))
            with pytest.raises(StoreUnavailableError):
                world.store.events()
            with pytest.raises(StoreUnavailableError, match="cannot be used now"):
                Store.open(url)

            await asyncio.to_thread(own_postgres.start)
            assert await world.writer.append(started("b")) == 2
            assert not world.writer.problem
            assert numbers(list(await world.tail.take(LONG))) == [1, 2]
            assert numbers(world.store.events()) == [1, 2]

    asyncio.run(scenario())


def test_a_commit_whose_answer_is_lost_is_taken_back(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database commits, but the connection breaks before it can say so."""

    async def scenario() -> None:
        async with running(url) as world:
            assert await world.writer.append(started("a")) == 1
            engine: Engine = world.writer._engine
            commit = engine.dialect.do_commit

            def commit_and_break(connection: object) -> None:
                commit(connection)  # type: ignore[arg-type]
                broken = engine.dialect.loaded_dbapi.OperationalError
                raise broken("the connection broke")

            hurry = sqlite_inserts.append

            def hurry_and_break(*what: Any) -> None:
                hurry(*what)
                raise sqlite3.OperationalError("the connection broke")

            monkeypatch.setattr(engine.dialect, "do_commit", commit_and_break)
            monkeypatch.setattr(sqlite_inserts, "append", hurry_and_break)
            lost = [
                world.writer.append(started("lost", 1)),
                world.writer.append(decided(world.term, 1)),
            ]
            for each in lost:
                with pytest.raises(StoreUnavailableError, match="connection broke"):
                    await each
            monkeypatch.undo()
            assert numbers(world.store.events()) == [1, 2, 3], "they were committed"

            # Those who asked were told no, and the loop has not seen them: so they never were.
            assert await world.writer.append(started("b")) == 2
            assert world.store.events() == list(await world.tail.take(LONG))
            assert world.store.load(dict)[1] == world.store.events()

    asyncio.run(scenario())


def test_a_full_disk_refuses_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"

    async def scenario() -> None:
        async with running(url) as world:
            stored: list[int] = [await world.writer.append(started("a"))]
            limit = _LimitedPages(world.writer._engine)
            limit.set(limit.used())
            # Connections that are open already do not know the limit: end the writer's.
            with pytest.raises(StoreError):
                await world.writer._run(_break_off)
            with pytest.raises(StoreFullError, match=r"has no room left.*make room"):
                await _append_until_it_fails(world.writer, stored)
            await _is_refused_when_large(world.writer)
            assert numbers(world.store.events(limit=5000)) == stored

            limit.set(1_000_000)
            assert await world.writer.append(started("b")) == stored[-1] + 1
            assert numbers(list(await world.tail.take(LONG))) == [*stored, stored[-1] + 1]

    asyncio.run(scenario())


async def _append_until_it_fails(writer: GroupCommitWriter, stored: list[int]) -> None:
    for n in range(1000):
        sequence = await writer.append(started(f"{n:0500d}"))
        stored.append(sequence)


async def _is_refused_when_large(writer: GroupCommitWriter) -> None:
    with pytest.raises(StoreFullError):
        await writer.append(started("x" * 100_000))
    assert "no room" in writer.problem


def _break_off(_connection: object) -> None:
    raise StoreError("break off")


class _LimitedPages:
    """Gives SQLite no more than so many pages, as a full disk would."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._most = 1_000_000
        event.listen(engine, "begin", self._limit)

    def _limit(self, connection: object) -> None:
        dbapi = connection.connection.dbapi_connection  # type: ignore[attr-defined]
        dbapi.execute(f"PRAGMA max_page_count={self._most}")

    def used(self) -> int:
        with self._engine.connect() as connection:
            return int(connection.scalar(text("PRAGMA page_count")) or 0)

    def set(self, most: int) -> None:
        self._most = most


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.edges.store.database.LOCK_WAIT_SECONDS", 0.2)


@pytest.mark.usefixtures("impatient")
def test_a_lock_that_is_not_let_go_is_told(url: str) -> None:
    async def scenario() -> None:
        async with running(url, "one") as world:
            await world.writer.append(started("a"))
            stranger = connect(url)
            with for_writing(stranger).begin() as connection:
                connection.execute(text("UPDATE lease SET holder = 'stranger'"))
                await _is_refused(world.writer, StoreLockedError, "locked by someone else")
                with pytest.raises(StoreLockedError):
                    world.store.acquire_term("two", T0)
                connection.rollback()
            stranger.dispose()
            assert await world.writer.append(started("b")) == 2

    asyncio.run(scenario())


def test_readers_do_not_stop_the_writer(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as world:
            await world.append_units(3)
            reader = connect(url)
            with reader.connect() as connection, connection.begin():
                assert connection.scalar(text("SELECT count(*) FROM events")) == 3
                assert await world.writer.append(started()) == 4
            reader.dispose()

    asyncio.run(scenario())


def test_sqlite_is_set_up_to_keep_what_it_acknowledged(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(f"sqlite:///{tmp_path}/store.db") as world:
            await world.append_units(1)
            engine: Engine = world.writer._engine
            with engine.connect() as connection:
                assert connection.scalar(text("PRAGMA synchronous")) == 2  # FULL
            with closing(sqlite3.connect(tmp_path / "store.db")) as other:
                assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)

    asyncio.run(scenario())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_rights_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreUnavailableError, match="unable to open"):
        Store.open(f"sqlite:///{tmp_path}/store.db")


@pytest.mark.usefixtures("_postgres")
def test_a_database_that_is_not_there_is_told_without_its_password(
    request: pytest.FixtureRequest,
) -> None:
    server: PostgresServer = request.getfixturevalue("_postgres")
    url = server.new_database().replace("postgres@/store", "postgres:geheim@/no_store")
    with pytest.raises(StoreError, match="does not exist") as refused:
        Store.open(url)
    assert "geheim" not in str(refused.value)
