"""Pictures of measured plans: time of an iteration, and peak memory beside its estimate."""

from collections.abc import Callable, Iterator, Sequence
from html import escape

from headrace.api.memory import GIB, estimated_peak_bytes
from headrace.api.models import ModelShape, resized
from headrace.api.plan import ExecutionPlan
from headrace.api.profile_rows import PlanRow

_ROW, _BAR, _GAP, _HEAD = 18, 12, 34, 44
_NAMES, _PLOT, _WORDS, _WIDTH = 190, 300, 60, 1100
_PARTS = (
    ("forward", "#3b6ea5"),
    ("backward_communication", "#7fb2e5"),
    ("optimizer", "#e0a040"),
)
_REST, _MEASURED, _ESTIMATED, _INK = "#c9c9c9", "#5a9e6f", "#333", "#222"
BOLD = 'font-weight="bold"'

Bar = Callable[[PlanRow, float, float], Iterator[str]]


def chart(shape: ModelShape, rows: Sequence[PlanRow]) -> str:
    """One SVG: a block for each number of accelerators, a line for each plan, in order of time."""
    counts = sorted({row.asked.accelerators for row in rows})
    body: list[str] = []
    y = float(_HEAD)
    for count in counts:
        block = sorted((row for row in rows if row.asked.accelerators == count), key=_order)
        body += _block(shape, block, y)
        y += _GAP + _ROW * len(block)
    first = rows[0].asked
    title = (
        f"{first.model}, global batch {first.global_batch}, {first.sequence_length} positions, "
        f"{first.precision}, {rows[0].machine.device if rows[0].machine else ''}"
    )
    return framed(_WIDTH, y, [text(8, 16, title, BOLD), _legend(), *body])


def framed(width: float, height: float, body: Sequence[str]) -> str:
    """An SVG around what is drawn."""
    frame = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="sans-serif" font-size="11" '
        f'fill="{_INK}">'
    )
    ground = '<rect width="100%" height="100%" fill="#fff"/>'
    return "\n".join([frame, ground, *body, "</svg>", ""])


def _order(row: PlanRow) -> tuple[bool, float, str]:
    return row.iteration is None, row.iteration or 0.0, row.plan


def _legend() -> str:
    entries = [*((name.replace("_", ", "), colour) for name, colour in _PARTS), ("rest", _REST)]
    entries += [("peak as measured (NVML)", _MEASURED), ("as estimated", _ESTIMATED)]
    parts, x = [], 8.0
    for name, colour in entries:
        parts += [rect(x, 24, 10, 10, colour), text(x + 14, 33, name)]
        x += 34 + 6.2 * len(name)
    return "\n".join(parts)


def _block(shape: ModelShape, rows: Sequence[PlanRow], y: float) -> Iterator[str]:
    """Lines of one number of accelerators."""
    count = rows[0].asked.accelerators
    slowest = max((_length(row) for row in rows), default=0.0) or 1.0
    estimates = {row.plan: _estimate(shape, row) for row in rows}
    most = max([*estimates.values(), *(row.peak_process or 0 for row in rows)]) or 1
    right = _NAMES + _PLOT + _WORDS
    yield text(8, y + 14, f"{count} GPU{'s' if count > 1 else ''}", BOLD)
    yield text(_NAMES, y + 14, "iteration, ms")
    yield text(right, y + 14, "peak memory, GiB: measured / estimated")
    for index, row in enumerate(rows):
        top = y + 22 + _ROW * index
        yield text(_NAMES - 8, top + 10, row.plan, 'text-anchor="end"')
        yield from _time(row, top, _PLOT / slowest)
        if row.iteration is not None:
            yield from _memory(row, top, right, estimates[row.plan], _PLOT / most)


def _length(row: PlanRow) -> float:
    parts = sum(getattr(row, name) or 0.0 for name, _ in _PARTS)
    return max(row.iteration or 0.0, parts)


def _time(row: PlanRow, top: float, scale: float) -> Iterator[str]:
    if row.iteration is None:
        yield text(_NAMES, top + 10, f"{row.status}: {row.reason}"[:130], 'fill="#a33"')
        return
    x = float(_NAMES)
    yield rect(x, top, row.iteration * scale, _BAR, _REST)
    for name, colour in _PARTS:
        width = (getattr(row, name) or 0.0) * scale
        yield rect(x, top, width, _BAR, colour)
        x += width
    end = _NAMES + _length(row) * scale
    yield text(end + 4, top + 10, f"{1000 * row.iteration:.0f}")


def _memory(row: PlanRow, top: float, left: float, estimate: float, scale: float) -> Iterator[str]:
    measured = row.peak_process or 0
    yield rect(left, top, measured * scale, _BAR, _MEASURED)
    yield rect(left + estimate * scale - 1, top - 1, 2, _BAR + 2, _ESTIMATED)
    end = left + max(measured, estimate) * scale
    off = f" ({estimate / measured - 1:+.0%})" if measured else ""
    yield text(end + 6, top + 10, f"{measured / GIB:.1f} / {estimate / GIB:.1f}{off}")


def _estimate(shape: ModelShape, row: PlanRow) -> float:
    """What today's memory model says; 0 where there is nothing to compare with."""
    if row.iteration is None:
        return 0.0
    asked = row.asked
    if asked.sequence_length != shape.sequence_length:
        shape = resized(shape, sequence_length=asked.sequence_length)
    plan = ExecutionPlan.parse(row.plan)
    found = estimated_peak_bytes(shape, plan, asked.global_batch, precision=asked.precision)
    return float(found.accelerator_bytes)


def rect(x: float, y: float, width: float, height: float, colour: str) -> str:
    """A bar."""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" height="{height:.1f}" '
        f'fill="{colour}"/>'
    )


def text(x: float, y: float, words: str, more: str = "") -> str:
    """Words at a place, with more attributes."""
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape(words)}</text>'
