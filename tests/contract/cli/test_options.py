"""The options of every command, wherever they stand."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from headrace.cli.exit_codes import ExitCode
from headrace.cli.main import app
from tests.contract.cli.conftest import unpointed
from tests.contract.cli.fake_control_plane import FakeControlPlane


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("joined", [True, False])
def test_they_stand_before_or_behind_the_command(plane: FakeControlPlane, joined: bool) -> None:
    plane.put("a")
    server = [f"--server={plane.address}"] if joined else ["--server", plane.address]
    listed, queues = ["get", "jobs", "-o", "name"], ["queue", "list", "-o", "name"]
    for arguments in (server + listed, listed + server, [*listed[:2], *server, *listed[2:]]):
        assert unpointed(*arguments).stdout == "job/a\n", arguments
    for arguments in (queues + server, [queues[0], *server, *queues[1:]]):
        assert unpointed(*arguments).stdout == "queue/default\n", arguments
    assert unpointed("get", "queues", "--insecure", *server).exit_code == ExitCode.OK


def test_what_is_wrong_with_them_is_said_behind_the_command_too(home: Path) -> None:
    told = unpointed("get", "jobs", "--server")
    assert told.exit_code == ExitCode.USAGE
    assert "'--server' requires an argument" in told.stderr
    assert "'--server'" in unpointed("get", "--", "--server").stderr
    assert not home.exists()


def test_no_command_has_an_option_of_the_same_name() -> None:
    def options(command: Any) -> Iterator[str]:
        for each in command.params:
            yield from each.opts
        for below in getattr(command, "commands", {}).values():
            yield from options(below)

    root = get_command(app)
    own = {name for each in root.params for name in each.opts}
    others = [name for below in root.commands.values() for name in options(below)]  # type: ignore[attr-defined]
    assert own.isdisjoint(others)


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("command", ["apply", "delete"])
def test_a_file_that_is_not_there_is_wrong_use(command: str, tmp_path: Path) -> None:
    told = unpointed(command, "-f", str(tmp_path / "job.yaml"))
    assert told.exit_code == ExitCode.USAGE
    assert "job.yaml: cannot be read: No such file or directory" in told.stderr
    (tmp_path / "job.yaml").write_text("kind: Job\n")
    told = unpointed(command, "-f", str(tmp_path / "job.yaml"), "-f", str(tmp_path / "none.yaml"))
    assert told.exit_code == ExitCode.REFUSED
