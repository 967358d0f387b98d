"""What a unit is told at its start, and who else may read it."""

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import launching
from agent.control_folder import ControlFolder
from agent.desired import UnitKey, WantedLaunch, WantedUnit
from agent.launching import LaunchSettings
from agent.main import AlreadyRunningError, alone
from agent.units import UnitSettings
from controlplane.domain.ids import AcceleratorId
from controlplane.domain.node import Accelerator
from controlplane.domain.record import Intent

SLOTS = {"a": Accelerator(AcceleratorId("a"), "cpu")}


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("memory_bytes", [0, 3 << 30])
def test_a_program_is_told_the_host_memory_meant_for_it(memory_bytes: int) -> None:
    unit = WantedUnit(0, ("a",), host_memory_bytes=memory_bytes)
    wanted = WantedLaunch("job", 1, Intent.RUN, (unit,))
    told = launching.launch_json(wanted, unit, LaunchSettings(), SLOTS)
    spec = launching.unit_spec(wanted, unit, "folder", LaunchSettings(), SLOTS)
    variable = dict(spec.environment).get("HEADRACE_HOST_MEMORY_BYTES")
    assert told["host_memory_bytes"] == memory_bytes
    assert variable == (str(memory_bytes) if memory_bytes else None)


def test_what_a_unit_is_told_is_read_by_its_user_alone(tmp_path: Path) -> None:
    folder = ControlFolder(tmp_path, UnitKey("job", 1, 0))
    folder.prepare({"manifest": {"spec": {"env": [{"name": "A", "value": "b"}]}}})
    assert mode_of(folder.path / "launch.json") == 0o600


@pytest.mark.parametrize(("run_as_uid", "mode"), [(-1, 0o700), (7, 0o711)])
def test_a_nodes_folder_is_its_users_alone(tmp_path: Path, run_as_uid: int, mode: int) -> None:
    root = tmp_path / "state" / "node"
    with alone(UnitSettings("node", root, LaunchSettings(run_as_uid=run_as_uid))):
        assert mode_of(root) == mode


def test_a_second_agent_is_refused_or_waits_until_the_first_has_ended(tmp_path: Path) -> None:
    settings = UnitSettings("node", tmp_path / "state" / "node", LaunchSettings())
    told = []

    def second() -> None:
        with alone(settings, wait=True):
            told.append("second")

    with alone(settings):
        with pytest.raises(AlreadyRunningError, match="another agent uses"), alone(settings):
            pass
        waiting = threading.Thread(target=second)
        waiting.start()
        told.append("first")
    waiting.join()
    assert told == ["first", "second"]
