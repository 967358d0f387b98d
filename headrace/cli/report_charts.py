"""The report's pictures as SVG: the cluster's timeline and the loss curves.

Horizontal places are percentages, so the pictures follow the window's width while their text keeps
its size; heights are pixels.
"""

import itertools
import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from headrace.api.counted import counted
from headrace.cli.report_facts import LossFact
from headrace.cli.report_model import (
    AttemptSpan,
    Band,
    Block,
    History,
    Lane,
    LossMark,
    LossSeries,
)

COLOURS = 8
"""Colours there are for jobs; with more jobs they come again."""

_LANE, _GAP, _HEAD, _AXIS = 26, 4, 26, 24
_LANES_MAX = 256
_BLOCKS_MAX = 3000
_NOMINAL_WIDTH_PX = 860
_CHARACTER_PX = 6.6
_MARKS, _BARE, _PLOT, _PLOT_WIDTH = 38, 10, 210, 1000
_LOG_FROM_RATIO = 12
_MEAN_MAX = 250
LOSSES_WIDTH_MIN_PX = 420
"""The plot is never narrower; labels that have room there have room everywhere."""
MARK_CHARACTER_PX = 7.3
"""Of the labels of marks, which are bold."""
_CONTROL = dict.fromkeys((*range(32), *range(127, 160), 0x2028, 0x2029), " ")


def text(value: object) -> str:
    """Anything as text that is safe in HTML and SVG, attributes included."""
    readable = str(value).translate(_CONTROL).encode(errors="replace").decode()
    return escape(readable, quote=True)


def seconds_text(nanoseconds: int) -> str:
    """A duration for people: ``7.4 s``, ``2 min 05 s``, ``3 h 12 min``, ``5 d 01 h``."""
    whole = nanoseconds / 1e9
    if whole < 59.95:
        return f"{whole:.1f} s"
    minutes, rest = divmod(round(whole), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24:02d} h"


def clock_text(nanoseconds: int) -> str:
    """A time since the start: ``1:05``, ``2:03:04``."""
    whole = round(nanoseconds / 1e9)
    hours, rest = divmod(whole, 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def percent(share: float) -> str:
    """A share of the width, short: ``12.35%``."""
    return f"{100 * share:.3f}".rstrip("0").rstrip(".") + "%"


def time_ticks(span_ns: int) -> list[int]:
    """At most ten round times from 0 to the span."""
    steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200]
    second = 1_000_000_000
    step = next((one for one in steps if span_ns <= 10 * one * second), 0)
    if not step:
        step = 86400 * math.ceil(span_ns / (10 * 86400 * second))
    return list(range(0, span_ns + 1, step * second))


@dataclass(frozen=True, slots=True)
class Look:
    """How jobs are named and coloured."""

    labels: Mapping[str, str]
    colours: Mapping[str, int]

    @classmethod
    def of(cls, history: History) -> "Look":
        """The look of a history's jobs, by order of submission."""
        return cls(
            {job.uid: job.label for job in history.jobs},
            {job.uid: number % COLOURS for number, job in enumerate(history.jobs)},
        )


# --- timeline -----------------------------------------------------------------------------------


def timeline(history: History, look: Look) -> str:
    """The timeline as HTML: lane names on the left, the lanes themselves beside them."""
    lanes = shown_lanes(history)
    places, height = _places(lanes)
    span = max(1, history.end_ns - history.start_ns)
    names = [
        f'<svg class="names" width="128" height="{height}" role="presentation">',
        *_lane_names(lanes, places),
        "</svg>",
    ]
    summary = f"Timeline of {counted(len(lanes), 'accelerator')} over {seconds_text(span)}"
    lines = [
        f'<svg class="lanes" width="100%" height="{height}" role="img" '
        f'aria-label="{text(summary)}">',
        '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" '
        'patternTransform="rotate(45)"><rect width="3" height="6" class="stripe"/></pattern>'
        "</defs>",
        *_grid(lanes, places, span, height),
        *_bands(history, places, span),
        *_blocks(history, look, places, span),
        "</svg>",
    ]
    return (
        f'<div class="chart">{"".join(names)}<div class="scroll">{"".join(lines)}</div></div>'
        + _left_out(history, lanes)
    )


def shown_lanes(history: History) -> list[Lane]:
    """The lanes to draw: all, or in a large cluster the first ones that were used."""
    if len(history.lanes) <= _LANES_MAX:
        return list(history.lanes)
    used = {(block.node, block.accelerator) for block in history.blocks}
    busy = [lane for lane in history.lanes if (lane.node, lane.accelerator) in used]
    return busy[:_LANES_MAX]


