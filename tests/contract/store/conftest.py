"""Every test here that takes ``url`` runs on both databases."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.store.builders import NewUrl
from tests.contract.store.postgres_server import PostgresServer, binaries


def _started() -> PostgresServer:
    found = binaries()
    if found is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    server = PostgresServer(found)
    try:
        server.start()
    except BaseException:
        server.remove()
        raise
    return server


@pytest.fixture(scope="session")
def _postgres(_session_leaves_no_process: None) -> Iterator[PostgresServer]:
    server = _started()
    yield server
    server.remove()


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    """Kind of the database. Of session scope, so that its server is there before any test."""
    if request.param == "postgresql":
        request.getfixturevalue("_postgres")
    return str(request.param)


def _urls(kind: str, request: pytest.FixtureRequest, folder: Path) -> NewUrl:
    numbers = itertools.count()

    def made() -> str:
        if kind == "postgresql":
            server: PostgresServer = request.getfixturevalue("_postgres")
            return server.new_database()
        return f"sqlite:///{folder}/store-{next(numbers)}.db"

    return made


@pytest.fixture
def new_url(database: str, request: pytest.FixtureRequest, tmp_path: Path) -> NewUrl:
    """Makes URLs of new, empty databases."""
    return _urls(database, request, tmp_path)


@pytest.fixture
def other_url(database: str, request: pytest.FixtureRequest, tmp_path: Path) -> NewUrl:
    """The same for the other kind of database. Use it together with ``_postgres``."""
    other = "sqlite" if database == "postgresql" else "postgresql"
    return _urls(other, request, tmp_path)


@pytest.fixture
def url(new_url: NewUrl) -> str:
    """A new, empty database."""
    return new_url()


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server that the test may crash."""
    server = _started()
    yield server
    server.remove()
