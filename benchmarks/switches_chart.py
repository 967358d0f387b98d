"""A picture of what changes of plan cost: how long training stood still, and where that went."""

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.evidence_chart import BOLD, framed, rect, text

_PHASES = (
    ("settle", "#8b6bb1"),
    ("leave", "#b04a4a"),
    ("join", "#e0a040"),
    ("build", "#c9c9c9"),
    ("parameters", "#3b6ea5"),
    ("equip", "#5a9e6f"),
    ("moments", "#7fb2e5"),
)
_FIRST = "#555"
_ROW, _BAR, _HEAD, _NAMES, _PLOT, _WIDTH = 20, 13, 66, 260, 560, 900


def chart(title: str, rows: Sequence[Mapping[str, str]]) -> str:
    """One SVG: a line for each change, in the order in which they were made.

    Args:
        title: What was measured.
        rows: Lines of ``switches.csv``, seconds as text.
    """
    longest = max(float(row["stood_still"]) for row in rows)
    body = [text(8, 16, title, BOLD), *_legend(), text(_NAMES, 58, "seconds that training stood")]
    for index, row in enumerate(rows):
        body += _line(row, _HEAD + _ROW * index, _PLOT / longest)
    return framed(_WIDTH, _HEAD + 8 + _ROW * len(rows), body)


def _legend() -> Iterator[str]:
    x = 8.0
    for name, colour in (*_PHASES, ("first step, beyond later ones", _FIRST)):
        yield rect(x, 26, 10, 10, colour)
        yield text(x + 14, 35, name)
        x += 34 + 6.2 * len(name)


def _line(row: Mapping[str, str], top: float, scale: float) -> Iterator[str]:
    saving = ", while a save is written" if row["saving"] == "yes" else ""
    name = f"{row['from']} to {row['to']}{saving}"
    yield text(_NAMES - 8, top + 10, name, 'text-anchor="end"')
    x = float(_NAMES)
    first = max(0.0, float(row["first_step"]) - float(row["later_steps"]))
    for seconds, colour in [*((float(row[name]), it) for name, it in _PHASES), (first, _FIRST)]:
        yield rect(x, top, seconds * scale, _BAR, colour)
        x += seconds * scale
    yield text(x + 5, top + 10, f"{float(row['stood_still']):.2f}")
