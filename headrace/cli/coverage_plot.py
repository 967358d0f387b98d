"""The picture of ``headrace coverage``: promised against reached, day by day, as SVG. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 720, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 44, 40
_COLOURS = ("#1f6feb", "#bf5700")
_LABELS_MOST = 10


@dataclass(frozen=True, slots=True)
class Day:
    """How the predictions did whose jobs ended on a day.

    Attributes:
        series: When they were made.
        day: The day, in the order of which days are drawn.
        promised: Share that should have come true.
        reached: Share that did.
        between: Where the share may well lie in the long run.
        jobs: How many there were.
    """

    series: str
    day: str
    promised: float
    reached: float
    between: tuple[float, float]
    jobs: int


def plotted(days: Sequence[Day]) -> str:
    """The picture of one day or more."""
    names = sorted({each.day for each in days})
    series = sorted({each.series for each in days})
    floor = max(0.0, min([0.7, *(each.between[0] - 0.05 for each in days)]))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="18">Share of ends within what was predicted, by day; '
        "dashed: promised</text>",
        *_grid(floor),
        *_days(names),
    ]
    for number, name in enumerate(series):
        colour = _COLOURS[number % len(_COLOURS)]
        own = [each for each in days if each.series == name]
        parts += _curve(own, names, floor, colour, number - (len(series) - 1) / 2)
        parts.append(
            f'<text x="{_LEFT + 140 * number}" y="36" fill="{colour}">{escape(name)}</text>'
        )
    promised = _y(max(each.promised for each in days), floor)
    parts.append(
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{promised:.1f}" y2="{promised:.1f}" '
        'stroke="#333333" stroke-dasharray="6 4"/>'
    )
    return "\n".join([*parts, "</svg>", ""])


def _x(place: int, count: int) -> float:
    return _LEFT + (place + 0.5) * (_WIDTH - _LEFT - _RIGHT) / count


def _y(share: float, floor: float) -> float:
    return _TOP + (1.0 - share) / (1.0 - floor) * (_HEIGHT - _TOP - _BOTTOM)


def _grid(floor: float) -> Iterator[str]:
    for tenth in range(11):
        share = tenth / 10
        if share >= floor:
            y = _y(share, floor)
            yield (
                f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
                'stroke="#dddddd"/>'
            )
            yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10 * tenth} %</text>'


def _days(names: Sequence[str]) -> Iterator[str]:
    every = -(-len(names) // _LABELS_MOST)
    for place in range(0, len(names), every):
        x = _x(place, len(names))
        yield (
            f'<text x="{x:.1f}" y="{_HEIGHT - 16}" text-anchor="middle">'
            f"{escape(names[place][-5:])}</text>"
        )


def _curve(
    days: Sequence[Day], names: Sequence[str], floor: float, colour: str, aside: float
) -> Iterator[str]:
    """A point for each day with where its share may lie, those of a series joined."""
    points = []
    for each in sorted(days, key=lambda one: one.day):
        x = _x(names.index(each.day), len(names)) + 5 * aside
        low, high = (_y(share, floor) for share in each.between)
        y = _y(each.reached, floor)
        points.append(f"{x:.1f},{y:.1f}")
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}" stroke="{colour}"/>'
        yield (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"><title>'
            f"{escape(each.day)}, {escape(each.series)}: {100 * each.reached:.1f} % of {each.jobs}"
            "</title></circle>"
        )
    yield f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}"/>'
