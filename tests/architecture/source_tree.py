"""Where the sources are, for the tests that read them."""

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("agent", "controlplane", "headrace", "operators", "simulator")
PURE = (
    "controlplane/domain",
    "controlplane/engine",
    "controlplane/baselines",
    "controlplane/placing",
    "controlplane/rubick",
    "agent/desired.py",
)
GENERATED = "headrace/api/generated/"


@cache
def repository_files() -> tuple[str, ...]:
    """Paths of everything that is, or would be, checked in; relative to the root."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
    )
    if listed.returncode == 0:
        names = listed.stdout.split("\0")
    else:  # an unpacked archive has no git
        names = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*")]
        names = [name for name in names if not name.startswith((".venv", ".git/", "out/", "."))]
    return tuple(sorted(name for name in names if name and (ROOT / name).is_file()))


def python_files(*under: str) -> list[str]:
    """Hand-written Python files below the given folders (or those files themselves)."""
    folders = under or (*PACKAGES, "protos", "tests", "benchmarks", "examples")
    return [
        name
        for name in repository_files()
        if name.endswith(".py")
        and not name.startswith(GENERATED)
        and any(name == folder or name.startswith(f"{folder}/") for folder in folders)
    ]


@cache
def tree_of(name: str) -> ast.Module:
    """The parsed file."""
    return ast.parse((ROOT / name).read_text(encoding="utf-8"), name)


def definitions(
    tree: ast.AST, within: str = ""
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]]:
    """Every class and function with its dotted name, also nested ones."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{within}.{node.name}" if within else node.name
            yield name, node
            yield from definitions(node, name)
        else:
            yield from definitions(node, within)


def dotted_uses(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every use of something imported, as (line, full dotted name), however it was renamed."""
    origin: dict[str, str] = {}
    for node in ast.walk(tree):
        for here, there in _imported(node):
            origin[here] = there
            yield getattr(node, "lineno", 0), there
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
            dotted = _dotted(node, origin)
            if dotted:
                yield node.lineno, dotted


def _imported(node: ast.AST) -> Iterator[tuple[str, str]]:
    """(name here, full name) of what an import statement brings in."""
    if isinstance(node, ast.Import):
        for name in node.names:
            top = name.name.partition(".")[0]
            yield (name.asname, name.name) if name.asname else (top, top)
    elif isinstance(node, ast.ImportFrom):
        for name in node.names:
            yield name.asname or name.name, f"{node.module}.{name.name}"


def _dotted(node: ast.expr, origin: dict[str, str]) -> str:
    if isinstance(node, ast.Name):
        # A builtin such as open() is nobody's import.
        return origin.get(node.id, f"builtins.{node.id}")
    if isinstance(node, ast.Attribute):
        base = _dotted(node.value, origin)
        return f"{base}.{node.attr}" if base else ""
    return ""
