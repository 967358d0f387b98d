"""Files of a profile's rows: JSON lines, appended to as rows are measured, or a table in CSV."""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from headrace.api.profile_rows import (
    Asked,
    LinkRow,
    Machine,
    PlanRow,
    Row,
    Status,
    latest,
    row_of,
)

_TEXTS = {
    field.name
    for kind in (Asked, Machine, PlanRow, LinkRow)
    for field in fields(kind)
    if field.type in (str, Status)
}


def rows_in(file: Path) -> list[Row]:
    """The rows of a file, those that count; none if there is no file.

    Raises:
        ValueError: It is no file of rows.
    """
    if not file.exists():
        return []
    return latest(_read(file))


def _read(file: Path) -> Iterator[Row]:
    lines = file.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            yield row_of(json.loads(line))
        except (KeyError, TypeError, ValueError) as error:
            if number == len(lines):
                return  # a run was killed while it wrote
            raise ValueError(
                f"{file}, line {number}: wanted a row of a profile, got {line[:60]!r}; name "
                "another file, or remove this one to measure everything anew"
            ) from error


def table_rows_in(file: Path) -> list[Row]:
    """All rows of a CSV whose columns are called as `profile_rows.flat` calls them.

    Raises:
        ValueError: It is no such table.
        OSError: It cannot be read.
    """
    with file.open(newline="", encoding="utf-8") as lines:
        return list(_read_table(file, csv.DictReader(lines)))


def _read_table(file: Path, lines: "csv.DictReader[str]") -> Iterator[Row]:
    for line in lines:
        try:
            yield row_of(_typed(line))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{file}, line {lines.line_num}: wanted a row of a profile below its heading "
                f"(kind,model,accelerators,...), got {dict(line)!r:.80}"
            ) from error


def _typed(line: Mapping[str, str]) -> dict[str, Any]:
    """Numbers as numbers, and nothing where there is nothing."""
    found: dict[str, Any] = {"kind": line["kind"]}
    for name, value in line.items():
        if name in _TEXTS:
            found[name] = value
        elif name != "kind":
            found[name] = json.loads(value) if value else None
    return found
