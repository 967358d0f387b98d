"""Fixtures for the tests that train for real."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workloads.attempts import Agent, Fork, a_zygote


@pytest.fixture(scope="session")
def fork() -> Iterator[Fork]:
    """The one process that forks all units."""
    with a_zygote() as found:
        yield found


@pytest.fixture
def agent(fork: Fork, tmp_path: Path) -> Iterator[Agent]:
    """Starts attempts; whatever still runs at the end of the test is killed."""
    found = Agent(tmp_path / "control", fork)
    yield found
    found.end_all()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A checkpoint store."""
    return tmp_path / "store"
