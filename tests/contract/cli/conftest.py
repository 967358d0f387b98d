"""A fake control plane and a command line that is pointed to it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from headrace.cli.main import app
from headrace.client.context import Context, write
from tests.contract.cli.fake_control_plane import FakeControlPlane

Headrace = Callable[..., Result]


@pytest.fixture
def plane() -> Iterator[FakeControlPlane]:
    fake = FakeControlPlane()
    yield fake
    fake.stop()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    monkeypatch.setenv("HEADRACE_HOME", str(folder))
    monkeypatch.delenv("HEADRACE_SERVER", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    return folder


@pytest.fixture
def headrace(plane: FakeControlPlane, home: Path) -> Headrace:
    write(home, Context(plane.address, local=True))
    return unpointed


def unpointed(*arguments: str, stdin: str = "") -> Result:
    """Runs the command line in this process."""
    return CliRunner().invoke(app, list(arguments), input=stdin)


def a_file(folder: Path, *documents: dict[str, Any], name: str = "job.yaml") -> str:
    path = folder / name
    path.write_text(yaml.safe_dump_all(documents), encoding="utf-8")
    return str(path)
