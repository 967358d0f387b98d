"""Files below an open folder that a job's own code can write to: no link in it is followed.

Who writes there could else have the agent read or write what is the agent's alone.
"""

import contextlib
import os
import stat
from collections.abc import Sequence

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Beneath:
    """One folder, by an open descriptor; it stays the same one whatever becomes of its name."""

    def __init__(self, descriptor: int) -> None:
        self._folder = descriptor

    @classmethod
    def root_of(cls, pid: int) -> "Beneath":
        """The root folder of a process.

        Raises:
            OSError: It is gone, or another user's.
        """
        return cls(os.open(f"/proc/{pid}/root", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    def close(self) -> None:
        """Gives the descriptor back; nothing can be read or written by it any more."""
        folder, self._folder = self._folder, -1
        if folder >= 0:
            os.close(folder)

    def folder(self, parts: Sequence[str], *, make: bool = False) -> "Beneath":
        """A folder below, one name after the other.

        Args:
            parts: The names.
            make: Whether those that are missing are made.

        Raises:
            OSError: One is missing, or no folder.
        """
        at = os.dup(self._folder)
        for part in parts:
            try:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, 0o700, dir_fd=at)
                below = os.open(part, _FOLDER, dir_fd=at)
            finally:
                os.close(at)
            at = below
        return Beneath(at)

    def names(self) -> list[str]:
        """What is in it; nothing if it is gone."""
        try:
            with os.scandir(self._folder) as found:
                return [each.name for each in found]
        except OSError:
            return []

    def read(self, name: str, start: int = 0, most_bytes: int = 1 << 20) -> bytes | None:
        """A part of a file; None if there is no such plain file."""
        try:
            handle = os.open(name, _READ, dir_fd=self._folder)
        except OSError:
            return None
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return None
            return os.pread(handle, most_bytes, start)
        except OSError:
            return None
        finally:
            os.close(handle)

    def size(self, name: str) -> int | None:
        """Bytes of a file; None if there is no such plain file."""
        try:
            told = os.stat(name, dir_fd=self._folder, follow_symlinks=False)
        except OSError:
            return None
        return told.st_size if stat.S_ISREG(told.st_mode) else None

    def write(self, name: str, text: str) -> None:
        """A reader sees the old file or the new one, never a part.

        Raises:
            OSError: It cannot be written.
        """
        draft = self._draft(name, text)
        os.rename(draft, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def create(self, name: str, text: str) -> bool:
        """Creates a file whole; False if there is one of that name.

        Raises:
            OSError: It cannot be written.
        """
        draft = self._draft(name, text)
        try:
            os.link(draft, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        except FileExistsError:
            return False
        finally:
            os.unlink(draft, dir_fd=self._folder)
        return True

    def _draft(self, name: str, text: str) -> str:
        draft = f"{name}.{os.getpid()}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft, dir_fd=self._folder)
        handle = os.open(draft, _CREATE, 0o600, dir_fd=self._folder)
        with os.fdopen(handle, "w") as file:
            file.write(text)
        return draft
