"""Picture of mean errors of predicted steps, by model and placement."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.evidence_chart import BOLD, framed, rect, text

_ROW, _BAR, _HEAD, _GAP = 30, 9, 62, 30
_NAMES, _PLOT, _WIDTH = 110, 480, 700
_OURS, _SOUND, _PUBLISHED = "#3b6ea5", "#7fb2e5", "#e0a040"
_MOST = 0.6
"""Error at the right edge; longer bars are cut there, and told in figures."""


@dataclass(frozen=True, slots=True)
class Bar:
    """Mean errors of a model in a kind of place.

    Attributes:
        block: What it is grouped under.
        name: Of the model.
        ours: With all rows.
        sound: Without the doubtful ones.
        published: Of the published model with the bandwidth that suits it best; None if unknown.
    """

    block: str
    name: str
    ours: float
    sound: float
    published: float | None


def chart(bars: Sequence[Bar]) -> str:
    """An SVG with a block for each kind of place."""
    body = [
        text(8, 16, "Mean error of steps that the fit had not seen (A800 tables)", BOLD),
        *_legend(),
    ]
    y = float(_HEAD)
    for block in dict.fromkeys(bar.block for bar in bars):
        body.append(text(8, y, block, BOLD))
        for bar in (bar for bar in bars if bar.block == block):
            y += _ROW
            body += _lines(bar, y - 18)
        y += _GAP
    return framed(_WIDTH, y - _GAP + 20, body)


def _legend() -> Iterator[str]:
    x = 8.0
    entries = (
        ("ours", _OURS),
        ("ours, doubtful rows left out", _SOUND),
        ("published, shipped parameters, 16 GB/s between nodes", _PUBLISHED),
    )
    for name, colour in entries:
        yield rect(x, 28, 10, 10, colour)
        yield text(x + 14, 37, name)
        x += 34 + 6.2 * len(name)


def _lines(bar: Bar, top: float) -> Iterator[str]:
    yield text(_NAMES - 8, top + 12, bar.name, 'text-anchor="end"')
    shown = [(bar.ours, _OURS)]
    if f"{bar.sound:.1%}" != f"{bar.ours:.1%}":
        shown.append((bar.sound, _SOUND))
    if bar.published is not None:
        shown.append((bar.published, _PUBLISHED))
    for index, (error, colour) in enumerate(shown):
        y = top + _BAR * index
        length = min(error, _MOST) / _MOST * _PLOT
        yield rect(_NAMES, y, length, _BAR - 1, colour)
        yield text(_NAMES + length + 4, y + 8, f"{error:.1%}", 'font-size="9"')
