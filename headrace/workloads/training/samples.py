"""Data that is there on every machine: Python's own sources, scikit-learn's digits, text files,
and chance.

Each source is a sequence of samples by index, with a fingerprint: sources differ between versions
of Python, and ranks that see different data must not train together. A sample is a function of
source, index and seed alone. What a family is given to learn from it is this module's choice.
"""

import gzip
import hashlib
import importlib.util
import os
import sysconfig
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from headrace.api.models import Family, ModelShape
from headrace.workloads.refusal import CANNOT_BE_TRAINED, START_REFUSED, WorkloadError
from headrace.workloads.training.batches import Batch
from headrace.workloads.training.families.whole import NOT_COUNTED

STDLIB = "python-stdlib"
DIGITS = "digits"
RANDOM = "random"
RANDOM_COUNT = 1 << 16
"""Samples of a random source, of any shape; for measurements at full size."""

DIGIT_SIDE = 8
DIGIT_CLASSES = 10
BYTES = 256
SPECIAL = 256
"""The token behind all bytes: it stands for a masked one, and a decoder starts with it."""

MASKED_SHARE = 0.15
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

    def batch(self, indices: Tensor) -> tuple[Batch, Batch]:
        """Inputs and targets of these samples, in this order."""
        ...


class Windows(Protocol):
    """Runs of tokens, all of one length, by index."""

    count: int
    fingerprint: str

    def of(self, indices: Tensor) -> Tensor:
        """Tokens (batch, length)."""
        ...


class TextWindows:
    """Windows of bytes; one byte is one token.

    Args:
        content: The text.
        length: Bytes of a window.
        stride: Bytes from the start of one to the start of the next.
    """

    def __init__(self, content: bytearray, length: int, stride: int) -> None:
        self.fingerprint = hashlib.sha256(content).hexdigest()[:16]
        self.count = (len(content) - length) // stride + 1
        if self.count < 1:
            raise _refused(
                f"wanted {length} bytes of text or more, got {len(content)}; use a shorter "
                "sequenceLength or more text"
            )
        self._bytes = torch.frombuffer(content, dtype=torch.uint8)
        self._stride = stride
        self._window = torch.arange(length)

    def of(self, indices: Tensor) -> Tensor:
        return self._bytes[indices[:, None] * self._stride + self._window].long()


class RandomWindows:
    """Tokens of which none says anything about another."""

    def __init__(self, shape: ModelShape, length: int, seed: int) -> None:
        self.count = RANDOM_COUNT
        self.fingerprint = _random_fingerprint(shape, seed)
        self._vocabulary, self._length, self._seed = shape.vocabulary, length, seed

    def of(self, indices: Tensor) -> Tensor:
        return torch.stack(
            [
                torch.randint(self._vocabulary, (self._length,), generator=chance)
                for chance in _chances(self._seed, "tokens", indices)
            ]
        )


class NextTokens:
    """The target is the token that follows."""

    def __init__(self, windows: Windows) -> None:
        self.count, self.fingerprint = windows.count, windows.fingerprint
        self._windows = windows

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        window = self._windows.of(indices)
        return window[:, :-1], window[:, 1:]


class MaskedTokens:
    """Some tokens are masked, the same ones whenever the sample comes; they are the targets."""

    def __init__(self, windows: Windows, seed: int) -> None:
        self.count, self.fingerprint = windows.count, windows.fingerprint
        self._windows, self._seed = windows, seed

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        window = self._windows.of(indices)
        length = window.shape[1]
        masked = max(1, round(MASKED_SHARE * length))
        places = torch.stack(
            [
                torch.randperm(length, generator=chance)[:masked]
                for chance in _chances(self._seed, "mask", indices)
            ]
        )
        targets = torch.full_like(window, NOT_COUNTED)
        targets.scatter_(1, places, window.gather(1, places))
        return window.scatter(1, places, SPECIAL), targets


class SecondHalves:
    """The encoder reads the first half of a window, the decoder predicts the second."""

    def __init__(self, windows: Windows) -> None:
        self.count, self.fingerprint = windows.count, windows.fingerprint
        self._windows = windows

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        first, second = self._windows.of(indices).chunk(2, dim=1)
        shifted = second.roll(1, dims=1)
        shifted[:, 0] = SPECIAL
        return torch.stack((first, shifted), dim=1), second


class RandomImages:
    """Images of noise with labels by chance.

    An image is a window of one long noise: drawing every pixel anew would take longer than the
    training step that is to be measured.
    """

    def __init__(self, shape: ModelShape, seed: int) -> None:
        self.count = RANDOM_COUNT
        self.fingerprint = _random_fingerprint(shape, seed)
        self._size = (shape.channels, shape.image_size, shape.image_size)
        self._pixels = shape.channels * shape.image_size**2
        self._classes, self._seed = shape.vocabulary, seed
        noise = next(_chances(seed, "noise", torch.zeros(1)))
        self._noise = torch.rand(2 * self._pixels, generator=noise)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        images, labels = [], []
        for chance in _chances(self._seed, "image", indices):
            start = int(torch.randint(self._pixels, (), generator=chance))
            images.append(self._noise[start : start + self._pixels].view(self._size))
            labels.append(torch.randint(self._classes, (), generator=chance))
        return torch.stack(images), torch.stack(labels)