def _left_out(history: History, lanes: Sequence[Lane]) -> str:
    missing = len(history.lanes) - len(lanes)
    return f'<p class="note">{counted(missing, "accelerator")} are left out.</p>' if missing else ""


def _places(lanes: Iterable[Lane]) -> tuple[dict[tuple[str, str], int], int]:
    """Upper edges of lanes and of nodes' names (under an empty accelerator), and the height."""
    places: dict[tuple[str, str], int] = {}
    y = 0
    for lane in lanes:
        if (lane.node, "") not in places:
            places[lane.node, ""] = y
            y += _HEAD
        places[lane.node, lane.accelerator] = y
        y += _LANE + _GAP
    return places, y + _AXIS


def _lane_names(lanes: Iterable[Lane], places: Mapping[tuple[str, str], int]) -> list[str]:
    found = [
        f'<text class="node" x="0" y="{y + 19}">{text(_short(node, 17))}'
        f"<title>{text(node)}</title></text>"
        for (node, slot), y in places.items()
        if not slot
    ]
    for lane in lanes:
        y = places[lane.node, lane.accelerator] + 17
        whole = f"{lane.accelerator} {lane.type}".strip()
        found.append(
            f'<text class="slot" x="10" y="{y}">{text(_short(lane.accelerator, 17))}'
            f"<title>{text(whole)}</title></text>"
        )
    return found


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 5]}…{name[-4:]}"


def _grid(
    lanes: Iterable[Lane], places: Mapping[tuple[str, str], int], span: int, height: int
) -> list[str]:
    found = [
        f'<rect class="lane" x="0" y="{places[lane.node, lane.accelerator]}" width="100%" '
        f'height="{_LANE}"/>'
        for lane in lanes
    ]
    for tick in time_ticks(span):
        x = tick / span
        anchor = "start" if x < 0.02 else "end" if x > 0.97 else "middle"
        found.append(
            f'<line class="grid" x1="{percent(x)}" x2="{percent(x)}" y1="{_HEAD}" '
            f'y2="{height - _AXIS}"/><text class="tick" x="{percent(x)}" y="{height - 7}" '
            f'text-anchor="{anchor}">{clock_text(tick)}</text>'
        )
    return found


def _bands(history: History, places: Mapping[tuple[str, str], int], span: int) -> list[str]:
    found: list[str] = []
    for band in history.bands:
        for place in _lanes_of(band, places):
            left = max(0, band.start_ns - history.start_ns) / span
            right = max(0, band.end_ns - history.start_ns) / span
            if right > left:
                title = f"{band.node} {place[1]} {band.kind}: {band.note}"
                found.append(
                    f'<rect class="band {band.kind}" x="{percent(left)}" y="{places[place]}" '
                    f'width="{percent(right - left)}" height="{_LANE}">'
                    f"<title>{text(title)}</title></rect>"
                )
    return found


def _lanes_of(band: Band, places: Mapping[tuple[str, str], int]) -> list[tuple[str, str]]:
    wanted = {band.accelerator} if band.accelerator else None
    return [
        place
        for place in places
        if place[0] == band.node and place[1] and (wanted is None or place[1] in wanted)
    ]


def _blocks(
    history: History, look: Look, places: Mapping[tuple[str, str], int], span: int
) -> list[str]:
    spans = {(one.uid, *one.place): one for one in history.attempts}
    by_lane: dict[tuple[str, str], list[Block]] = {}
    for block in history.blocks:
        by_lane.setdefault((block.node, block.accelerator), []).append(block)
    crowded = len(history.blocks) > _BLOCKS_MAX
    narrow = span * max(1, len(by_lane)) / _BLOCKS_MAX if crowded else 0.0
    found: list[str] = []
    for place, blocks in sorted(by_lane.items()):
        if place not in places:
            continue
        for group in grouped(blocks, narrow):
            if len(group) == 1:
                drawn = _block(group[0], spans, look, history, span)
            else:
                drawn = _crowd(group, history, span)
            found.append(drawn.replace("@y", str(places[place]), 1))
    return found


def grouped(blocks: Sequence[Block], narrow_ns: float) -> list[list[Block]]:
    """Blocks of one lane by start; neighbours too narrow to be told apart share a group."""
    groups: list[list[Block]] = []
    for block in blocks:
        last = groups[-1] if groups else []
        small = block.end_ns - block.start_ns < narrow_ns
        if (
            small
            and last
            and all(one.end_ns - one.start_ns < narrow_ns for one in last[-1:])
            and block.start_ns - last[-1].end_ns < narrow_ns
            and block.end_ns - last[0].start_ns < 4 * narrow_ns
        ):
            last.append(block)
        else:
            groups.append([block])
    return groups


