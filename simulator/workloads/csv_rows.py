"""Rows of a CSV file with known columns; what is wrong is told with file and line."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path


@dataclass(frozen=True, slots=True)
class CsvRow:
    """One row.

    Attributes:
        file: The file.
        line: The line in it, from 1.
        cells: What stands in it, by column.
    """

    file: Path
    line: int
    cells: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells[column]

    def wrong(self, sentence: str) -> ValueError:
        """The error that says what is wrong with it."""
        return ValueError(f"{self.file}:{self.line}: {sentence}")

    def number(self, column: str, least: float = 0.0) -> float:
        """The number in a column.

        Raises:
            ValueError: It is none, or less than ``least``.
        """
        text = self.cells[column]
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not isfinite(value) or value < least:
            raise self.wrong(f"{column}: wanted a number from {least:g}, got {text!r}")
        return value

    def whole(self, column: str, least: int = 1) -> int:
        """The whole number in a column.

        Raises:
            ValueError: It is none, or less than ``least``.
        """
        value = self.number(column, least)
        if value != int(value):
            raise self.wrong(f"{column}: wanted a whole number, got {self.cells[column]!r}")
        return int(value)


def rows_of(file: Path, columns: Sequence[str]) -> Iterator[CsvRow]:
    """The rows below exactly these columns; blank lines are passed over.

    Raises:
        ValueError: It is no such file.
        OSError: It cannot be read.
    """
    with file.open(encoding="utf-8-sig", newline="") as opened:
        reader = csv.reader(opened, strict=True)
        try:
            head = next(reader, [])
            if head != list(columns):
                raise ValueError(f"{file}:1: wanted {','.join(columns)}; {_differs(head, columns)}")
            for cells in reader:
                line = reader.line_num
                if not cells:
                    continue
                if len(cells) != len(columns):
                    raise ValueError(
                        f"{file}:{line}: wanted {len(columns)} cells, got {len(cells)}"
                    )
                yield CsvRow(file, line, dict(zip(columns, cells, strict=True)))
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{file}: not a CSV file: {error}") from error


def _differs(head: Sequence[str], columns: Sequence[str]) -> str:
    """How the columns are others than those that were wanted."""
    missing = [name for name in columns if name not in head]
    unknown = [name for name in head if name not in columns]
    if not head:
        return "the file is empty"
    told = [f"{', '.join(missing)} missing"] if missing else []
    told += [f"{', '.join(map(repr, unknown))} not known"] if unknown else []
    return " and ".join(told) or "they come in another order, or twice"
