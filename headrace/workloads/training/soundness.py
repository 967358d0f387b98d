"""Whether the bytes of a checkpoint are still those that were written.

torch writes a CRC-32 beside every tensor and does not look at it when it reads (its zip reader is
built without the check), so a flipped bit would become a weight. So we look, before any GPU is
touched: every rank a share, which also brings the files near. Checked with torch 2.11 and 2.15.
"""

import hashlib
import io
import zipfile
from typing import IO, Any

from headrace.workloads.checkpoints import METADATA, Found
from headrace.workloads.refusal import (
    CHECKPOINT_FAILED,
    STORE_FAILED,
    WorkloadError,
    store_failure,
)
from headrace.workloads.storage import Storage
from headrace.workloads.training.stored_form import extents, reader_of


def damage(storage: Storage, location: str, found: Found | None, *, rank: int, ranks: int) -> str:
    """What is wrong with this rank's share of a checkpoint; empty if nothing is.

    Args:
        storage: Where it lies.
        location: Its tensors there.
        found: The checkpoint with its marker; None on ranks other than 0.
        rank: This rank.
        ranks: How many share the work.

    Raises:
        WorkloadError: The store failed, so nobody knows.
    """
    try:
        if found is not None and found.marker.metadata_sha256:
            with storage.opened(f"{location}/{METADATA}") as file:
                digest = hashlib.sha256(file.read()).hexdigest()
            if digest != found.marker.metadata_sha256:
                return f"{METADATA} is not what was written"
        items = sorted(extents(reader_of(storage, location).read_metadata()))
        for path, offset, length in items[rank::ranks]:
            with storage.opened(f"{location}/{path}") as file:
                broken = _broken(file, offset, length)
            if broken:
                return f"{path} has other bytes at {offset} to {offset + length}: {broken}"
    except Exception as error:  # whatever damaged bytes make of zip, pickle and file system
        told = f"{type(error).__name__}: {str(error).strip()[:300]}"
        if failure := store_failure(error):
            raise WorkloadError(
                CHECKPOINT_FAILED,
                f"the checkpoint {location} cannot be checked: {failure}; {STORE_FAILED}",
            ) from error
        return told
    return ""


def _broken(file: IO[bytes], offset: int, length: int) -> str:
    """Which part of an archive within a file does not match its checksum; empty for none."""
    with zipfile.ZipFile(io.BufferedReader(_Window(file, offset, length), 1 << 20)) as archive:
        return archive.testzip() or ""


class _Window(io.RawIOBase):
    """A part of a file, as a file."""

    def __init__(self, file: IO[bytes], offset: int, length: int) -> None:
        self._file = file
        self._offset = offset
        self._length = length
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, to: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        self._at = max(0, base + to)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        size = max(0, min(len(buffer), self._length - self._at))
        self._file.seek(self._offset + self._at)
        content = self._file.read(size)
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)