def _frame(kind: str, title: str, start_ns: int, end_ns: int, history: History, span: int) -> str:
    left = (start_ns - history.start_ns) / span
    width = max(0.0005, (end_ns - start_ns) / span)
    return (
        f'<svg class="{kind}" x="{percent(left)}" y="@y" width="{percent(width)}" '
        f'height="{_LANE}"><title>{text(title)}</title>'
        f'<rect width="100%" height="100%" rx="3"/>'
    )


def _crowd(group: Sequence[Block], history: History, span: int) -> str:
    jobs = len({block.uid for block in group})
    title = f"{len(group)} short runs of {jobs} job{'s' if jobs > 1 else ''}"
    end = max(block.end_ns for block in group)
    return _frame("b many", title, group[0].start_ns, end, history, span) + "</svg>"


def _block(
    block: Block,
    spans: Mapping[tuple[str, int, int], AttemptSpan],
    look: Look,
    history: History,
    span: int,
) -> str:
    name, length = look.labels.get(block.uid, block.uid), block.end_ns - block.start_ns
    # None if it was to join others and has not.
    attempt = spans.get((block.uid, block.attempt, block.part))
    first = attempt.first_step_ns if attempt is not None else None
    leaving = block.leaving_ns
    if leaving is None and attempt is not None:
        leaving = attempt.stop_ns
    parts = [
        _frame(
            f"b j{look.colours.get(block.uid, 0)}",
            _block_title(block, name, attempt, history),
            block.start_ns,
            block.end_ns,
            history,
            span,
        )
    ]
    if length > 0:
        trained = block.end_ns if first is None else first
        starting = min(1.0, max(0.0, (trained - block.start_ns) / length))
        if starting > 0:
            parts.append(f'<rect class="starting" width="{percent(starting)}" height="100%"/>')
        if leaving is not None and leaving < block.end_ns:
            stop = max(0.0, (leaving - block.start_ns) / length)
            parts.append(
                f'<rect class="stopping" x="{percent(stop)}" width="{percent(1 - stop)}" '
                'height="100%"/>'
            )
    if block.outcome in ("Failed", "Lost"):
        # At most 5 pixels, and no more than a third of a short block.
        width = min(1 / 3, 5 / max(1.0, length / span * _NOMINAL_WIDTH_PX))
        parts.append(
            f'<rect class="broken" x="{percent(1 - width)}" width="{percent(width)}" '
            'height="100%"/>'
        )
    label = _label(block, name, length / span * _NOMINAL_WIDTH_PX)
    if label:
        parts.append(f'<text x="6" y="17">{text(label)}</text>')
    return "".join((*parts, "</svg>"))


def _block_title(block: Block, name: str, attempt: AttemptSpan | None, history: History) -> str:
    until = "now" if block.open else clock_text(block.end_ns - history.start_ns)
    start = clock_text(block.start_ns - history.start_ns)
    lines = [
        f"{name}, {block.plan}, attempt {block.attempt}, unit {block.unit}",
        f"{start} to {until} ({seconds_text(block.end_ns - block.start_ns)})",
    ]
    first = attempt.first_step_ns if attempt is not None else None
    if first is not None and first > block.start_ns:
        lines.append(f"first step after {seconds_text(first - block.start_ns)}")
    if block.leaving_ns is not None:
        asked = clock_text(block.leaving_ns - history.start_ns)
        lines.append(f"asked to leave at {asked}, while the others train on")
    if block.outcome:
        lines.append(f"ended: {block.outcome}")
    if block.outcome in ("Failed", "Lost") and attempt is not None and attempt.why:
        lines.append(attempt.why[:300])
    return "; ".join(lines)


def _label(block: Block, name: str, width_px: float) -> str:
    length = seconds_text(block.end_ns - block.start_ns)
    choices = (
        f"{name}  {block.plan}  #{block.attempt}  {length}",
        f"{block.plan}  #{block.attempt}  {length}",
        f"{block.plan}  #{block.attempt}",
        block.plan,
    )
    return next(
        (one for one in choices if len(one) * _CHARACTER_PX + 10 <= width_px),
        "",
    )


# --- loss curves --------------------------------------------------------------------------------


