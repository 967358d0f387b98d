"""The report's pictures as SVG. Horizontal places are percentages, heights are pixels."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from headrace.api.counted import counted
from headrace.cli.report_charts import COLOURS, clock_text, percent, seconds_text, text, time_ticks
from simulator.report.recorded import Piece, RecordedRun, pieces, shares_over_time

_LANE, _NODE_GAP, _AXIS = 7, 5, 22
_LANES_MAX = 128
_PIECES_MAX = 12_000
_BAR, _BAR_GAP = 20, 8
_PLOT = 220
_AREA = 64
_BINS = 400
_NANO = 1_000_000_000
_TICKS: Mapping[float, str] = {
    0.1: "0.1 s",
    1: "1 s",
    10: "10 s",
    60: "1 min",
    600: "10 min",
    3600: "1 h",
    36_000: "10 h",
    360_000: "100 h",
    3_600_000: "1000 h",
    36_000_000: "10000 h",
}


def colours_of(models: Sequence[str]) -> dict[str, int]:
    """A colour for each model, by its place in the sorted names."""
    return {model: place % COLOURS for place, model in enumerate(sorted(set(models)))}


# -- timeline ---------------------------------------------------------------------------------


def timeline(run: RecordedRun, colours: Mapping[str, int], end: float) -> str:
    """Who held which accelerators, a lane each; hatched while they made no progress.

    Args:
        run: The run.
        colours: By model.
        end: Where the time axis ends: that of all runs, so that they can be compared.
    """
    places, height, left_out = _places(run.nodes)
    start = run.start
    span = max(1e-9, end - start)
    models = {job["name"]: job["model_type"] for job in run.jobs}
    lines = [
        f'<svg class="lanes" width="100%" height="{height + _AXIS}" role="img" '
        f'aria-label="{text(f"Timeline of {run.policy}")}">',
        *_backs(run.nodes, places),
        *_axis(span, height),
    ]
    narrow = span / 4000
    shown = (p for p in pieces(run) if p.node in places and p.end - p.start > narrow)
    for number, piece in enumerate(shown):
        if number == _PIECES_MAX:
            left_out += f" Only the first {_PIECES_MAX} pieces are drawn."
            break
        model = models.get(piece.job, "")
        lines += _piece(piece, model, colours.get(model, 0), places[piece.node], start, span)
    note = f'<p class="note">{text(left_out)}</p>' if left_out else ""
    return f'<div class="scroll">{"".join(lines)}</svg></div>{note}'


def _places(nodes: Mapping[str, int]) -> tuple[dict[str, int], int, str]:
    """The upper edge of each node, the height of all, and what is left out."""
    places: dict[str, int] = {}
    y = lanes = 0
    for node, count in sorted(nodes.items()):
        if lanes + count > _LANES_MAX:
            missing = sum(nodes.values()) - lanes
            return places, y, f"{counted(missing, 'accelerator')} are left out."
        places[node] = y
        y += count * _LANE + _NODE_GAP
        lanes += count
    return places, y, ""


def _backs(nodes: Mapping[str, int], places: Mapping[str, int]) -> Iterator[str]:
    for node, y in places.items():
        yield (
            f'<rect class="lane" x="0" y="{y}" width="100%" height="{nodes[node] * _LANE}">'
            f"<title>{text(node)}</title></rect>"
        )


def _axis(span: float, height: int) -> Iterator[str]:
    for tick in time_ticks(int(span * _NANO)):
        x = tick / _NANO / span
        anchor = "start" if x < 0.02 else "end" if x > 0.97 else "middle"
        yield (
            f'<line class="grid" x1="{percent(x)}" x2="{percent(x)}" y1="0" y2="{height}"/>'
            f'<text class="tick" x="{percent(x)}" y="{height + 15}" text-anchor="{anchor}">'
            f"{clock_text(tick)}</text>"
        )


def _piece(
    piece: Piece, model: str, colour: int, top: int, start: float, span: float
) -> Iterator[str]:
    x = (piece.start - start) / span
    width = (piece.end - piece.start) / span
    length = seconds_text(int((piece.end - piece.start) * _NANO))
    does = "trains" if piece.trains else "starts or changes"
    title = f"{piece.job} ({model}) {piece.plan} on {piece.count}: {does} for {length}"
    shade = f"m{colour}" if piece.trains else f"m{colour} held"
    for first, count in _runs(piece.lanes):
        yield (
            f'<rect class="{shade}" x="{percent(x)}" y="{top + first * _LANE}" '
            f'width="{percent(width)}" height="{count * _LANE - 1}">'
            f"<title>{text(title)}</title></rect>"
        )


def _runs(lanes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Neighbouring lanes as (first, how many)."""
    ordered = enumerate(sorted(lanes))
    for _, group in groupby(ordered, key=lambda each: each[1] - each[0]):
        members = [lane for _, lane in group]
        yield members[0], len(members)


