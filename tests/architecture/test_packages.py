"""What gets installed where: two distributions, and a command line that starts fast."""

import json
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from tests.architecture.source_tree import ROOT, python_files

SERVER_SIDE = {"agent", "controlplane", "operators", "simulator"}
HEAVY = {"google", "grpc", "numpy", "pydantic", "ray", "rich", "sqlalchemy", "torch", "yaml"}

PROBE = """
import json, sys
sys.argv = ["headrace", *sys.argv[1:]]
try:
    exec(sys.stdin.read())
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})), file=sys.stderr)
"""
START = "from headrace.cli.entry import run; run()"


def _wheel(project: Path, target: Path) -> zipfile.ZipFile:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)],
        cwd=project,
        check=True,
        capture_output=True,
    )
    (built,) = target.iterdir()
    return zipfile.ZipFile(built)


def _requirements(wheel: zipfile.ZipFile) -> list[str]:
    """Requirements of the plain installation, without extras."""
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    told = Parser().parsestr(wheel.read(metadata).decode())
    return [line for line in told.get_all("Requires-Dist") or [] if "extra ==" not in line]


def _top_levels(wheel: zipfile.ZipFile) -> set[str]:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    return {top for top in tops if not top.endswith(".dist-info")}


def test_the_public_wheel_brings_one_package_and_no_torch(tmp_path: Path) -> None:
    with _wheel(ROOT / "headrace", tmp_path) as wheel:
        names = set(wheel.namelist())
        assert _top_levels(wheel) == {"headrace"}
        assert set(python_files("headrace")) <= names
        assert "headrace/api/generated/jobs_pb2.py" in names
        assert any(name.endswith("/licenses/LICENSE") for name in names)
        needed = " ".join(_requirements(wheel))
    for server_side in ("headrace-server", "ray", "sqlalchemy", "torch"):
        assert server_side not in needed


def test_the_server_wheel_brings_the_server_side_and_no_ray(tmp_path: Path) -> None:
    with _wheel(ROOT, tmp_path) as wheel:
        names = set(wheel.namelist())
        assert _top_levels(wheel) == SERVER_SIDE
        assert set(python_files(*SERVER_SIDE)) <= names
        needed = " ".join(_requirements(wheel))
    assert "sqlalchemy" in needed
    assert "ray" not in needed
    assert "torch" not in needed


def test_both_distributions_carry_the_licence() -> None:
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in licence
    assert (ROOT / "headrace" / "LICENSE").read_text(encoding="utf-8") == licence


def _modules_after(code: str, *arguments: str) -> set[str]:
    ran = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments],
        cwd=ROOT,
        input=code,
        capture_output=True,
        check=True,
        text=True,
    )
    return set(json.loads(ran.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (["--help"], HEAVY),
        (["apply", "--help"], HEAVY - {"pydantic"}),
        (["top", "--help"], HEAVY - {"pydantic"}),
    ],
)
def test_help_loads_nothing_heavy(arguments: list[str], unwanted: set[str]) -> None:
    loaded = _modules_after(START, *arguments)
    assert "typer" in loaded
    assert loaded & unwanted == set()


def test_what_is_heavy_would_be_noticed() -> None:
    assert {"yaml", "grpc"} <= _modules_after("import yaml, grpc")
