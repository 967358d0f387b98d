"""Creates the tables, brings older ones up to date, and refuses what a newer Headrace wrote."""

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, select, update
from sqlalchemy import column as sql_column
from sqlalchemy import table as sql_table

from controlplane.domain.codec import SCHEMA_VERSION
from controlplane.edges.store.database import for_writing, lock_against_others, where
from controlplane.edges.store.errors import StoreError, StoreTooNewError
from controlplane.edges.store.tables import META, METADATA

REVISIONS: tuple[str, ...] = ("0001",)
"""Every revision of the tables, oldest first."""

VERSION_TABLE = "headrace_revision"

MIGRATIONS = Path(__file__).parent / "migrations"

_REVISION = sql_table(VERSION_TABLE, sql_column("version_num"))


def migrate(
    engine: Engine, revisions: tuple[str, ...] = REVISIONS, folder: Path = MIGRATIONS
) -> None:
    """Brings the database to the last of ``revisions``; all of it or, if that fails, nothing.

    Raises:
        StoreTooNewError: A newer Headrace wrote it.
        StoreError: It holds tables that are not Headrace's.
    """
    with for_writing(engine).begin() as connection:
        lock_against_others(connection)
        found = _revision(connection, revisions)
        if found != revisions[-1]:
            run_migrations(connection, revisions[-1], folder)
        _agree_on_schema_version(connection)


def run_migrations(connection: Connection, revision: str, folder: Path = MIGRATIONS) -> None:
    """Runs alembic up to ``revision`` inside the connection's transaction."""
    # Here and not above: an up-to-date store opens without the memory that alembic takes.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def revision_of(connection: Connection) -> str | None:
    """The revision of the tables; None where there are none of Headrace's."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found: str | None = connection.scalar(select(_REVISION.c.version_num))
    return found


def _revision(connection: Connection, revisions: tuple[str, ...]) -> str | None:
    found = revision_of(connection)
    if found is None:
        strangers = sorted(set(inspect(connection).get_table_names()) & set(METADATA.tables))
        if strangers:
            raise StoreError(
                f"{where(connection.engine)} holds tables that are not Headrace's "
                f"({', '.join(strangers)}); give Headrace a database of its own"
            )
    elif found not in revisions:
        raise StoreTooNewError(
            f"{where(connection.engine)} has tables of revision {found}, and this Headrace knows "
            f"them up to {revisions[-1]}; start the newer Headrace that wrote it, or restore a "
            "backup that this one made"
        )
    return found


def _agree_on_schema_version(connection: Connection) -> None:
    stored = connection.scalar(select(META.c.value).where(META.c.name == "schema_version"))
    if stored is None:
        connection.execute(META.insert(), {"name": "schema_version", "value": str(SCHEMA_VERSION)})
    elif int(stored) > SCHEMA_VERSION:
        raise StoreTooNewError(
            f"{where(connection.engine)} holds values of schema version {stored}, and this "
            f"Headrace reads them up to {SCHEMA_VERSION}; start the newer Headrace that wrote "
            "it, or restore a backup that this one made"
        )
    elif int(stored) < SCHEMA_VERSION:
        # Older values stay readable (new fields have defaults); from now on newer ones join them.
        connection.execute(
            update(META).where(META.c.name == "schema_version").values(value=str(SCHEMA_VERSION))
        )
