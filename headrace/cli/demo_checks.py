"""The demo's own verdict, from the events and losses that the control plane kept.

Pure: facts in, checks out. A check that cannot be made because something is missing has failed.
"""

import itertools
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from headrace.api.plan import ExecutionPlan
from headrace.cli.plan_words import explained, kind
from headrace.cli.report_facts import LossFact
from headrace.cli.report_model import AttemptSpan, Block, History, LossSeries

_WINDOW_STEPS = 30
_WINDOW_LEAST = 4
_STANDARD_ERRORS = 4.0


@dataclass(frozen=True, slots=True)
class Check:
    """One claim of the demo and whether it held.

    Attributes:
        claim: What should be so.
        holds: Whether it is.
        found: What was seen, with numbers.
    """

    claim: str
    holds: bool
    found: str


@dataclass(frozen=True, slots=True)
class Expected:
    """What the demo is meant to show.

    Attributes:
        elastic: Uid of the job that shrinks and grows.
        guest: Uid of the job that comes and goes meanwhile.
        accelerators: Accelerators of the cluster.
        elastic_steps: Steps that the first job must have done at least.
        guest_steps: Steps that the second job must have done.
        plans: Plans that the first job's manifest names, in short form.
    """

    elastic: str
    guest: str
    accelerators: int
    elastic_steps: int
    guest_steps: int
    plans: tuple[str, ...] = ()


def checked(
    history: History, losses: dict[str, tuple[LossFact, ...]], expected: Expected
) -> list[Check]:
    """Every claim of the demo."""
    elastic, guest = expected.elastic, expected.guest
    label = {job.uid: job.label for job in history.jobs}
    first, second = label.get(elastic, "the first job"), label.get(guest, "the second job")
    mine, theirs = losses.get(elastic, ()), losses.get(guest, ())
    return [
        _sizes(history, expected, first, second),
        _reconfigurations(history, elastic, first),
        *([_kinds(history, expected, first)] if expected.plans else ()),
        _steps(first, mine, _of(history, elastic), expected.elastic_steps),
        _steps(second, theirs, _of(history, guest), expected.guest_steps),
        _continuity(first, next((one for one in history.losses if one.uid == elastic), None)),
        _exclusive(history.blocks),
    ]


def _of(history: History, uid: str) -> list[AttemptSpan]:
    return [span for span in history.attempts if span.uid == uid]


def _sizes(history: History, expected: Expected, elastic: str, guest: str) -> Check:
    whole, half = expected.accelerators, expected.accelerators // 2
    first = [span.accelerators for span in _of(history, expected.elastic)]
    second = [span.accelerators for span in _of(history, expected.guest)]
    return Check(
        f"{elastic} ran on {whole}, on {half} beside {guest}, and on {whole} again",
        first == [whole, half, whole] and second == [whole - half],
        f"{elastic} held {_listed(first)}, {guest} held {_listed(second)}",
    )


def _listed(numbers: Iterable[int]) -> str:
    return ", then ".join(map(str, numbers)) or "nothing"


def _reconfigurations(history: History, uid: str, label: str) -> Check:
    planned = [one for one in history.of_job(uid) if one.planned]
    retried = [one for one in history.transitions if not one.planned]
    costs = "; ".join(f"{one.before.plan} to {one.then.plan} {one.price}" for one in planned)
    return Check(
        f"{label} was reconfigured exactly twice while it ran, and nothing failed",
        len(planned) == 2 == len(history.transitions) and not retried,
        f"{len(planned)} reconfigurations ({costs or 'none'}), {len(retried)} retries",
    )


