"""What the documents point to exists: links, files, and the tests that prove a contract."""

import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from controlplane.domain.clock import SECOND
from controlplane.domain.policy import PolicySettings
from controlplane.edges.store.pruning import Retention
from tests.architecture.source_tree import ROOT, definitions, repository_files, tree_of

LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
NAMED_FILE = re.compile(r"`([\w.{},*/-]+\.(?:py|md|proto|toml|yaml|yml|lock))`")
NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
NAMED_VERB = re.compile(r"(?:`|^)make ([a-z][a-z0-9-]*)", re.MULTILINE)
SETTING = re.compile(r"([\d,]+)(?: (s|days))?[^`(\d]*\(`(\w+_(?:seconds|kept))`\)")
KEPT = re.compile(r"([\d,]+)(?: days)? \(`Retention\.(\w+)`\)")
MAKE_TARGET = re.compile(r"^([a-z][a-z0-9-]*):.*## ", re.MULTILINE)


def _documents() -> list[str]:
    return [name for name in repository_files() if name.endswith(".md")]


def _anchor(heading: str) -> str:
    """As GitHub makes it."""
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return kept.replace(" ", "-")


def broken_links(document: Path) -> list[str]:
    """Links to files and headings that are not there; the web is not asked."""
    broken = []
    for target in LINK.findall(_without_code(document.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        if not file.exists() or (anchor and anchor not in _anchors(file)):
            broken.append(target)
    return broken


def _anchors(file: Path) -> set[str]:
    text = file.read_text(encoding="utf-8")
    return {_anchor(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


def _without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def missing_files(text: str) -> list[str]:
    """Files named with a folder, from the root of the repository, that are not there."""
    named = {name for name in NAMED_FILE.findall(text) if "/" in name}
    return sorted(
        name for name in named if not any(c in name for c in "*{") and not (ROOT / name).exists()
    )


def missing_tests(text: str) -> list[str]:
    """Tests named as ``path::function`` that are not there."""
    missing = []
    for path, function in NAMED_TEST.findall(text):
        found = (ROOT / path).exists() and any(
            name.rpartition(".")[2] == function for name, _ in definitions(tree_of(path))
        )
        if not found:
            missing.append(f"{path}::{function}")
    return missing


def test_links_resolve() -> None:
    documents = _documents()
    assert "README.md" in documents
    assert {name: bad for name in documents if (bad := broken_links(ROOT / name))} == {}


def test_files_named_in_documents_exist() -> None:
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in _documents()}
    assert {name: bad for name, text in texts.items() if (bad := missing_files(text))} == {}


def test_every_contract_names_a_test() -> None:
    text = (ROOT / "docs" / "contracts.md").read_text(encoding="utf-8")
    contracts = text.split("\n## ")[1:]
    assert contracts
    assert [part.splitlines()[0] for part in contracts if not NAMED_TEST.search(part)] == []


def test_tests_named_in_documents_exist() -> None:
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in _documents()}
    assert {name: bad for name, text in texts.items() if (bad := missing_tests(text))} == {}


def test_times_in_documents_are_the_defaults() -> None:
    for document, least in (("failures.md", 4), ("disk.md", 2)):
        text = (ROOT / "docs" / "operations" / document).read_text(encoding="utf-8")
        told = {
            name: float(number.replace(",", "")) * (24 * 3600 if unit == "days" else 1)
            for number, unit, name in SETTING.findall(text)
        }
        assert len(told) >= least
        assert told == {name: getattr(PolicySettings(), name) for name in told}


def test_what_is_kept_by_the_documents_is_the_default() -> None:
    text = (ROOT / "docs" / "operations" / "disk.md").read_text(encoding="utf-8")
    told = {name: int(number.replace(",", "")) for number, name in KEPT.findall(text)}
    kept = asdict(Retention())
    kept["age"] //= 24 * 3600 * SECOND
    assert told == kept


def test_verbs_named_in_documents_are_in_the_makefile() -> None:
    verbs = set(MAKE_TARGET.findall((ROOT / "Makefile").read_text(encoding="utf-8")))
    assert {"demo", "test", "lint"} <= verbs
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in _documents()]
    named = {verb for text in texts for verb in NAMED_VERB.findall(text)}
    assert named - verbs == set()


def test_the_references_are_current(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "headrace.cli.reference", str(tmp_path)], cwd=ROOT, check=True
    )
    for name in ("cli.md", "manifest.md"):
        written = (ROOT / "docs" / name).read_text(encoding="utf-8")
        assert written == (tmp_path / name).read_text(encoding="utf-8"), "run `make docs`"


def test_a_broken_link_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A: b\n[x](#a-b) [y](gone.md) [z](page.md#c) [w](https://example.org)")
    assert broken_links(page) == ["gone.md", "page.md#c"]


@pytest.mark.parametrize("text", ["`controlplane/engine/lost.py`", "`docs/none.md`"])
def test_a_missing_file_is_noticed(text: str) -> None:
    assert missing_files(text)


def test_a_missing_test_is_noticed() -> None:
    here = "tests/architecture/test_documents.py"
    assert missing_tests(f"`{here}::test_links_resolve`") == []
    assert missing_tests(f"`{here}::test_of_nothing` `tests/none.py::test_x`") == [
        f"{here}::test_of_nothing",
        "tests/none.py::test_x",
    ]
