"""How torch's checkpoints lie in a store: the only place that knows more than torch documents.

Checked with torch 2.11 and 2.15: the module of the reader and writer for URLs, what the metadata
says of each tensor's place, and through what the writer opens its files.
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from headrace.workloads.storage import LocalStorage, Storage

_AHEAD = 0
"""Bytes that torch's writer copies from a GPU ahead: there is nothing to copy any more, and for it
the writer would wait for all that training has given the GPU to do, again and again."""


def writer_of(storage: Storage, location: str) -> Any:
    """torch's writer of a checkpoint, which raises what the system raised.

    torch's archive writer hides it behind an error of its own, and who asks the store later whether
    it is full may be told of room that was not there.
    """
    writer: Any
    if isinstance(storage, LocalStorage):
        from torch.distributed.checkpoint import FileSystemWriter

        writer = FileSystemWriter(location, sync_files=True, per_thread_copy_ahead=_AHEAD)
    else:
        # A URL has no fsync.
        fsspec = _fsspec()
        writer = fsspec.FsspecWriter(location, sync_files=False, per_thread_copy_ahead=_AHEAD)
    writer.fs.create_stream = _frank(writer.fs.create_stream)
    return writer


def _frank(
    opened: Callable[[Any, str], AbstractContextManager[Any]],
) -> Callable[[Any, str], AbstractContextManager[Any]]:
    """Opens files as that does; what is raised in writing one is raised again at its end."""

    @contextmanager
    def create_stream(path: Any, mode: str) -> Iterator[Any]:
        with opened(path, mode) as stream:
            writing = _Writing(stream)
            try:
                yield writing
            except RuntimeError as error:
                raise writing.error or error from error

    return create_stream


class _Writing:
    """A stream that remembers why it could not be written.

    Attributes:
        error: What the system raised; None if nothing yet.
    """

    def __init__(self, stream: Any) -> None:
        self.error: OSError | None = None
        self._stream = stream

    def write(self, data: Any) -> Any:
        """As the stream does."""
        try:
            return self._stream.write(data)
        except OSError as error:
            self.error = error
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


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
