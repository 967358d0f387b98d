"""Older databases open, newer ones are refused with a sentence, strangers are left alone."""

import asyncio
import os
import shutil
import stat
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from controlplane.domain.codec import SCHEMA_VERSION
from controlplane.edges.store import schema
from controlplane.edges.store.database import connect, for_writing
from controlplane.edges.store.errors import StoreError, StoreTooNewError
from controlplane.edges.store.store import Store
from controlplane.edges.store.tables import METADATA
from tests.contract.store.builders import numbers, running

NEXT_REVISION = '''"""A revision that a later Headrace could have."""

import sqlalchemy as sa
from alembic import op

revision = "next"
down_revision = "{last}"


def upgrade() -> None:
    """Adds a column to a table with rows."""
    with op.batch_alter_table("events") as table:
        table.add_column(sa.Column("colour", sa.String(), nullable=False, server_default="grey"))
'''
BREAKS = '    raise ValueError("this migration breaks off")\n'


def execute(url: str, statement: str) -> None:
    engine = connect(url)
    with for_writing(engine).begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def put_an_event_in(url: str) -> None:
    async def life() -> None:
        async with running(url) as world:
            await world.append_units(1)

    asyncio.run(life())


def migrations_of_a_later_headrace(folder: Path, more: str = "") -> Path:
    shutil.copytree(schema.MIGRATIONS, folder)
    revision = NEXT_REVISION.format(last=schema.REVISIONS[-1]) + more
    (folder / "versions" / "next.py").write_text(revision)
    return folder


def test_the_migrations_make_what_the_tables_say(url: str) -> None:
    Store.open(url).close()
    engine = connect(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": schema.VERSION_TABLE, "compare_type": True}
        )
        assert compare_metadata(context, METADATA) == []
    engine.dispose()


def test_every_revision_is_known_by_name() -> None:
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    config.set_main_option("path_separator", "os")
    scripts = ScriptDirectory.from_config(config)
    assert tuple(s.revision for s in scripts.walk_revisions())[::-1] == schema.REVISIONS


def test_an_older_database_is_brought_up_to_date_with_its_rows(url: str, tmp_path: Path) -> None:
    put_an_event_in(url)
    later = migrations_of_a_later_headrace(tmp_path / "later")
    engine = connect(url)

    schema.migrate(engine, (*schema.REVISIONS, "next"), later)

    with engine.connect() as connection:
        assert connection.execute(text("SELECT seq, colour FROM events")).all() == [(1, "grey")]
    engine.dispose()
    with pytest.raises(StoreTooNewError, match=r"tables of revision next.*start the newer"):
        Store.open(url)


def test_a_migration_that_fails_changes_nothing(url: str, tmp_path: Path) -> None:
    put_an_event_in(url)
    later = migrations_of_a_later_headrace(tmp_path / "later", more=BREAKS)
    engine = connect(url)
    with pytest.raises(ValueError, match="breaks off"):
        schema.migrate(engine, (*schema.REVISIONS, "next"), later)
    engine.dispose()

    store = Store.open(url)
    assert numbers(store.events()) == [1]
    store.close()


def test_values_of_a_newer_schema_are_refused(url: str) -> None:
    put_an_event_in(url)
    execute(url, f"UPDATE meta SET value = '{SCHEMA_VERSION + 1}' WHERE name = 'schema_version'")
    with pytest.raises(StoreTooNewError, match=f"schema version {SCHEMA_VERSION + 1}"):
        Store.open(url)


def test_values_of_an_older_schema_are_read_and_joined_by_newer_ones(url: str) -> None:
    put_an_event_in(url)
    execute(url, "UPDATE meta SET value = '0' WHERE name = 'schema_version'")
    store = Store.open(url)
    assert numbers(store.events()) == [1]
    store.close()
    engine = connect(url)
    with engine.connect() as connection:
        stored = connection.scalar(text("SELECT value FROM meta WHERE name = 'schema_version'"))
    engine.dispose()
    assert stored == str(SCHEMA_VERSION)


def test_tables_of_someone_else_are_left_alone(url: str) -> None:
    execute(url, "CREATE TABLE events (guest VARCHAR)")
    with pytest.raises(StoreError, match=r"not Headrace's \(events\)"):
        Store.open(url)
    engine = connect(url)
    assert inspect(engine).get_table_names() == ["events"]
    engine.dispose()


def test_many_may_open_a_new_database_at_once(url: str) -> None:
    async def scenario() -> None:
        opened = [asyncio.to_thread(Store.open, url) for _ in range(4)]
        for store in await asyncio.gather(*opened):
            assert store.events() == []
            store.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("nonsense", "not a database URL"),
        ("mysql://host/db", "cannot live in mysql"),
        ("sqlite://", "in memory would forget"),
        ("sqlite:///:memory:", "in memory would forget"),
        ("sqlite:////nowhere/at/all/store.db", "/nowhere/at/all of the store does not exist"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_with_a_sentence(url: str, sentence: str) -> None:
    with pytest.raises(StoreError, match=sentence):
        Store.open(url)


def test_a_file_that_is_no_database_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database " * 100)
    with pytest.raises(StoreError, match="file is not a database"):
        Store.open(f"sqlite:///{tmp_path / 'notes.txt'}")


def test_a_database_file_is_its_users_alone_with_what_lies_beside_it(tmp_path: Path) -> None:
    found: dict[str, int] = {}

    def look() -> None:
        found.update({path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()})

    async def scenario() -> None:
        async with running(f"sqlite:///{tmp_path}/x.db") as world:
            await world.append_units(1)
            look()

    before = os.umask(0o022)
    try:
        asyncio.run(scenario())
    finally:
        os.umask(before)
    assert found == dict.fromkeys(("x.db", "x.db-shm", "x.db-wal"), 0o600)