# -- shares over time -------------------------------------------------------------------------


def utilisation(run: RecordedRun, end: float) -> str:
    """The share of accelerators that was held, and in it the share that made progress."""
    shares = shares_over_time(run, _BINS)
    whole = max(1e-9, end - run.start)
    scale = (run.end - run.start) / whole * 1000 / max(1, len(shares))

    def area(values: Sequence[float]) -> str:
        points = [
            f"{x * scale:.1f},{_AREA * (1 - value):.1f}"
            for place, value in enumerate(values)
            for x in (place, place + 1)
        ]
        right = len(values) * scale
        return f"0,{_AREA} {' '.join(points)} {right:.1f},{_AREA}"

    held, good = [a for a, _ in shares], [b for _, b in shares]
    return (
        f'<svg class="area" width="100%" height="{_AREA}" viewBox="0 0 1000 {_AREA}" '
        f'preserveAspectRatio="none" role="img" aria-label="{text(f"Use under {run.policy}")}">'
        f'<rect class="lane" width="1000" height="{_AREA}"/>'
        f'<polygon class="heldarea" points="{area(held)}"/>'
        f'<polygon class="goodarea" points="{area(good)}"/></svg>'
    )


# -- bars -------------------------------------------------------------------------------------


def bars(values: Sequence[tuple[str, float, str]], title: str) -> str:
    """A bar for each (name, value, label)."""
    top = max((value for _, value, _ in values), default=0.0) or 1.0
    height = len(values) * (_BAR + _BAR_GAP)
    lines = [f'<svg width="100%" height="{height}" role="img" aria-label="{text(title)}">']
    for place, (name, value, label) in enumerate(values):
        y = place * (_BAR + _BAR_GAP)
        width = 0.55 * value / top
        lines.append(
            f'<text x="0" y="{y + 14}">{text(name)}</text>'
            f'<rect class="m{place % COLOURS}" x="26%" y="{y}" width="{percent(width)}" '
            f'height="{_BAR}" rx="3"/>'
            f'<text x="{percent(0.27 + width)}" y="{y + 14}">{text(label)}</text>'
        )
    return f"{''.join(lines)}</svg>"


# -- distribution -----------------------------------------------------------------------------


def distribution(runs: Sequence[RecordedRun]) -> str:
    """For each run the share of jobs (upwards) that took at most so long (to the right)."""
    times = [run.completion_seconds() for run in runs]
    every = [time for each in times for time in each if time > 0]
    if not every:
        return '<p class="note">No job has finished.</p>'
    low = max((tick for tick in _TICKS if tick <= min(every)), default=min(_TICKS))
    above = (tick for tick in _TICKS if tick >= max(every) and tick > low)
    high = min(above, default=max(_TICKS))

    def x(seconds: float) -> float:
        return math.log(min(max(seconds, low), high) / low) / math.log(high / low)

    lines = [f'<svg class="cdf" width="100%" height="{_PLOT + _AXIS}" role="img">']
    for tick, name in _TICKS.items():
        if not low <= tick <= high:
            continue
        place = x(tick)
        anchor = "start" if place < 0.02 else "end" if place > 0.97 else "middle"
        lines.append(
            f'<line class="grid" x1="{percent(place)}" x2="{percent(place)}" y1="0" y2="{_PLOT}"/>'
            f'<text class="tick" x="{percent(place)}" y="{_PLOT + 15}" text-anchor="{anchor}">'
            f"{name}</text>"
        )
    for share in (0.25, 0.5, 0.75):
        y = _PLOT * (1 - share)
        lines.append(
            f'<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
            f'<text class="tick" x="2" y="{y - 3}">{share:.0%} of jobs</text>'
        )
    lines.append(
        f'<svg width="100%" height="{_PLOT}" viewBox="0 0 1000 {_PLOT}" preserveAspectRatio="none">'
    )
    for number, ordered in enumerate(times):
        points = " ".join(
            f"{1000 * x(seconds):.1f},{_PLOT * (1 - (place + 1) / len(ordered)):.1f}"
            for place, seconds in _thinned(ordered)
        )
        lines.append(f'<polyline class="l{number % COLOURS} mean" points="{points}"/>')
    return f"{''.join(lines)}</svg></svg>"


def _thinned(ordered: Sequence[float], most: int = 600) -> Iterator[tuple[int, float]]:
    step = max(1, len(ordered) // most)
    for place, value in enumerate(ordered):
        if place % step == 0 or place == len(ordered) - 1:
            yield place, value
