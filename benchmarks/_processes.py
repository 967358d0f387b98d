"""Processes that the benchmarks start, and what they say of them."""

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
_STOP_SECONDS = 30


@dataclass(frozen=True)
class Child:
    """A server in a process of its own that has said where it listens."""

    process: psutil.Popen
    told: dict[str, Any]

    @property
    def address(self) -> str:
        """Host and port of its gRPC server."""
        return str(self.told.get("grpc") or self.told["address"])

    def cpu_seconds(self) -> float:
        """Time on a core so far, of all its threads."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def resident_mb(self) -> float:
        """Its memory now, in units of 10^6 bytes."""
        return float(self.process.memory_info().rss) / 1e6


def start(arguments: Sequence[str], **environment: str) -> psutil.Popen:
    """A Python process in the repository's root; its standard output is ours to read."""
    return psutil.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


def end(process: psutil.Popen) -> None:
    """Asks it to end, and waits."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


@contextmanager
def serving(*arguments: str, **environment: str) -> Iterator[Child]:
    """A server that writes a line of JSON when it is ready."""
    process = start(arguments, **environment)
    try:
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(arguments)} ended with {process.wait()} before it served")
        yield Child(process, json.loads(line))
    finally:
        end(process)


@contextmanager
def control_plane(folder: Path, *flags: str) -> Iterator[Child]:
    """The real control plane on a SQLite file in ``folder``, nothing changed but its ports."""
    with serving(
        "-m",
        "controlplane",
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--metrics-listen",
        "127.0.0.1:0",
        "--database-url",
        f"sqlite:///{folder / 'headrace.db'}",
        *flags,
    ) as child:
        yield child


@contextmanager
def a_folder() -> Iterator[Path]:
    """A folder on a real disk: where ``TMPDIR`` says, else where temporary files go."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        yield Path(folder)


def machine() -> str:
    """The machine and what else it does, for a figure that shall be understood later."""
    load = " ".join(f"{each:.1f}" for each in os.getloadavg())
    return (
        f"{psutil.cpu_count()} cores, {psutil.virtual_memory().total / 1e9:.0f} GB, "
        f"Python {platform.python_version()}, load {load} (1, 5, 15 min)"
    )
