"""Data that is there on every machine: Python's own sources, scikit-learn's digits, text files.

Each source is a sequence of samples by index, with a fingerprint: sources differ between versions
of Python, and ranks that see different data must not train together.
"""

import gzip
import hashlib
import importlib.util
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from headrace.workloads.refusal import START_REFUSED, WorkloadError

STDLIB = "python-stdlib"
DIGITS = "digits"
DIGIT_SIDE = 8
DIGIT_CLASSES = 10
_DIGIT_MAX = 16.0
_HELD_OUT_EVERY = 5
_SKIPPED_FOLDERS = {
    "__pycache__",
    "dist-packages",
    "site-packages",
    "idlelib",
    "lib-dynload",
    "test",
    "tests",
}


class Samples(Protocol):
    """Samples by index."""

    count: int
    fingerprint: str

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets of these samples, in this order."""
        ...


class Text:
    """Windows of bytes; the target is the byte that follows."""

    def __init__(self, content: bytearray, sequence_length: int) -> None:
        self.fingerprint = hashlib.sha256(content).hexdigest()[:16]
        self.count = (len(content) - 1) // sequence_length
        if self.count < 1:
            raise WorkloadError(
                START_REFUSED,
                f"wanted more than {sequence_length} bytes of text, got {len(content)}; use a "
                "shorter sequenceLength or more text",
            )
        self._bytes = torch.frombuffer(content, dtype=torch.uint8)
        self._length = sequence_length
        self._window = torch.arange(sequence_length + 1)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        window = self._bytes[indices[:, None] * self._length + self._window].long()
        return window[:, :-1], window[:, 1:]


class Digits:
    """1,797 handwritten digits of 8x8 pixels, every fifth of them held out."""

    def __init__(self) -> None:
        content = gzip.decompress(_digits_file().read_bytes())
        self.fingerprint = hashlib.sha256(content).hexdigest()[:16]
        rows = [[float(cell) for cell in line.split(b",")] for line in content.split()]
        table = torch.tensor(rows)
        images = table[:, :-1].view(-1, DIGIT_SIDE, DIGIT_SIDE) / _DIGIT_MAX
        labels = table[:, -1].long()
        held_out = torch.arange(len(table)) % _HELD_OUT_EVERY == 0
        self._images, self._labels = images[~held_out], labels[~held_out]
        self.held_out = images[held_out], labels[held_out]
        self.count = len(self._images)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self._images[indices], self._labels[indices]


def open_samples(source: str, sequence_length: int) -> Samples:
    """The data that a manifest names.

    Raises:
        WorkloadError: It is not on this node.
    """
    if source == DIGITS:
        return Digits()
    if source == STDLIB:
        return Text(_joined(_stdlib_files()), sequence_length)
    path = Path(source).expanduser()
    if not path.exists():
        raise WorkloadError(
            START_REFUSED,
            f"wanted {STDLIB}, {DIGITS}, or a path of text that is on every node; there is no "
            f"{path} on this one",
        )
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return Text(_joined(iter(files)), sequence_length)


def _stdlib_files() -> Iterator[Path]:
    root = Path(sysconfig.get_paths()["stdlib"])
    found = []
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if name not in _SKIPPED_FOLDERS]
        for name in names:
            # What the build or a distribution writes differs between machines of one version.
            if name.endswith(".py") and not name.startswith(("_sysconfigdata", "sitecustomize")):
                file = Path(folder, name)
                found.append((file.relative_to(root).as_posix(), file))
    if not found:
        raise WorkloadError(
            START_REFUSED,
            f"this Python carries no sources of its library in {root}; use text files of your own",
        )
    return (file for _, file in sorted(found))


def _joined(files: Iterator[Path]) -> bytearray:
    content = bytearray()
    for file in files:
        content += file.read_bytes()
    return content


def _digits_file() -> Path:
    """The table inside scikit-learn, found without importing it, which would take seconds."""
    found = importlib.util.find_spec("sklearn")
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.exists():
            return file
    raise WorkloadError(
        START_REFUSED,
        "the digits come with scikit-learn, which is not installed here: install "
        "headrace[workloads] on every node",
    )
