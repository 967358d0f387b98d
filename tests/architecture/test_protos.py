"""The protos follow buf's rules, break nobody, and the checked-in stubs are made from them."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.architecture.source_tree import ROOT

RELEASED = ROOT / "tests" / "fixtures" / "protos-0.1.0.binpb"


def _buf(*arguments: str, protos: Path = ROOT / "protos") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("buf")), *arguments],
        cwd=protos,
        capture_output=True,
        check=False,
        text=True,
    )


@pytest.fixture
def copy_of_protos(tmp_path: Path) -> Path:
    """Protos of its own, to break."""
    return shutil.copytree(ROOT / "protos", tmp_path / "protos")


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_stubs_are_current() -> None:
    checked = subprocess.run(
        [sys.executable, "protos/generate.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
    )
    assert checked.returncode == 0, checked.stderr


def test_whoever_may_be_installed_can_import_the_stubs() -> None:
    """Stubs refuse a grpcio or protobuf older than what wrote them; the package asks for those."""
    asked = " ".join(
        tomllib.loads((ROOT / "headrace" / "pyproject.toml").read_text())["project"]["dependencies"]
    )
    stub = ROOT / "headrace" / "api" / "generated" / "jobs_pb2"
    grpc = re.search(
        r"GRPC_GENERATED_VERSION = '(.+)'", stub.with_name("jobs_pb2_grpc.py").read_text()
    )
    protobuf = re.search(r"PUBLIC,\s+(\d+),\s+(\d+),\s+(\d+),", stub.with_suffix(".py").read_text())
    assert grpc is not None
    assert protobuf is not None
    for package, demanded in (("grpcio", grpc[1]), ("protobuf", ".".join(protobuf.groups()))):
        least = re.search(rf"(?<!\S){package}>=([0-9.]+)", asked)
        assert least is not None
        assert _numbers(least[1]) >= _numbers(demanded), f"{package}: {least[1]} < {demanded}"


def _numbers(version: str) -> list[int]:
    numbers = [int(part) for part in version.split(".")]
    return numbers + [0] * (3 - len(numbers))


def test_stale_stubs_are_noticed(copy_of_protos: Path) -> None:
    shutil.copytree(
        ROOT / "headrace" / "api" / "generated",
        copy_of_protos.parent / "headrace" / "api" / "generated",
    )
    _replace(
        copy_of_protos / "headrace/v1alpha1/jobs.proto",
        "message SubmitJobRequest {",
        "message SubmitJobRequest {\n  string novelty = 99;",
    )
    checked = subprocess.run(
        [sys.executable, str(copy_of_protos / "generate.py"), "--check"],
        capture_output=True,
        check=False,
        text=True,
    )
    assert checked.returncode == 1
    assert "jobs_pb2" in checked.stderr


def test_protos_follow_the_rules_of_buf() -> None:
    linted = _buf("lint")
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_protos_break_nobody_who_speaks_0_1_0() -> None:
    compared = _buf("breaking", "--against", str(RELEASED))
    assert compared.returncode == 0, compared.stdout + compared.stderr


def test_a_field_that_changes_its_type_is_noticed(copy_of_protos: Path) -> None:
    proto = copy_of_protos / "headrace/v1alpha1/jobs.proto"
    _replace(proto, "string uid = 1;", "int64 uid = 1;")
    compared = _buf("breaking", "--against", str(RELEASED), protos=copy_of_protos)
    assert compared.returncode == 100, compared.stdout + compared.stderr


def test_a_bad_name_is_noticed(copy_of_protos: Path) -> None:
    proto = copy_of_protos / "headrace/v1alpha1/jobs.proto"
    _replace(
        proto, "message SubmitJobRequest {", "message SubmitJobRequest {\n  string badName = 99;"
    )
    assert _buf("lint", protos=copy_of_protos).returncode == 100
