"""What an agent must not forget, on disk: units ever started, highest term and attempts.

JSON lines, each synced before anything acts on it. A last line torn by a crash was never acted
on, so it is cut off. The file is rewritten when it has grown to several times what it says, and
what it says is bounded: of jobs whose end the control plane acknowledged only the last are kept.
"""

import errno
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from agent.desired import Memory, UnitKey

COMPACT_AFTER_LINES = 4096
"""Least number of lines at which the file is rewritten."""
GROWTH = 4
"""How many times as long as after the last rewriting the file may become."""
JOBS_REMEMBERED = 10_000
"""Jobs remembered although all their units were released, the last started ones. They matter to
a store restored from a backup that is older than their end.
"""


class Journal:
    """The journal of one node. Only one process may hold it open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._compact_at = COMPACT_AFTER_LINES
        self._forget_all()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._read()
        self._file = path.open("ab", buffering=0)

    def _forget_all(self) -> None:
        self._highest = (0, 0)
        self._attempts: dict[str, int] = {}
        self._started: dict[UnitKey, tuple[str, ...]] = {}
        self._released: set[UnitKey] = set()
        self._purged: dict[str, None] = {}
        self._lines = 0
        self._memory: Memory | None = None

    @property
    def memory(self) -> Memory:
        """All of it, as ``desired.commands`` wants it."""
        if self._memory is None:
            self._memory = Memory(
                highest=self._highest,
                highest_attempts=dict(self._attempts),
                started=frozenset(self._started),
                purged=frozenset(self._purged),
            )
        return self._memory

    @property
    def highest_term(self) -> int:
        """Highest term obeyed."""
        return self._highest[0]

    @property
    def highest_attempts(self) -> dict[str, int]:
        """Highest attempt started here, by job: of the jobs started last, the last at the end."""
        return dict(list(self._attempts.items())[-JOBS_REMEMBERED:])

    def unreleased(self) -> dict[UnitKey, tuple[str, ...]]:
        """Units started whose end the control plane has not acknowledged, with what they hold."""
        return {k: slots for k, slots in self._started.items() if k not in self._released}

    def obey(self, term: int, number: int) -> None:
        """Remembers that (term, number) was obeyed."""
        if (term, number) > self._highest:
            self._append({"term": term, "number": number})

    def start(self, key: UnitKey, accelerators: tuple[str, ...]) -> None:
        """Remembers that the start of a unit begins now; returns when it is on disk."""
        self._append({"start": [key.uid, key.attempt, key.unit], "holds": list(accelerators)})

    def release(self, keys: Iterable[UnitKey]) -> None:
        """Remembers that the control plane acknowledged the end of these units."""
        for key in keys:
            if key in self._started and key not in self._released:
                self._append({"release": [key.uid, key.attempt, key.unit]})

    def purge(self, uid: str) -> None:
        """Remembers that a job's checkpoints were removed."""
        self._append({"purge": uid})

    def close(self) -> None:
        """Gives the file back."""
        self._file.close()

    def _append(self, entry: dict[str, Any]) -> None:
        end = self._path.stat().st_size
        try:
            self._write(json.dumps(entry, separators=(",", ":")).encode() + b"\n")
        except OSError:
            # A full disk may have taken half a line, and the next one must not follow it.
            os.truncate(self._path, end)
            raise
        self._fold(entry)
        self._lines += 1
        if self._lines > self._compact_at:
            self.compact()

    def _write(self, line: bytes) -> None:
        if self._file.write(line) != len(line):
            raise OSError(errno.ENOSPC, "only a part could be written", str(self._path))
        os.fsync(self._file.fileno())

    def _fold(self, entry: dict[str, Any]) -> None:
        self._memory = None
        if "term" in entry:
            self._highest = max(self._highest, (int(entry["term"]), int(entry["number"])))
        if "start" in entry:
            key = UnitKey(*entry["start"])
            self._started[key] = tuple(entry.get("holds", ()))
            self._saw(key.uid, key.attempt)
            # It has a second life, and may write checkpoints again.
            self._purged.pop(key.uid, None)
        if "release" in entry:
            self._released.add(UnitKey(*entry["release"]))
        if "purge" in entry:
            self._purged[str(entry["purge"])] = None
        for uid, attempt in entry.get("attempts", {}).items():
            self._saw(uid, int(attempt))

    def _saw(self, uid: str, attempt: int) -> None:
        """Keeps the jobs in order of their last start."""
        self._attempts[uid] = max(self._attempts.pop(uid, 0), attempt)

    def _entries(self) -> Iterator[dict[str, Any]]:
        kept = set(list(self._attempts)[-JOBS_REMEMBERED:]) | {key.uid for key in self.unreleased()}
        yield {"term": self._highest[0], "number": self._highest[1]}
        yield {"attempts": {uid: most for uid, most in self._attempts.items() if uid in kept}}
        for key, slots in self._started.items():
            start = [key.uid, key.attempt, key.unit]
            if key not in self._released:
                yield {"start": start, "holds": list(slots)}
            elif key.uid in kept and key.attempt == self._attempts[key.uid]:
                # Of lower attempts the highest alone keeps them from starting again.
                yield {"start": start, "release": start}
        for uid in list(self._purged)[-JOBS_REMEMBERED:]:
            yield {"purge": uid}

    def _read(self) -> None:
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            _sync_folder(self._path.parent)
            return
        good = 0
        for line in content.splitlines(keepends=True):
            try:
                entry = json.loads(line)
                complete = line.endswith(b"\n") and isinstance(entry, dict)
            except ValueError:
                complete = False
            if not complete:
                if good + len(line) < len(content):
                    raise JournalDamagedError(self._path, good)
                break
            self._fold(entry)
            self._lines += 1
            good += len(line)
        if good < len(content):
            os.truncate(self._path, good)

    def compact(self) -> None:
        """Rewrites the file with only what still counts."""
        fresh = self._path.with_suffix(".new")
        lines = [json.dumps(entry, separators=(",", ":")) for entry in self._entries()]
        with fresh.open("wb") as out:
            out.write(("\n".join(lines) + "\n").encode())
            out.flush()
            os.fsync(out.fileno())
        fresh.replace(self._path)
        _sync_folder(self._path.parent)
        self._file.close()
        self._forget_all()
        self._read()
        self._file = self._path.open("ab", buffering=0)
        self._compact_at = max(COMPACT_AFTER_LINES, GROWTH * self._lines)


class JournalDamagedError(Exception):
    """The journal is broken before its last line, which no crash does."""

    def __init__(self, path: Path, offset: int) -> None:
        super().__init__(
            f"{path} cannot be read at byte {offset}, in the middle. Without it this agent could "
            "start a rank twice. Restore the file, or remove the state folder if nothing of this "
            "node runs any more."
        )


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
