"""Where the programs come from, and what is said where they are missing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.source_tree import ROOT
from tests.kubernetes import build_binaries, programs
from tests.kubernetes.programs import API_SERVER, FAKE_NODES, MODULES, Module

USES_ALL = """

from tests.kubernetes.fixtures import (
    api_server, fake_gpu_nodes, kubectl, namespace, scheduler, shared_cluster,
)

def test_tier_1(kubectl):
    kubectl("get", "namespaces")

def test_tier_2(fake_gpu_nodes):
    fake_gpu_nodes(1)
"""

FAKE_GO = """#!/bin/sh
case $1 in
version) echo go version go1.99.0 linux/amd64 ;;
list) echo "$MODULE_FOLDER" ;;
build)
  while [ "$1" != -o ]; do shift; done
  echo "${2##*/}" >> "$BUILT"
  echo program > "$2"
  case $2 in */"$BREAKS") echo "x.go:1: undefined: y" >&2; exit 1 ;; esac ;;
esac
"""


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine on which nothing was built and nothing is given; the folder of its cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "no-programs"))
    for name in ("KUBEBUILDER_ASSETS", "HEADRACE_TEST_KUBECONFIG", "HEADRACE_KUBE_REQUIRED"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache" / "headrace" / "kube"


def _put(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("")
    return file


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_each_module_is_pinned_with_checksums(module: Module) -> None:
    sums = (module.folder / "go.sum").read_text(encoding="utf-8")
    assert f"{module.path} {module.version} h1:" in sums
    packages = [*module.packages.values()]
    for package in packages:
        assert package in (module.folder / "go.mod").read_text(encoding="utf-8")


def test_staging_modules_go_with_their_kubernetes() -> None:
    kubernetes = next(module for module in MODULES if module.name == "kubernetes")
    text = (kubernetes.folder / "go.mod").read_text(encoding="utf-8")
    replaced = re.findall(r"^\tk8s\.io/\S+ => k8s\.io/\S+ v0\.(\S+)$", text, re.MULTILINE)
    assert set(replaced) == {kubernetes.version.removeprefix("v1.")}


def test_other_flags_and_sources_have_another_key(tmp_path: Path) -> None:
    etcd = MODULES[0]
    assert etcd.key == MODULES[0].key
    assert etcd.key.startswith(f"etcd-{etcd.version}-")
    linked = Module(etcd.name, etcd.path, etcd.packages, linked=("a.b={version}",))
    assert linked.key != etcd.key


def test_what_was_built_is_found_whatever_go_built_it(bare: Path) -> None:
    assert programs.missing(API_SERVER) == list(API_SERVER)
    etcd = MODULES[0]
    _put(bare / f"{etcd.name}-v0.0.1-0123456789ab-go1.26.8-linux-amd64" / "etcd")
    assert programs.find("etcd") is None, "an older version is not what was asked for"

    built = _put(bare / f"{etcd.key}-go1.99.0-linux-amd64" / "etcd")
    assert programs.program("etcd") == built
    assert programs.missing(API_SERVER) == list(API_SERVER[1:])


def test_given_programs_come_first(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put(bare / f"{MODULES[0].key}-go1.26.8-linux-amd64" / "etcd")
    given = _put(tmp_path / "assets" / "etcd")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(given.parent))
    assert programs.program("etcd") == given
    assert str(given.parent) in programs.how_to_get(["kube-apiserver"])


def test_a_missing_program_names_the_verb_that_builds_it(bare: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no kwok in .*`make kube-binaries` builds"):
        programs.program("kwok")


def test_what_only_a_real_node_wants_is_built_by_another_tier(bare: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no kubelet in .*`make kube-binaries TIER=3`"):
        programs.program("kubelet")


def test_without_go_the_build_says_what_it_wants(
    bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build_binaries, "BESIDE_THE_PATH", str(bare))
    assert build_binaries.main() == 1
    said = capsys.readouterr().err
    assert re.match(r"wanted Go 1\.\d+\S* or newer, on the path or in .*, and found none\. ", said)
    assert "KUBEBUILDER_ASSETS" in said


@pytest.fixture
def fake_go(bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Go that builds at once, on the path; the file with the names of what it was to build."""
    go = _put(tmp_path / "no-programs" / "go")
    go.write_text(FAKE_GO)
    go.chmod(0o755)
    for module in MODULES:
        for text in (text for texts in module.texts.values() for text in texts):
            _put(tmp_path / "module" / text).write_text(f"of: {text}\n")
    monkeypatch.setenv("MODULE_FOLDER", str(tmp_path / "module"))
    monkeypatch.setenv("BUILT", str(tmp_path / "built"))
    monkeypatch.setenv("BREAKS", "kubectl")
    return tmp_path / "built"


@pytest.mark.process
def test_half_a_build_is_never_used_and_the_next_goes_on_there(
    bare: Path, fake_go: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    of_real_nodes = [
        name
        for module in MODULES
        for name in module.packages
        if name in programs.ONLY_FOR_A_REAL_NODE
    ]
    assert sorted(of_real_nodes) == ["coredns", "kube-proxy", "kubelet"]
    order = [name for module in MODULES for name in module.packages if name not in of_real_nodes]
    broken = order.index("kubectl")
    assert build_binaries.main() == 1
    assert "go could not build kubectl:\nx.go:1: undefined: y" in capsys.readouterr().err
    assert fake_go.read_text().split() == order[: broken + 1]
    assert programs.find("kubectl") is None
    assert programs.find(order[0]) is not None

    fake_go.write_text("")
    killed = _put(bare / ".half-of-a-killed-build" / "kubectl").parent
    monkeypatch.setenv("BREAKS", "nothing")
    assert build_binaries.main() == 0
    assert fake_go.read_text().split() == order[broken:]
    assert programs.missing((*API_SERVER, *FAKE_NODES, "helm")) == []
    assert programs.program(programs.STAGES).read_text().count("of: kustomize/stage/") == 5
    assert not killed.exists()

    fake_go.write_text("")
    assert build_binaries.main() == 0
    assert fake_go.read_text() == "", "there was nothing to do"
    assert build_binaries.main(["--tier", "3"]) == 0
    assert fake_go.read_text().split() == of_real_nodes
    assert programs.missing(programs.REAL_NODE) == []


@pytest.mark.process
@pytest.mark.parametrize(("required", "ends"), [("0", "2 skipped"), ("1", "2 errors")])
def test_without_programs_tests_are_skipped_or_fail_as_wanted(
    required: str, ends: str, bare: Path, tmp_path: Path
) -> None:
    (tmp_path / "test_all.py").write_text(USES_ALL, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = {ROOT}\n", encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-rsE", "-p", "no:randomly", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**os.environ, "HEADRACE_KUBE_REQUIRED": required, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        check=False,
        text=True,
    )
    assert ends in ran.stdout.splitlines()[-1], ran.stdout
    for names in (API_SERVER, (*API_SERVER, *FAKE_NODES)):
        assert f"no {', '.join(names)} in {bare}: `make kube-binaries` builds" in ran.stdout
