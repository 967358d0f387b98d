"""Container files: what they install is what the process needs, and they ask for no rights.

No container is built here: the install command of each file is carried out as it stands, in an
environment of the test's own, and the programs are imported there.
"""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.architecture.source_tree import ROOT

IMAGES = ROOT / "deploy" / "images"
PROGRAMS = {
    "control-plane": ("controlplane.main", "headrace.cli.main"),
    "operator": ("operators.main", "operators.certificates.command"),
    "agent": ("agent.main",),
}
HEAVY = ("torch", "ray", "transformers")
UV = shutil.which("uv") or str(ROOT / ".uv" / "bin" / "uv")


def instructions(image: str) -> list[tuple[str, str]]:
    text = (IMAGES / f"{image}.Containerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def installs(image: str) -> list[list[str]]:
    """The commands that install packages, the last one with our own."""
    found = [shlex.split(what) for word, what in instructions(image) if word == "RUN"]
    return [command for command in found if command[:2] == ["uv", "sync"]]


@pytest.mark.parametrize("image", PROGRAMS)
def test_an_image_is_built_of_what_is_locked_and_runs_as_nobody(image: str) -> None:
    told = instructions(image)
    for command in installs(image):
        assert {"--frozen", "--no-dev"} <= set(command)
    assert len(installs(image)) == 2
    [user] = [what for word, what in told if word == "USER"]
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user), "kubelets prove by number that it is not root"
    bases = [what.split()[0] for word, what in told if word == "FROM"]
    assert all(base.startswith("${") for base in bases), "who builds may choose where from"
    for word, what in told:
        if word == "COPY" and not what.startswith("--from"):
            for source in what.split()[:-1]:
                assert (ROOT / source).exists(), source
    assert ("ENTRYPOINT", '["python", "-m"]') in told


def test_every_image_of_the_chart_has_a_file() -> None:
    values = (ROOT / "deploy/helm/headrace/values.yaml").read_text(encoding="utf-8")
    named = re.findall(r"repository: headrace/(\S+)", values)
    files = {file.name.removesuffix(".Containerfile") for file in IMAGES.glob("*.Containerfile")}
    assert sorted(named) == sorted(files) == sorted(PROGRAMS)


@pytest.mark.parametrize("image", ["control-plane", "operator"])
def test_without_torch_and_ray_the_programs_can_be_imported(image: str, tmp_path: Path) -> None:
    # Our own packages are imported from here: building wheels of them takes much longer.
    first = installs(image)[0]
    assert "--no-install-workspace" in first
    environment = tmp_path / "venv"
    _run([UV, *first[1:], "--quiet"], UV_PROJECT_ENVIRONMENT=str(environment))
    checked = (
        "import importlib, importlib.util as u;"
        f"[importlib.import_module(m) for m in {PROGRAMS[image]!r}];"
        f"print([m for m in {HEAVY!r} if u.find_spec(m)])"
    )
    said = _run([str(environment / "bin" / "python"), "-c", checked], PYTHONPATH=str(ROOT))
    assert said.strip() == "[]"


def _run(command: list[str], **variables: str) -> str:
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
