"""Tables that fit the terminal: plain text, laid out by this module, so that it loads in no time.

When a row is too wide, columns give way in the order that they say: long texts first, names last.
What gives way is cut, or goes on below where the column says so.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from headrace.api.plain_text import plain

_GAP = "  "
_NARROWEST = 6
_READABLE = 24
"""Sentences are not made narrower than this while anything else can give way."""
ELLIPSIS = "…"


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        title: Its heading.
        gives_way: Columns with the highest number shrink first; 0 never shrinks.
        right: Whether it is aligned to the right.
        colours: Colour of a cell by its text.
        wraps: Whether a text that is too long goes on below, under its column, and is not cut.
    """

    title: str
    gives_way: int = 0
    right: bool = False
    colours: Mapping[str, str] | None = None
    wraps: bool = False


STAGE_COLOURS = {
    "Running": "32",
    "Succeeded": "32",
    "Online": "32",
    "Starting": "36",
    "Stopping": "36",
    "BackingOff": "33",
    "Queued": "33",
    "Silent": "33",
    "Failed": "31",
    "Lost": "31",
}


def laid_out(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    *,
    width: int | None,
    colour: bool = False,
    heading: bool = True,
    seen: list[int] | None = None,
) -> list[str]:
    """The lines of a table.

    Args:
        columns: Its columns.
        rows: A text for each column.
        width: Columns of the terminal; None does not limit.
        colour: Whether cells may be coloured.
        heading: Whether the titles come first.
        seen: Widths of the rows that were shown above, so that these stand under them; widened
            by these.
    """
    shown = [[plain(" ".join(cell.split())) or "-" for cell in row] for row in rows]
    titles = [[column.title for column in columns]] if heading else []
    everything = titles + shown
    widths = [max((len(row[at]) for row in everything), default=0) for at in range(len(columns))]
    if seen is not None:
        seen[:] = widths = [max(pair) for pair in zip_longest(widths, seen, fillvalue=0)]
    if width is not None:
        widths = _fitted(columns, widths, width)
    return [
        line
        for at, row in enumerate(everything)
        for line in _lines(columns, row, widths, colour=colour and (not heading or at > 0))
    ]


def _fitted(columns: Sequence[Column], widths: list[int], width: int) -> list[int]:
    """The widths, cut until a row fits or nothing gives way any more."""
    excess = sum(widths) + len(_GAP) * (len(widths) - 1) - width
    order = sorted(range(len(columns)), key=lambda at: -columns[at].gives_way)
    fitted = list(widths)
    for readable in (_READABLE, _NARROWEST):
        for at in order:
            if excess <= 0 or columns[at].gives_way == 0:
                break
            least = readable if columns[at].wraps else _NARROWEST
            floor = min(fitted[at], max(least, len(columns[at].title)))
            cut = min(excess, fitted[at] - floor)
            fitted[at] -= cut
            excess -= cut
    return fitted


def _lines(
    columns: Sequence[Column], row: Sequence[str], widths: Sequence[int], *, colour: bool
) -> Iterator[str]:
    """The row, and below it what of its texts goes on."""
    parts = [
        textwrap.wrap(text, width, break_on_hyphens=False) if column.wraps else [_cut(text, width)]
        for column, text, width in zip(columns, row, widths, strict=True)
    ]
    codes = [
        (column.colours or {}).get(text.split(",")[0]) if colour else None
        for column, text in zip(columns, row, strict=True)
    ]
    for pieces in zip_longest(*parts, fillvalue=""):
        cells = []
        for column, piece, width, code in zip(columns, pieces, widths, codes, strict=True):
            padded = piece.rjust(width) if column.right else piece.ljust(width)
            cells.append(f"\x1b[{code}m{padded}\x1b[0m" if code and piece else padded)
        yield _GAP.join(cells).rstrip()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + ELLIPSIS


def age(seconds: float) -> str:
    """A span of time for people: two digits are enough."""
    if seconds < 0:
        return "0s"
    for limit, unit, size in ((120, "s", 1), (7200, "m", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds // 86_400)}d"


def bar(share: float, width: int) -> str:
    """A progress bar of that many characters."""
    filled = round(max(0.0, min(1.0, share)) * width)
    return "█" * filled + "░" * (width - filled)
