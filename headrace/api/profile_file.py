"""Files of a profile's rows: JSON lines, appended to as rows are measured."""

import json
from collections.abc import Iterator
from pathlib import Path

from headrace.api.profile_rows import Row, latest, row_of


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
