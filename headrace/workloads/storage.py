"""Where checkpoints lie: a local (shared) directory, or anything that fsspec has a URL for.

Only what the checkpoint layout needs: small files whole and atomic, listings with sizes, and
removal. The tensors themselves are written by torch, which is given ``location``.
"""

import os
import posixpath
import shutil
from pathlib import Path
from typing import IO, Any, Protocol

from headrace.workloads.refusal import (
    CANNOT_BE_TRAINED,
    START_REFUSED,
    WorkloadError,
)


class Storage(Protocol):
    """A folder that all ranks see."""

    name: str
    """What people call it: the path or URL, without credentials."""

    def location(self, path: str) -> str:
        """What torch's readers and writers are given for ``path``."""
        ...

    def read(self, path: str) -> bytes | None:
        """The whole file; None where there is none."""
        ...

    def write(self, path: str, content: bytes) -> None:
        """Put the file there whole: after a crash it is the old one or the new one."""
        ...

    def sync(self, path: str) -> None:
        """Have the names in a folder, its own and those above it outlast a loss of power."""
        ...

    def names(self, path: str) -> list[str]:
        """Names directly in a folder, sorted; empty where there is none."""
        ...

    def opened(self, location: str) -> IO[bytes]:
        """A file for reading, by its location."""
        ...

    def move(self, path: str, target: str) -> None:
        """Give a folder another name."""
        ...

    def sizes_bytes(self, path: str) -> dict[str, int]:
        """Size of each file in a folder and below it, by its path relative to the folder."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all that is in it; what is not there is gone already."""
        ...


class LocalStorage:
    """A directory of the node; shared between nodes by whoever mounts it."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self.name = str(self._root)

    def location(self, path: str) -> str:
        return str(self._root / path)

    def read(self, path: str) -> bytes | None:
        try:
            return (self._root / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, path: str, content: bytes) -> None:
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            with draft.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
        # Without this the rename itself may be lost with the power.
        self.sync(path.rpartition("/")[0])

    def sync(self, path: str) -> None:
        folder = self._root / path
        while True:
            opened = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(opened)
            finally:
                os.close(opened)
            if folder == self._root:
                return
            folder = folder.parent

    def names(self, path: str) -> list[str]:
        try:
            return sorted(entry.name for entry in (self._root / path).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def opened(self, location: str) -> IO[bytes]:
        return Path(location).open("rb")

    def move(self, path: str, target: str) -> None:
        (self._root / path).rename(self._root / target)

    def sizes_bytes(self, path: str) -> dict[str, int]:
        folder = self._root / path
        return {
            file.relative_to(folder).as_posix(): file.stat().st_size
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        }

    def remove(self, path: str) -> None:
        target = self._root / path
        try:
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink()
        except FileNotFoundError:
            pass


class UrlStorage:
    """A store behind a URL. Object stores put a file whole, so writing is atomic there."""

    def __init__(self, url: str) -> None:
        """Find what opens it.

        Raises:
            WorkloadError: Nothing here does.
        """
        import fsspec

        self._url = url.rstrip("/")
        scheme, _, rest = self._url.partition("://")
        self.name = f"{scheme}://{rest.rpartition('@')[2]}"
        self._files: Any
        try:
            self._files, self._root = fsspec.core.url_to_fs(self._url)
        except ValueError as error:
            raise WorkloadError(
                CANNOT_BE_TRAINED,
                f"wanted a path or a URL that fsspec can open, got {self.name}: {error}",
            ) from error
        except ImportError as error:
            raise WorkloadError(
                START_REFUSED,
                f"the store {self.name} needs a package that this node's Python lacks: {error}; "
                "install it for the agent on every node, or name a path",
            ) from error
        # Another rank's writes must be seen, so listings may not come from a cache.
        self._files.use_listings_cache = False

    def _path(self, path: str) -> str:
        return posixpath.join(self._root, path) if path else self._root

    def location(self, path: str) -> str:
        return posixpath.join(self._url, path)

    def read(self, path: str) -> bytes | None:
        try:
            content: bytes = self._files.cat_file(self._path(path))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        return content

    def write(self, path: str, content: bytes) -> None:
        target = self._path(path)
        self._files.makedirs(posixpath.dirname(target), exist_ok=True)
        self._files.pipe_file(target, content)

    def sync(self, path: str) -> None:
        """An object store keeps what it has acknowledged."""

    def names(self, path: str) -> list[str]:
        self._files.invalidate_cache()
        try:
            found = self._files.ls(self._path(path), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(posixpath.basename(str(entry).rstrip("/")) for entry in found)

    def opened(self, location: str) -> IO[bytes]:
        path = posixpath.join(self._root, location.removeprefix(self._url).lstrip("/"))
        opened: IO[bytes] = self._files.open(path, "rb")
        return opened

    def move(self, path: str, target: str) -> None:
        self._files.mv(self._path(path), self._path(target), recursive=True)

    def sizes_bytes(self, path: str) -> dict[str, int]:
        self._files.invalidate_cache()
        folder = self._path(path)
        found = self._files.find(folder, detail=True)
        prefix = self._files._strip_protocol(folder).rstrip("/") + "/"
        return {
            name.removeprefix(prefix): int(facts["size"]) for name, facts in sorted(found.items())
        }

    def remove(self, path: str) -> None:
        target = self._path(path)
        if self._files.exists(target):
            self._files.rm(target, recursive=True)


def open_storage(store: str, base: Path | None = None) -> Storage:
    """The store that a manifest names.

    Args:
        store: Path or URL.
        base: What a relative path is relative to; the working directory if left out.
    """
    if store.startswith("file://"):
        store = store.removeprefix("file://")
    if "://" in store:
        return UrlStorage(store)
    return LocalStorage((base or Path()) / Path(store).expanduser())
