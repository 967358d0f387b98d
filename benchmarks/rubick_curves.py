"""Lines over a few values, both axes logarithmic, as one SVG."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log

from benchmarks.evidence_chart import BOLD, framed, text

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 640, 320, 56, 34, 110, 40
_COLOURS = ("#3b6ea5", "#e0a040", "#5a9e6f", "#a33", "#7a5ba8", "#555")
_TICKS = tuple(a * 10**b for b in range(-3, 5) for a in (1, 2, 5))


@dataclass(frozen=True, slots=True)
class Line:
    """One line.

    Attributes:
        label: What it is.
        points: (across, up), ascending.
    """

    label: str
    points: tuple[tuple[float, float], ...]


def curves(lines: Sequence[Line], across: str, up: str) -> str:
    """The picture.

    Args:
        lines: What is drawn.
        across: What runs to the right, with its unit.
        up: What runs upwards, with its unit.
    """
    xs = sorted({x for line in lines for x, _ in line.points})
    ys = [y for line in lines for _, y in line.points]
    low, high = min(ys) / 1.15, max(ys) * 1.15

    def x_of(value: float) -> float:
        wide = _WIDTH - _LEFT - _RIGHT
        return _LEFT + wide * log(value / xs[0]) / (log(xs[-1] / xs[0]) or 1.0)

    def y_of(value: float) -> float:
        tall = _HEIGHT - _TOP - _BOTTOM
        return _TOP + tall * (1 - log(value / low) / log(high / low))

    body = [text(8, 16, f"{up} against {across}", BOLD)]
    body += [text(x_of(x), _HEIGHT - 22, f"{x:g}", 'text-anchor="middle"') for x in xs]
    for y in _TICKS:
        if low <= y <= high:
            at = y_of(y)
            body.append(text(_LEFT - 6, at + 4, f"{y:g}", 'text-anchor="end"'))
            body.append(
                f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}" '
                'stroke="#ddd"/>'
            )
    ends = _apart([(y_of(line.points[-1][1]), i) for i, line in enumerate(lines)])
    for i, line in enumerate(lines):
        colour = _COLOURS[i % len(_COLOURS)]
        path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in line.points)
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        body += [
            f'<circle cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="3" fill="{colour}"/>'
            for x, y in line.points
        ]
        body.append(text(_WIDTH - _RIGHT + 8, ends[i] + 4, line.label, f'fill="{colour}"'))
    return framed(_WIDTH, _HEIGHT, body)


def _apart(places: Sequence[tuple[float, int]]) -> dict[int, float]:
    """Where labels stand so that none covers another."""
    return dict(_spread(sorted(places)))


def _spread(places: Sequence[tuple[float, int]]) -> Iterator[tuple[int, float]]:
    last = -1e9
    for y, number in places:
        last = max(y, last + 13)
        yield number, last