def thinned(points: Sequence[LossFact], buckets: int) -> list[LossFact]:
    """At most four points a bucket of neighbours: first, lowest, highest and last, in order."""
    if len(points) <= 4 * buckets:
        return list(points)
    kept: list[LossFact] = []
    for number in range(buckets):
        part = points[len(points) * number // buckets : len(points) * (number + 1) // buckets]
        places = {
            0,
            len(part) - 1,
            min(range(len(part)), key=lambda place: part[place].loss),
            max(range(len(part)), key=lambda place: part[place].loss),
        }
        kept.extend(part[place] for place in sorted(places))
    return kept


def smoothed(points: Sequence[LossFact], window: int) -> list[LossFact]:
    """Each loss replaced by the value there of a line fitted to the ``window`` around it.

    At the ends the window is cut off on one side. A mean would bend there and a line does not, so
    the curves on both sides of a mark can be compared.
    """
    sums = [0.0, *itertools.accumulate(point.loss for point in points)]
    moments = [0.0, *itertools.accumulate(place * one.loss for place, one in enumerate(points))]
    found = []
    for place, point in enumerate(points):
        low, high = max(0, place - window // 2), min(len(points), place + window // 2 + 1)
        count, centre = high - low, (low + high - 1) / 2
        total = sums[high] - sums[low]
        spread = count * (count * count - 1) / 12
        slope = (moments[high] - moments[low] - centre * total) / spread if spread else 0.0
        value = total / count + slope * (place - centre)
        found.append(LossFact(point.step, value, point.attempt, point.at_ns))
    return found


@dataclass(frozen=True, slots=True)
class Scale:
    """Places losses on the vertical axis.

    Attributes:
        low: Loss at the lower edge.
        high: Loss at the upper edge.
        logarithmic: Whether equal ratios take equal room.
    """

    low: float
    high: float
    logarithmic: bool

    @classmethod
    def over(cls, losses: Sequence[float]) -> "Scale":
        """A scale that holds all the losses; logarithmic where they span a large ratio."""
        low, high = min(losses), max(losses)
        if low > 0 and high / low >= _LOG_FROM_RATIO:
            return cls(low / 1.15, high * 1.15, logarithmic=True)
        margin = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
        return cls(low - margin, high + margin, logarithmic=False)

    def share(self, loss: float) -> float:
        """0 at the lower edge, 1 at the upper one."""
        if self.logarithmic:
            return math.log(max(loss, self.low) / self.low) / math.log(self.high / self.low)
        return (loss - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Round losses within the scale."""
        if self.logarithmic:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            heads = (1, 2, 5) if len(decades) <= 5 else (1,)
            marks = [head * 10.0**decade for decade in decades for head in heads]
            return [mark for mark in marks if self.low <= mark <= self.high]
        step = _round_step((self.high - self.low) / 5)
        first = math.ceil(self.low / step)
        return [step * number for number in range(first, math.floor(self.high / step) + 1)]


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return power * next(head for head in (1, 2, 5, 10) if rough <= head * power * 1.0001)


def loss_chart(series: LossSeries, label: str, colour: int, buckets: int) -> str:
    """One job's losses as HTML; an explanation instead where no loss is a number."""
    counted = [point for point in series.counted if math.isfinite(point.loss)]
    again = [point for point in series.superseded if math.isfinite(point.loss)]
    if not counted:
        return '<p class="note">No step gave a finite loss.</p>'
    scale = Scale.over([point.loss for point in (*counted, *again)])
    first = min(point.step for point in (*counted, *again))
    last = max(point.step for point in (*counted, *again))
    room = max(1, last - first)

    def x(step: float) -> float:
        return (step - first) / room

    def y(loss: float) -> float:
        return top + _PLOT * (1 - scale.share(loss))

    top = _MARKS if series.marks else _BARE
    height = top + _PLOT + _AXIS
    window = min(_MEAN_MAX, len(counted) // 40) * 2 + 1 if len(counted) >= 60 else 1
    curves = [_curve(group, scale, x, "again", buckets // 4 + 1) for group in _runs(again)]
    curves.append(_curve(counted, scale, x, f"raw l{colour}", buckets))
    if window > 1:
        # Parts apart: a curve across a mark would hide the very jump that one looks for.
        means = (smoothed(group, window) for group in _between(counted, series.marks))
        curves.extend(_curve(mean, scale, x, f"mean l{colour}", buckets // 2 + 1) for mean in means)
    left = [
        f'<text class="tick" x="46" y="{y(mark) + 4:.1f}" text-anchor="end">{mark:.4g}</text>'
        for mark in scale.ticks()
    ]
    grid = [
        f'<line class="grid" x1="0" x2="100%" y1="{y(mark):.1f}" y2="{y(mark):.1f}"/>'
        for mark in scale.ticks()
    ]
    summary = f"Training loss of {label} from step {first} to {last}"
    plot = (
        f'<svg class="plot" x="0" y="{top}" width="100%" height="{_PLOT}" '
        f'viewBox="0 0 {_PLOT_WIDTH} {_PLOT}" preserveAspectRatio="none">{"".join(curves)}</svg>'
    )
    return (
        f'<div class="chart"><svg class="axis" width="52" height="{height}" '
        f'role="presentation">{"".join(left)}</svg><div class="scroll">'
        f'<svg class="losses" width="100%" height="{height}" role="img" '
        f'aria-label="{text(summary)}">{"".join(grid)}{"".join(_step_ticks(first, last, x, top))}'
        f"{plot}{''.join(_marks(series.marks, x))}</svg></div></div>"
        f'<p class="note">{text(_caption(series, scale, window))}</p>'
    )


def _caption(series: LossSeries, scale: Scale, window: int) -> str:
    last = series.counted[-1]
    parts = [f"Step {last.step}: loss {last.loss:.4g}."]
    if window > 1:
        parts.append(f"Thin: each step; thick: smoothed over {counted(window, 'step')}.")
    if series.superseded:
        parts.append(
            f"Dashed: {counted(len(series.superseded), 'step')} that were done again after a retry."
        )
    broken = sum(not math.isfinite(point.loss) for point in series.counted)
    if broken:
        parts.append(f"{counted(broken, 'step')} without a finite loss are not drawn.")
    if scale.logarithmic:
        parts.append("Logarithmic scale.")
    return " ".join(parts)


def _runs(points: Sequence[LossFact]) -> list[list[LossFact]]:
    return [list(group) for _, group in itertools.groupby(points, key=lambda one: one.attempt)]


def _between(points: Sequence[LossFact], marks: Sequence[LossMark]) -> list[list[LossFact]]:
    steps = [mark.step for mark in marks]
    groups = itertools.groupby(points, key=lambda one: bisect_left(steps, one.step))
    return [list(group) for _, group in groups]


def _curve(
    points: Sequence[LossFact], scale: Scale, x: Callable[[float], float], kind: str, buckets: int
) -> str:
    places = " ".join(
        f"{_PLOT_WIDTH * x(point.step):.1f},{_PLOT * (1 - scale.share(point.loss)):.1f}"
        for point in thinned(points, buckets)
    )
    return f'<polyline class="{kind}" points="{places}"/>'


def _step_ticks(first: int, last: int, x: Callable[[float], float], top: int) -> list[str]:
    step = max(1, round(_round_step(max(1, last - first) / 8)))
    found = []
    for mark in range(math.ceil(first / step) * step, last + 1, step):
        place = x(mark)
        anchor = "start" if place < 0.02 else "end" if place > 0.97 else "middle"
        found.append(
            f'<text class="tick" x="{percent(place)}" y="{top + _PLOT + 17}" '
            f'text-anchor="{anchor}">{mark}</text>'
        )
    return found


def _marks(marks: Sequence[LossMark], x: Callable[[float], float]) -> list[str]:
    """Vertical lines; labels only where they have room, in two rows."""
    found: list[str] = []
    free = [-1.0, -1.0]
    for mark in marks:
        place = x(mark.step)
        kind = "planned" if mark.planned else "retry"
        plans = f"{mark.before} → {mark.after}" if mark.before else f"attempt {mark.attempt}"
        label = plans if mark.planned else f"retry: {plans}"
        way = "in memory" if mark.in_memory else "by a restart"
        done = "reconfigured" if mark.planned else "retried"
        title = f"step {mark.step:g}: {done} {way}, {plans}"
        found.append(
            f'<line class="mark {kind}" x1="{percent(place)}" x2="{percent(place)}" '
            f'y1="{_MARKS - 6}" y2="{_MARKS + _PLOT}"><title>{text(title)}</title></line>'
        )
        width = len(label) * MARK_CHARACTER_PX / LOSSES_WIDTH_MIN_PX
        half = width / 2
        anchor = "start" if place < half else "end" if place > 1 - half else "middle"
        left = place - {"start": 0.0, "middle": half, "end": width}[anchor]
        row = next((one for one in (1, 0) if free[one] < left), None)
        if row is not None:
            free[row] = left + width + 0.01
            found.append(
                f'<text class="mark {kind}" x="{percent(place)}" y="{_MARKS - 24 + 14 * row}" '
                f'text-anchor="{anchor}">{text(label)}</text>'
            )
    return found
