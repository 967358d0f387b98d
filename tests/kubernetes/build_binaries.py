"""Builds the Kubernetes programs of the tests from pinned Go modules: ``make kube-binaries``.

``--tier 3`` builds those of a real node too, which only `make e2e` wants.

What is built stays in a cache outside the tree, by sources, flags and version of Go. A program
comes into it whole or not at all, and one that is there is not built again, so an interrupted run
goes on where it was.
"""

import argparse
import collections
import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.kubernetes.programs import MODULES, ONLY_FOR_A_REAL_NODE, OPTIONAL, Module, cache

BESIDE_THE_PATH = "/usr/local/go/bin"
"""Where Go's own installer puts it."""

_HALF = ".half-"
_TELL_SECONDS = 30.0
_LAST_LINES = 40
_ALL_COLD = "12 to 22 minutes on 2 cores"


class BuildError(Exception):
    """What stands in the way, for people."""


TIERS = (2, 3)
"""Up to which tier: API server and fake nodes, or a real node as well."""


def build_all(modules: Sequence[Module] = MODULES, tier: int = 2) -> None:
    """Builds what is missing of some modules, for this tier and those below.

    Raises:
        BuildError: If Go is not there, or cannot build something.
    """
    go = _go()
    version = _go_version(go)
    folders = {module.name: cache() / f"{module.key}-{version}" for module in modules}
    with _alone(cache()):
        for half in cache().glob(f"{_HALF}*"):  # of a build that was killed
            shutil.rmtree(half, ignore_errors=True)
        left = [
            (module, name)
            for module in modules
            for name in (*module.packages, *module.texts)
            if not (folders[module.name] / name).is_file()
            and (tier == max(TIERS) or name not in ONLY_FOR_A_REAL_NODE)
        ]
        if left:
            names = ", ".join(name for _, name in left)
            told = f"; all of it cold takes {_ALL_COLD}" if modules is MODULES else ""
            print(f"to build with {version}: {names}{told}", flush=True)
        for module, name in left:
            _make(go, module, name, folders[module.name])
    for folder in folders.values():
        if folder.is_dir():
            print(folder)


def _go() -> str:
    found = shutil.which("go") or shutil.which("go", path=BESIDE_THE_PATH)
    if found:
        return found
    needed = max(
        re.findall(r"^go (\S+)", (module.folder / "go.mod").read_text(), re.MULTILINE)[0]
        for module in MODULES
    )
    raise BuildError(
        f"wanted Go {needed} or newer, on the path or in {BESIDE_THE_PATH}, and found none. "
        "Install it, or name in KUBEBUILDER_ASSETS a folder that has the programs already"
    )


def _go_version(go: str) -> str:
    """Such as ``go1.26.8-linux-amd64``: the one that builds, which go.mod may have chosen."""
    said = _said(go, "version", folder=MODULES[0].folder)
    return "-".join(said.split()[2:4]).replace("/", "-")


def _make(go: str, module: Module, name: str, folder: Path) -> None:
    """Puts one program or text into the cache, whole."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=_HALF, dir=folder.parent) as half:
        made = Path(half) / name
        if name in module.packages:
            _build(go, module, name, made)
        else:
            _said(go, "mod", "download", module.path, folder=module.folder)
            root = Path(
                _said(go, "list", "-m", "-f", "{{.Dir}}", module.path, folder=module.folder)
            )
            parts = [(root / part).read_text(encoding="utf-8") for part in module.texts[name]]
            made.write_text("---\n".join(parts), encoding="utf-8")
        made.replace(folder / name)


def _build(go: str, module: Module, name: str, made: Path) -> None:
    started = told = time.monotonic()
    print(f"{name} {module.version}: building", flush=True)
    # -v names each package when it is compiled; without a word for minutes people would give up.
    command = [go, "build", "-v", *module.flags, "-o", str(made), module.packages[name]]
    last: collections.deque[str] = collections.deque(maxlen=_LAST_LINES)
    packages = 0
    with subprocess.Popen(
        command, cwd=module.folder, env=_environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            last.append(line.rstrip())
            packages += 1
            if time.monotonic() - told > _TELL_SECONDS:
                told = time.monotonic()
                taken = told - started
                print(f"{name}: {packages} packages in {taken:.0f} s", flush=True)
    if process.returncode:
        raise BuildError("\n".join([f"go could not build {name}:", *last]))
    size = made.stat().st_size / 1e6
    print(f"{name}: {size:.0f} MB in {time.monotonic() - started:.0f} s", flush=True)


def _said(go: str, *arguments: str, folder: Path) -> str:
    ended = subprocess.run(
        [go, *arguments],
        cwd=folder,
        env=_environment(),
        capture_output=True,
        check=False,
        text=True,
    )
    if ended.returncode:
        raise BuildError(f"`go {' '.join(arguments)}` failed: {ended.stderr.strip()}")
    return ended.stdout.strip()


def _environment() -> dict[str, str]:
    # Flags of the user's own would make something else of the same key.
    flags = "-mod=readonly -buildvcs=false"
    return {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": flags, "GOWORK": "off"}


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One build at a time: two would take twice the memory and do everything twice."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another build is running; waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main(words: Sequence[str] = ()) -> int:
    """Builds all of a tier, or the options that are named; the exit status."""
    options = {module.name: module for module in OPTIONAL}
    parser = argparse.ArgumentParser(prog="build_binaries", description=__doc__)
    parser.add_argument("--tier", type=int, choices=TIERS, default=min(TIERS))
    parser.add_argument("options", nargs="*", metavar="|".join(options))
    given = parser.parse_args(words)
    if unknown := [name for name in given.options if name not in options]:
        print(f"wanted none, or some of {', '.join(options)}, got {unknown[0]}", file=sys.stderr)
        return 2
    try:
        build_all([options[name] for name in given.options] or MODULES, given.tier)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