def _kinds(history: History, expected: Expected, label: str) -> Check:
    """The first job changes between kinds of plan, and not only between sizes."""
    plans = [ExecutionPlan.parse(text) for text in expected.plans]
    wanted = [
        next((plan for plan in plans if plan.ranks == size), None)
        for size in (expected.accelerators, expected.accelerators // 2)
    ]
    found = [span.plan for span in _of(history, expected.elastic)]
    whole, half = wanted
    claim = f"{label} went over to another kind of plan while it ran, and back"
    seen = ", then ".join(map(explained, found)) or "it ran under no plan"
    if whole is None or half is None:
        return Check(claim, False, f"its manifest has no plans for both sizes; {seen}")
    holds = found == [str(whole), str(half), str(whole)] and kind(whole) != kind(half)
    return Check(claim, holds, seen)


def _steps(
    label: str, points: Sequence[LossFact], spans: Sequence[AttemptSpan], least: int
) -> Check:
    """Each step once: by the losses, and by the steps at which ranks said they stopped or left."""
    times = Counter(point.step for point in points)
    last = max(times, default=0)
    lost = [step for step in range(1, last + 1) if step not in times]
    twice = sorted(step for step, count in times.items() if count > 1)
    trouble = []
    if last < least:
        trouble.append(f"the last step is {last}, wanted at least {least}")
    if lost:
        trouble.append(f"{len(lost)} steps without a loss, the first is {lost[0]}")
    if twice:
        trouble.append(f"{len(twice)} steps done twice, the first is {twice[0]}")
    trouble += _seams(points, spans)
    return Check(
        f"{label} did every step from 1 to {last or least} exactly once",
        not trouble,
        "; ".join(trouble) or f"{len(points)} losses over {_extent(spans)}",
    )


def _extent(spans: Sequence[AttemptSpan]) -> str:
    attempts = len({span.number for span in spans})
    told = f"{attempts} attempt" if attempts == 1 else f"{attempts} attempts"
    return told if attempts == len(spans) else f"{told} in {len(spans)} parts"


def _seams(points: Sequence[LossFact], spans: Sequence[AttemptSpan]) -> list[str]:
    """Where ranks say that they ended after another step than the losses or the others say."""
    trouble = []
    for span, after in itertools.zip_longest(spans, spans[1:]):
        live = after.came_by if after is not None else None
        steps = [point.step for point in points if point.attempt == span.number]
        if not span.stopped_at_steps:
            continue
        if len(span.stopped_at_steps) > 1:
            trouble.append(f"ranks of attempt {span.number} stopped at several steps")
        stopped = span.stopped_at_steps[-1]
        if live is not None and stopped != live.step:
            trouble.append(
                f"ranks left attempt {span.number} after step {stopped} but the others went over "
                f"after step {live.step}"
            )
        elif live is None and steps and max(steps) != stopped:
            trouble.append(
                f"attempt {span.number} stopped at step {stopped} but its last loss is of step "
                f"{max(steps)}"
            )
    return trouble


def _continuity(label: str, series: LossSeries | None) -> Check:
    claim = f"the loss of {label} does not jump where it was reconfigured"
    points = series.counted if series is not None else ()
    losses = [point.loss for point in points]
    if series is None or not series.marks or not all(map(math.isfinite, losses)):
        return Check(claim, False, "no reconfiguration in the losses, or one that is no number")
    found, holds = [], True
    for mark in series.marks:
        seam = bisect_left(points, mark.step, key=lambda one: one.step)
        jump = jump_at(losses, seam)
        if jump is None:
            holds = False
            found.append(f"step {points[seam].step}: too few steps around it")
            continue
        size, allowed = abs(jump[0]), _STANDARD_ERRORS * jump[1]
        holds = holds and size <= allowed
        found.append(f"step {points[seam].step}: {jump[0]:+.3f}, its noise is ±{allowed:.3f}")
    return Check(claim, holds, "; ".join(found))


def jump_at(losses: Sequence[float], place: int) -> tuple[float, float] | None:
    """The jump between ``losses[place - 1]`` and ``losses[place]``, and its standard error.

    A line with one common slope and a step at ``place`` is fitted to the losses around it. The
    window is symmetric, so a curve that bends does not pass for a jump.

    Returns:
        None where too few losses lie around the place.
    """
    half = min(_WINDOW_STEPS, place, len(losses) - place)
    if half < _WINDOW_LEAST:
        return None
    around = losses[place - half : place + half]
    level = sum(around) / len(around)
    xs = [offset + 0.5 for offset in range(-half, half)]
    steps = [-0.5] * half + [0.5] * half
    xx, ss = sum(x * x for x in xs), half / 2
    xs_steps = sum(x * step for x, step in zip(xs, steps, strict=True))
    xy = sum(x * (y - level) for x, y in zip(xs, around, strict=True))
    sy = sum(step * (y - level) for step, y in zip(steps, around, strict=True))
    scale = xx * ss - xs_steps * xs_steps
    slope, jump = (ss * xy - xs_steps * sy) / scale, (xx * sy - xs_steps * xy) / scale
    rest = sum(
        (y - level - slope * x - jump * step) ** 2
        for x, step, y in zip(xs, steps, around, strict=True)
    )
    variance = rest / (2 * half - 3) * xx / scale
    return jump, math.sqrt(variance)


def _exclusive(blocks: Iterable[Block]) -> Check:
    by_slot: dict[tuple[str, str], list[Block]] = {}
    for block in blocks:
        by_slot.setdefault((block.node, block.accelerator), []).append(block)
    shared = [
        f"{node} {slot}: {before.uid}/{before.attempt} and {then.uid}/{then.attempt}"
        for (node, slot), held in sorted(by_slot.items())
        for before, then in itertools.pairwise(sorted(held, key=lambda one: one.order))
        # The same position: it was kept, under another plan.
        if then.order[0] < before.order[1]
    ]
    holdings = {
        (*slot, one.uid, one.attempt, one.unit) for slot, held in by_slot.items() for one in held
    }
    return Check(
        "every accelerator was held by one job at a time",
        bool(by_slot) and not shared,
        "; ".join(shared[:3])
        or f"{len(holdings)} holdings of {len(by_slot)} accelerators, no overlap",
    )
