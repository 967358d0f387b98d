"""How torch's checkpoints lie in a store: the only place that knows more than torch documents.

Checked with torch 2.11 and 2.15: the module of the reader and writer for URLs, and what the
metadata says of each tensor's place.
"""

import importlib
from collections.abc import Iterator
from typing import Any

from headrace.workloads.storage import LocalStorage, Storage

_AHEAD = 0
"""Bytes that torch's writer copies from a GPU ahead: there is nothing to copy any more, and for it
the writer would wait for all that training has given the GPU to do, again and again."""


def writer_of(storage: Storage, location: str) -> Any:
    """torch's writer of a checkpoint."""
    if isinstance(storage, LocalStorage):
        from torch.distributed.checkpoint import FileSystemWriter

        return FileSystemWriter(location, sync_files=True, per_thread_copy_ahead=_AHEAD)
    # A URL has no fsync.
    return _fsspec().FsspecWriter(location, sync_files=False, per_thread_copy_ahead=_AHEAD)


def reader_of(storage: Storage, location: str) -> Any:
    """torch's reader of a checkpoint."""
    if isinstance(storage, LocalStorage):
        from torch.distributed.checkpoint import FileSystemReader

        return FileSystemReader(location)
    return _fsspec().FsspecReader(location)


def _fsspec() -> Any:
    """torch's reader and writer for URLs, which moved to a public name after torch 2.11."""
    package = "torch.distributed.checkpoint"
    try:
        return importlib.import_module(f"{package}.fsspec_filesystem")
    except ModuleNotFoundError:
        return importlib.import_module(f"{package}._fsspec_filesystem")


def extents(metadata: Any) -> Iterator[tuple[str, int, int]]:
    """File, first byte and number of bytes of each tensor's piece in a checkpoint."""
    for item in metadata.storage_data.values():
        yield item.relative_path, item.offset, item.length
