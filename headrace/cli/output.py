"""What commands write: tables, JSON, YAML or names on stdout, sentences on stderr."""

import codecs
import io
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

from headrace.api.plain_text import plain
from headrace.cli.tables import Column, laid_out

_ESCAPED = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}
"""Control characters that JSON may hold as they are; a terminal would obey them."""


_LABEL_WIDTH = 18

_STAND_INS = {"█": "#", "░": ".", "…": "~"}
"""For characters of this program's own that a terminal's encoding may not have."""


def write_what_streams_can() -> None:
    """From now on a character that a stream's encoding does not have is replaced, not an error."""
    codecs.register_error("headrace", _standing_in)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="headrace")


def _standing_in(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(_STAND_INS.get(character, "?") for character in missing), error.end


class Format(StrEnum):
    """Values of ``-o``."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


def say(text: str = "") -> None:
    """One line of the result; control characters are left out, for it may be others' words."""
    show(plain(text))


def show(line: str) -> None:
    """One line of the result as it is, with the colours that this program has put in."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """One line for the person in front of it; not part of the result."""
    sys.stderr.write(plain(text) + "\n")
    sys.stderr.flush()


def note_outage(_trouble: object) -> None:
    """Says why nothing moves, to a person who watches."""
    note("the control plane does not answer; trying again ...")


def typed(environment: Mapping[str, str] = os.environ) -> str:
    """What to type for ``headrace``: the way in which this one was started.

    ``uv run`` puts the environment's folder on PATH for its child only, so the bare name that
    works in here does not work for the person who reads it.
    """
    if "UV_RUN_RECURSION_DEPTH" not in environment:
        return "headrace"
    if shutil.which("uv", path=environment.get("PATH")):
        return "uv run headrace"
    return os.path.relpath(Path(sys.executable).parent / "headrace")


def is_terminal(stream: IO[str]) -> bool:
    """Whether a person reads it."""
    return hasattr(stream, "isatty") and stream.isatty()


def has_colour(stream: IO[str]) -> bool:
    """Colour only for people who did not ask for none."""
    return (
        is_terminal(stream)
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM", "") != "dumb"
    )


def width() -> int:
    """Columns of the terminal; 80 where there is none."""
    return shutil.get_terminal_size((80, 24)).columns


def field(label: str, value: object) -> None:
    """A value behind its label."""
    say(f"{label + ':':<{_LABEL_WIDTH}} {value}")


def folded(label: str, text: str) -> None:
    """A long text behind its label, in as many lines as it takes."""
    indent = " " * (_LABEL_WIDTH + 1)
    room = max(20, width() - len(indent))
    first, *more = textwrap.wrap(text, room, break_on_hyphens=False) or [""]
    field(label, first)
    for line in more:
        say(indent + line)


def table(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    *,
    wide: bool = False,
    heading: bool = True,
    seen: list[int] | None = None,
) -> None:
    """A table that fits the terminal; a wide one is as wide as it needs to be.

    ``seen`` is what ``laid_out`` keeps of the rows above, where more rows come later.
    """
    lines = laid_out(
        columns,
        rows,
        width=None if wide else width(),
        colour=has_colour(sys.stdout),
        heading=heading,
        seen=seen,
    )
    for line in lines:
        show(line)


def document(value: Any, form: Format) -> None:
    """A document as JSON or YAML."""
    # Both can write any text in ASCII, so nothing is replaced where that is all there is.
    unicode = "utf" in sys.stdout.encoding.lower()
    if form is Format.JSON:
        show(json.dumps(value, indent=2, ensure_ascii=not unicode).translate(_ESCAPED))
        return
    import yaml

    show(yaml.safe_dump(value, sort_keys=False, allow_unicode=unicode, width=100).rstrip("\n"))
