"""Captured output of one launch unit: bounded on disk, its beginning and its end kept.

The stream is cut into segments of one size: ``output.log`` is the first and stays, the later ones
are ``output.1.log`` and so on, of which only the last few stay. A position in the stream therefore
says which segment holds it, and a reader notices by itself what was dropped.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from headrace.api.plain_text import plain

SEGMENT_BYTES = 1 << 20
TAIL_SEGMENTS = 7
"""With the first one, a unit's output takes at most 8 MiB."""


def segment_path(folder: Path, index: int) -> Path:
    """Where segment ``index`` of a unit's output lies."""
    return folder / ("output.log" if index == 0 else f"output.{index}.log")


class OutputWriter:
    """Writes one unit's output; owned by its supervisor."""

    def __init__(
        self, folder: Path, segment_bytes: int = SEGMENT_BYTES, tail_segments: int = TAIL_SEGMENTS
    ) -> None:
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._tail_segments = tail_segments
        self._index = 0
        self._room = segment_bytes
        self._file = self._opened()

    def write(self, chunk: bytes) -> None:
        """Appends; a full disk loses output but never the job."""
        while chunk:
            if self._room == 0:
                self._next_segment()
            piece, chunk = chunk[: self._room], chunk[self._room :]
            self._room -= len(piece)
            if self._file is not None:
                with suppress(OSError):
                    self._file.write(piece)

    def close(self) -> None:
        """Ends the output."""
        if self._file is not None:
            self._file.close()

    def _opened(self) -> BinaryIO | None:
        """The present segment; None where it cannot be made, and then its output is lost."""
        try:
            return segment_path(self._folder, self._index).open("wb", buffering=0)
        except OSError:
            return None

    def _next_segment(self) -> None:
        self.close()
        self._index += 1
        self._room = self._segment_bytes
        self._file = self._opened()
        dropped = self._index - self._tail_segments
        if dropped > 0:
            with suppress(OSError):
                segment_path(self._folder, dropped).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Piece:
    """Some output: ``data`` follows after ``dropped`` bytes that are not kept any more."""

    data: bytes
    dropped: int = 0


class OutputReader:
    """Reads one unit's output from a position on, also while it is being written."""

    def __init__(self, folder: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._position = 0

    def seek_tail(self, lines: int) -> None:
        """Moves to the last ``lines`` lines; negative means everything kept."""
        self._position = 0
        if lines < 0:
            return
        segments = self._segments()
        end = 0
        remaining = lines
        for index in reversed(segments):
            content = segment_path(self._folder, index).read_bytes()
            base = index * self._segment_bytes
            if index == segments[-1]:
                end = base + len(content)
                self._position = end
                content = content.removesuffix(b"\n")
                if lines == 0:
                    return
            at = len(content)
            while remaining > 0 and (at := content.rfind(b"\n", 0, at)) >= 0:
                remaining -= 1
            if remaining == 0:
                self._position = base + at + 1
                return
            self._position = base

    def pieces(self, most_bytes: int = 64 * 1024) -> Iterator[Piece]:
        """All that is there and was not read yet."""
        dropped = 0
        while True:
            segments = self._segments()
            wanted = self._position // self._segment_bytes
            there = [index for index in segments if index >= wanted]
            if not there:
                return
            if there[0] != wanted:
                dropped += self._go_to(there[0])
            inside = self._position - there[0] * self._segment_bytes
            try:
                with segment_path(self._folder, there[0]).open("rb") as file:
                    file.seek(inside)
                    data = file.read(min(most_bytes, self._segment_bytes - inside))
            except FileNotFoundError:
                continue
            if not data and len(there) > 1:
                # The disk was full while it was written, so it ends before its time.
                dropped += self._go_to(there[1])
                continue
            if not data:
                return
            self._position += len(data)
            yield Piece(data, dropped)
            dropped = 0

    def _go_to(self, segment: int) -> int:
        """Moves on to the beginning of a segment; returns the bytes in between."""
        before, self._position = self._position, segment * self._segment_bytes
        return self._position - before

    def _segments(self) -> list[int]:
        found = [0] if segment_path(self._folder, 0).exists() else []
        for path in self._folder.glob("output.*.log"):
            number = path.name.split(".")[1]
            if number.isdigit():
                found.append(int(number))
        return sorted(found)


def last_lines(folder: Path, count: int = 20, most_bytes: int = 4096) -> str:
    """The end of a unit's output, for the reason of its failure."""
    reader = OutputReader(folder)
    try:
        reader.seek_tail(count)
        data = b"".join(piece.data for piece in reader.pieces())
    except OSError:
        return ""
    text = data[-most_bytes:].decode(errors="replace")
    return "\n".join(plain(line).rstrip() for line in text.splitlines()).strip()