class Digits:
    """1,797 handwritten digits of 8x8 pixels, every fifth of them held out."""

    def __init__(self) -> None:
        content = gzip.decompress(_digits_file().read_bytes())
        self.fingerprint = hashlib.sha256(content).hexdigest()[:16]
        rows = [[float(cell) for cell in line.split(b",")] for line in content.split()]
        table = torch.tensor(rows)
        images = table[:, :-1].view(-1, 1, DIGIT_SIDE, DIGIT_SIDE) / _DIGIT_MAX
        labels = table[:, -1].long()
        held_out = torch.arange(len(table)) % _HELD_OUT_EVERY == 0
        self._images, self._labels = images[~held_out], labels[~held_out]
        self.held_out = images[held_out], labels[held_out]
        self.count = len(self._images)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self._images[indices], self._labels[indices]


def open_samples(source: str, shape: ModelShape, seed: int) -> Samples:
    """The data that a manifest names, as the model's family learns from it.

    Args:
        source: ``python-stdlib``, ``digits``, ``random``, or a path of text.
        shape: The model.
        seed: The job's; it decides what is masked and what chance gives.

    Raises:
        WorkloadError: It is not on this node, or nothing that this model can learn from.
    """
    if shape.family is Family.VIT:
        return _images(source, shape, seed)
    length = shape.sequence_length
    if shape.family in (Family.BERT, Family.ROBERTA):
        return MaskedTokens(_windows(source, shape, seed, length, length), seed)
    if shape.family is Family.T5:
        return SecondHalves(_windows(source, shape, seed, 2 * length, 2 * length))
    return NextTokens(_windows(source, shape, seed, length + 1, length))


def _images(source: str, shape: ModelShape, seed: int) -> Samples:
    if source == RANDOM:
        return RandomImages(shape, seed)
    if source != DIGITS:
        raise _refused(f"wanted {DIGITS} or {RANDOM} for {shape.family}, got {source}")
    size = (shape.channels, shape.image_size)
    if size != (1, DIGIT_SIDE) or shape.vocabulary < DIGIT_CLASSES:
        raise _refused(
            f"{DIGITS}: wanted a {shape.family} for {DIGIT_CLASSES} classes of {DIGIT_SIDE}-pixel "
            f"images of 1 channel, got one for {shape.vocabulary} classes of "
            f"{shape.image_size}-pixel images of {shape.channels}"
        )
    return Digits()


def _windows(source: str, shape: ModelShape, seed: int, length: int, stride: int) -> Windows:
    is_special_used = shape.family not in (Family.GPT2, Family.LLAMA)
    least = SPECIAL + 1 if is_special_used else BYTES
    if shape.vocabulary < least and (is_special_used or source != RANDOM):
        raise _refused(
            f"{source}: wanted a {shape.family} with a vocabulary of {least} or more, got "
            f"{shape.vocabulary}"
        )
    if source == RANDOM:
        return RandomWindows(shape, length, seed)
    if source == DIGITS:
        raise _refused(
            f"wanted text or {RANDOM} for {shape.family}, got {DIGITS}, which are images"
        )
    return TextWindows(_text(source), length, stride)


def _text(source: str) -> bytearray:
    if source == STDLIB:
        return _joined(_stdlib_files())
    path = Path(source).expanduser()
    if not path.exists():
        raise _missing(
            f"wanted {STDLIB}, {DIGITS}, {RANDOM}, or a path of text that is on every node; there "
            f"is no {path} on this one"
        )
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return _joined(iter(files))


def _chances(seed: int, purpose: str, indices: Tensor) -> Iterator[torch.Generator]:
    """A stream of chance for each sample."""
    for index in indices.tolist():
        # The generator looks at 32 bits of its seed, so all is hashed to that.
        stream = zlib.crc32(f"{seed}/{purpose}/{index}".encode())
        yield torch.Generator().manual_seed(stream)


def _random_fingerprint(shape: ModelShape, seed: int) -> str:
    """Of what a random sample depends on."""
    sizes = (shape.vocabulary, shape.sequence_length, shape.image_size, shape.channels)
    return hashlib.sha256(f"{RANDOM}/{sizes}/{seed}".encode()).hexdigest()[:16]


def _refused(message: str) -> WorkloadError:
    return WorkloadError(CANNOT_BE_TRAINED, message)


def _missing(message: str) -> WorkloadError:
    """On this node."""
    return WorkloadError(START_REFUSED, message)


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
        raise _missing(
            f"this Python carries no sources of its library in {root}; use text files of your own"
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
    raise _missing(
        "the digits come with scikit-learn, which is not installed here: install "
        "headrace[workloads] on every node"
    )
