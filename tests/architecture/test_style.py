"""House rules that no linter knows, each shown able to fail."""

import ast
import re
from collections.abc import Iterator

import pytest

from tests.architecture.source_tree import (
    PACKAGES,
    PURE,
    ROOT,
    definitions,
    dotted_uses,
    python_files,
    repository_files,
    tree_of,
)

LINES_A_FUNCTION = 70
LINES_A_FILE = 600

# Names that say nothing about what is inside.
EMPTY_WORDS = {"helper", "helpers", "manager", "managers", "misc", "util", "utils"}
EMPTY_MODULES = EMPTY_WORDS | {"common", "data"}

# What makes the same inputs give another answer tomorrow, or reaches out of the process.
IMPURE = (
    r"asyncio\.(sleep|create_task|get_event_loop|get_running_loop|run)",
    r"builtins\.(open|print|input|id|hash|eval|exec|__import__)",
    r"datetime\..*(now|utcnow|today)",
    r"numpy\.(random|load.*|save.*|fromfile|memmap|genfromtxt)(\..*)?",
    r"os(\..*)?",
    r"pickle(\..*)?",
    r"random(\..*)?",
    r"secrets(\..*)?",
    r"time(\..*)?",
    r"uuid(\..*)?",
)
# All that deciding may import of others: what computes, and nothing that looks or reaches outside.
# What stands beside it has little more.
FOR_DECIDING = {
    "bisect",
    "collections",
    "copy",
    "dataclasses",
    "enum",
    "functools",
    "hashlib",
    "heapq",
    "json",
    "math",
    "operator",
    "pydantic",
    "types",
    "typing",
}
WITH_ARRAYS = ("controlplane/rubick", "controlplane/baselines")
MAY_IMPORT = {
    tuple(room for room in PURE if room not in WITH_ARRAYS): FOR_DECIDING,
    WITH_ARRAYS: FOR_DECIDING | {"highspy", "numpy", "scipy"},
    ("controlplane/wire",): FOR_DECIDING | {"google", "re"},
    ("headrace/workloads/control.py",): FOR_DECIDING
    | {"os", "pathlib", "signal", "sys", "threading", "time"},
    (
        "simulator/coming.py",
        "simulator/memory_store.py",
        "simulator/physics.py",
        "simulator/policies.py",
        "simulator/run.py",
        "simulator/running.py",
        "simulator/searching.py",
        "simulator/telling.py",
        "simulator/virtual_clock.py",
        "simulator/virtual_cluster.py",
    ): FOR_DECIDING | {"asyncio"},
    # These read files that people write.
    ("simulator/__main__.py", "simulator/scenario.py"): FOR_DECIDING
    | {"argparse", "pathlib", "statistics", "sys", "textwrap"},
    ("simulator/measured_table.py", "simulator/workloads"): FOR_DECIDING
    | {"csv", "datetime", "itertools", "pathlib", "statistics"},
    ("simulator/results", "simulator/report"): FOR_DECIDING
    | {"csv", "itertools", "pathlib", "statistics"},
    ("simulator/snapshots.py", "simulator/what_if"): FOR_DECIDING
    | {"datetime", "pathlib", "statistics", "sys"},
    ("simulator/forecasting",): FOR_DECIDING
    | {"numpy", "os", "pathlib", "statistics", "sys", "time"},
    # These play runs side by side and show how far they are.
    ("simulator/comparing.py", "simulator/progress_bar.py", "simulator/study.py"): FOR_DECIDING
    | {"argparse", "concurrent", "contextlib", "datetime", "multiprocessing", "os", "pathlib"}
    | {"rich", "statistics", "sys", "textwrap", "time"},
}
READS_TIME = (r"time\..+", r"datetime\..*(now|utcnow|today)")
# The simulator is repeatable too, but may write reports and draw from a generator with a seed.
IMPURE_IN_SIMULATOR = (
    r"asyncio\.(?!run$).+",
    r"datetime\..*(now|utcnow|today)",
    r"random\.(?!Random$|Random\.).+",
    r"secrets(\..*)?",
    r"time\.(time|time_ns|sleep)",
    r"uuid\.uuid[14]",
)
# Neither stored data nor the wire may carry what runs code when it is read.
UNSAFE = (r"(marshal|pickle|shelve)(\..*)?", r"builtins\.(eval|exec)", r"yaml\.(load|unsafe_load)")
# A test fakes the type of a port.
NOT_IN_TESTS = (r"unittest\.mock(\..*)?",)


