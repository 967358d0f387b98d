"""One Ray for all tests of this folder: starting it takes long on a busy machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.ray.cluster import AgentProcess, ListeningControlPlane, LocalRay


@pytest.fixture(scope="package")
def _ray(_session_leaves_no_process: None) -> Iterator[LocalRay]:
    made = LocalRay()
    try:
        made.start()
        yield made
    finally:
        made.remove()


@pytest.fixture
def ray(_ray: LocalRay) -> LocalRay:
    """A Ray that is up; a test before may have killed it."""
    _ray.start()
    return _ray


@pytest.fixture
def control_plane() -> Iterator[ListeningControlPlane]:
    made = ListeningControlPlane()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def agent(
    ray: LocalRay, control_plane: ListeningControlPlane, tmp_path: Path
) -> Iterator[AgentProcess]:
    """An agent that a test starts; all that it left is ended."""
    made = AgentProcess("node-a", tmp_path, ray, control_plane)
    yield made
    made.end_units()
