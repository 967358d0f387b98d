"""Captured output: bounded, its beginning and its end kept, readable while it grows."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.output_log import OutputReader, OutputWriter, last_lines


def written(folder: Path, *chunks: bytes, segment_bytes: int = 10, tail: int = 2) -> OutputWriter:
    writer = OutputWriter(folder, segment_bytes, tail)
    for chunk in chunks:
        writer.write(chunk)
    return writer


def read(reader: OutputReader) -> bytes:
    return b"".join(piece.data for piece in reader.pieces())


def test_head_and_tail_are_kept_and_the_gap_is_told(tmp_path: Path) -> None:
    stream = bytes(range(65, 65 + 26)) * 3
    written(tmp_path, stream).close()
    pieces = list(OutputReader(tmp_path, 10).pieces())
    assert b"".join(piece.data for piece in pieces) == stream[:10] + stream[60:]
    assert [piece.dropped for piece in pieces if piece.dropped] == [50]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 30


@given(st.lists(st.binary(max_size=30), max_size=20))
def test_a_reader_that_keeps_up_sees_every_byte(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes]
) -> None:
    folder = tmp_path_factory.mktemp("output")
    writer, reader = written(folder, tail=5), OutputReader(folder, 10)
    seen = b""
    for chunk in chunks:
        writer.write(chunk)
        seen += read(reader)
    writer.close()
    assert seen == b"".join(chunks)


def test_a_reader_that_falls_behind_is_told(tmp_path: Path) -> None:
    writer, reader = written(tmp_path, b"0123456789abc"), OutputReader(tmp_path, 10)
    assert read(reader) == b"0123456789abc"
    writer.write(b"x" * 50)
    writer.close()
    pieces = list(reader.pieces())
    # It stood at 13; what is kept begins at 50.
    assert (pieces[0].dropped, b"".join(piece.data for piece in pieces)) == (37, b"x" * 13)


@given(st.lists(st.sampled_from([b"a", b"bb", b"\n", b"line\n"]), max_size=40), st.integers(0, 6))
def test_a_tail_is_that_many_last_lines(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes], count: int
) -> None:
    folder = tmp_path_factory.mktemp("output")
    written(folder, *chunks, tail=1000).close()
    reader = OutputReader(folder, 10)
    reader.seek_tail(count)
    whole = b"".join(chunks)
    lines = whole.splitlines(keepends=True)
    assert read(reader) == b"".join(lines[-count:] if count else [])


def test_last_lines_are_short_text(tmp_path: Path) -> None:
    writer = OutputWriter(tmp_path)
    for number in range(1000):
        writer.write(f"line {number}\n".encode())
    writer.write(b"caf\xc3\xa9 \xff\x1b]0;owned\x07\x1b[2J\x9b1m\n")
    writer.close()
    lines = last_lines(tmp_path, 20).splitlines()
    assert len(lines) == 20
    assert lines[0] == "line 981"
    assert lines[-1].startswith("café")
    assert all(character.isprintable() for line in lines for character in line)
    assert last_lines(tmp_path / "nowhere") == ""


def test_a_full_disk_loses_output_and_no_more(tmp_path: Path) -> None:
    in_the_way = tmp_path / "output.1.log"
    in_the_way.mkdir()
    written(tmp_path, b"0123456789", b"abcdefghij", b"ABCDE").close()
    in_the_way.rmdir()
    pieces = list(OutputReader(tmp_path, 10).pieces())
    assert [piece.data for piece in pieces] == [b"0123456789", b"ABCDE"]
    assert pieces[1].dropped == 10


def test_a_segment_that_ends_before_its_time_holds_up_no_reader(tmp_path: Path) -> None:
    for name, content in (("output", b"0123456789"), ("output.1", b"abcd"), ("output.2", b"ABCDE")):
        (tmp_path / f"{name}.log").write_bytes(content)
    pieces = list(OutputReader(tmp_path, 10).pieces())
    assert [piece.data for piece in pieces] == [b"0123456789", b"abcd", b"ABCDE"]
    assert [piece.dropped for piece in pieces] == [0, 0, 6]