def banned_uses(tree: ast.Module, banned: tuple[str, ...]) -> list[str]:
    """``line: name`` of every use of something whose full name matches ``banned``."""
    patterns = [re.compile(pattern) for pattern in banned]
    return sorted(
        {
            f"{line}: {name}"
            for line, name in dotted_uses(tree)
            if any(pattern.fullmatch(name) for pattern in patterns)
        }
    )


def _banned_in(files: list[str], banned: tuple[str, ...]) -> list[str]:
    assert files
    return [f"{name}:{use}" for name in files for use in banned_uses(tree_of(name), banned)]


def foreign_imports(tree: ast.Module) -> set[str]:
    """Top-level packages of others that are imported, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found - {*PACKAGES, "__future__"}


def long_functions(tree: ast.Module) -> Iterator[str]:
    for name, node in definitions(tree):
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if not isinstance(node, ast.ClassDef) and lines > LINES_A_FUNCTION:
            yield f"{name} has {lines} lines"


def empty_names(path: str, tree: ast.Module) -> Iterator[str]:
    parts = path.removesuffix(".py").split("/")
    for part in parts:
        if set(part.split("_")) & EMPTY_WORDS or part in EMPTY_MODULES:
            yield f"the module name {part!r} says nothing"
    for name, _ in definitions(tree):
        words = re.findall(r"[A-Z]?[a-z]+", name.rpartition(".")[2])
        if {word.lower() for word in words} & EMPTY_WORDS:
            yield f"the name {name!r} says nothing"


def undocumented(tree: ast.Module) -> Iterator[str]:
    """Public modules, classes and functions without a docstring. Methods may fit a port."""
    if not ast.get_docstring(tree):
        yield "the module has no docstring"
    for name, node in definitions(tree):
        is_public = not any(part.startswith("_") for part in name.split("."))
        is_top_level = "." not in name
        if is_public and is_top_level and not ast.get_docstring(node):
            yield f"{name} has no docstring"


def test_deciding_asks_nobody_for_time_chance_or_names() -> None:
    assert _banned_in(python_files(*PURE), IMPURE) == []


@pytest.mark.parametrize("rooms", MAY_IMPORT, ids=lambda rooms: rooms[0])
def test_rooms_import_only_what_they_need(rooms: tuple[str, ...]) -> None:
    files = python_files(*rooms)
    assert files
    found = {name: foreign_imports(tree_of(name)) - MAY_IMPORT[rooms] for name in files}
    assert {name: foreign for name, foreign in found.items() if foreign} == {}


def test_every_file_of_the_simulator_is_in_one_of_those_rooms() -> None:
    named = {file for rooms in MAY_IMPORT for file in python_files(*rooms)}
    assert set(python_files("simulator")) - {"simulator/__init__.py"} <= named


def test_an_import_of_others_is_found_wherever_it_stands() -> None:
    source = "import os.path as p\nfrom urllib import request\ndef f():\n    import ssl, agent.x"
    assert foreign_imports(ast.parse(source)) == {"os", "urllib", "ssl"}


def test_one_file_of_the_control_plane_reads_the_time() -> None:
    files = [f for f in python_files("controlplane") if f != "controlplane/edges/wall_clock.py"]
    assert _banned_in(files, READS_TIME) == []


def test_the_simulator_draws_only_from_its_seed() -> None:
    assert _banned_in(python_files("simulator"), IMPURE_IN_SIMULATOR) == []


def test_nothing_reads_what_could_run_code() -> None:
    assert _banned_in(python_files(*PACKAGES, "protos"), UNSAFE) == []


def naps(tree: ast.Module) -> list[str]:
    """Sleeps that do not stand between two looks at something."""
    looking = {
        line
        for loop in ast.walk(tree)
        if isinstance(loop, ast.While)
        for line in range(loop.lineno, (loop.end_lineno or loop.lineno) + 1)
    }
    slept = banned_uses(tree, (r"time\.sleep",))
    return [use for use in slept if int(use.partition(":")[0]) not in looking]


def test_tests_use_no_mocks() -> None:
    assert _banned_in(python_files("tests"), NOT_IN_TESTS) == []


def test_tests_wait_for_conditions() -> None:
    found = [f"{name}:{nap}" for name in python_files("tests") for nap in naps(tree_of(name))]
    assert found == []


def test_a_nap_is_noticed_and_a_pause_between_two_looks_is_not() -> None:
    assert naps(ast.parse("from time import sleep\nstart()\nsleep(1)\nassert done()"))
    assert not naps(ast.parse("import time\nwhile not done():\n    time.sleep(0.1)"))


@pytest.mark.parametrize(
    ("source", "banned"),
    [
        ("import time\ntime.time()", IMPURE),
        ("from time import monotonic_ns as tick\ntick()", IMPURE),
        ("import datetime as d\nd.datetime.now(d.UTC)", IMPURE),
        ("from datetime import datetime\ndatetime.utcnow()", IMPURE),
        ("import random\nrandom.Random(3)", IMPURE),
        ("from uuid import uuid4\nuuid4()", IMPURE),
        ("import os\nos.environ['A']", IMPURE),
        ("print('here')", IMPURE),
        ("def f(x): return open(x)", IMPURE),
        ("sorted(jobs, key=hash)", IMPURE),
        ("from time import time_ns\ntime_ns()", READS_TIME),
        ("import random\nrandom.shuffle([1])", IMPURE_IN_SIMULATOR),
        ("import random\nf = random.random", IMPURE_IN_SIMULATOR),
        ("from asyncio import subprocess as s\ns.Process", IMPURE_IN_SIMULATOR),
        ("import asyncio\nasyncio.sleep(1)", IMPURE_IN_SIMULATOR),
        ("import time as t\nt.sleep(1)", IMPURE_IN_SIMULATOR),
        ("import pickle", UNSAFE),
        ("import yaml\nyaml.load(x)", UNSAFE),
        ("from unittest import mock", NOT_IN_TESTS),
    ],
)
def test_a_banned_use_is_found_under_any_name(source: str, banned: tuple[str, ...]) -> None:
    assert banned_uses(ast.parse(source), banned)


def test_what_is_allowed_is_not_found() -> None:
    source = "import random\nrandom.Random(seed).choice([1])\nclock.time()\nself.open()"
    assert banned_uses(ast.parse(source), IMPURE_IN_SIMULATOR) == []
    assert banned_uses(ast.parse("clock.time.now()\nself.open()"), IMPURE) == []


def test_functions_fit_on_a_page() -> None:
    found = [f"{name}: {what}" for name in python_files() for what in long_functions(tree_of(name))]
    assert found == []


def test_files_stay_short() -> None:
    lengths = {name: len((ROOT / name).read_text().splitlines()) for name in python_files()}
    assert {name: lines for name, lines in lengths.items() if lines > LINES_A_FILE} == {}


def test_names_say_something() -> None:
    found = [
        f"{name}: {what}" for name in python_files() for what in empty_names(name, tree_of(name))
    ]
    assert found == []


def test_what_is_public_says_what_it_is() -> None:
    files = python_files(*PACKAGES, "protos")
    found = [f"{name}: {what}" for name in files for what in undocumented(tree_of(name))]
    # An empty __init__.py has nothing to tell.
    assert [
        line for line in found if not line.endswith("__init__.py: the module has no docstring")
    ] == []


def test_each_rule_of_form_can_fail() -> None:
    long = ast.parse("def f():\n" + "    x = 1\n" * LINES_A_FUNCTION)
    assert list(long_functions(long)) == ["f has 71 lines"]
    assert list(empty_names("controlplane/job_utils.py", ast.parse("")))
    assert list(empty_names("controlplane/data.py", ast.parse("")))
    assert list(empty_names("a/b.py", ast.parse("class JobManager: ...")))
    assert list(empty_names("a/b.py", ast.parse("class A:\n  def _parse_helper(self): ...")))
    assert len(list(undocumented(ast.parse("def f(): ...\nclass C: ...\ndef _g(): ...")))) == 3


# A folder of somebody's machine, or a host that only one network knows.
MACHINE_PATH = re.compile(r"(?<![\w.<{$*-])/(?:work|root|Users)/[\w.]|(?<![\w.])/home/[a-z]")


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    found = []
    for name in repository_files():
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if MACHINE_PATH.search(line):
                found.append(f"{name}:{number}: {line.strip()[:120]}")
    assert found == []


@pytest.mark.parametrize("place", ["/home/" + "ann/x", "see /work" + "/main", '"/root' + '/.ssh"'])
def test_a_machine_path_is_found(place: str) -> None:
    assert MACHINE_PATH.search(place)
