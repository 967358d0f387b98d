"""The demo's own verdict, from the events and losses that the control plane kept.

Pure: facts in, checks out. A check that cannot be made because something is missing has failed.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from headrace.api.plan import ExecutionPlan
from headrace.cli.plan_words import explained, kind
from headrace.cli.report_facts import LossFact
from headrace.cli.report_model import AttemptSpan, Block, History

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
        _continuity(first, mine),
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
    costs = ", ".join(
        f"{one.before.last_plan} to {one.then.plan} in "
        + ("unknown time" if one.cost_ns is None else f"{one.cost_ns / 1e9:.1f} s")
        for one in planned
    )
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
    label: str, points: Sequence[LossFact], attempts: Sequence[AttemptSpan], least: int
) -> Check:
    """Each step once: by the losses, and by the step at which each attempt said it stopped."""
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
    trouble += _seams(points, attempts)
    return Check(
        f"{label} did every step from 1 to {last or least} exactly once",
        not trouble,
        "; ".join(trouble) or f"{len(points)} losses over {len(attempts)} attempts",
    )


def _seams(points: Sequence[LossFact], attempts: Sequence[AttemptSpan]) -> list[str]:
    trouble = []
    for span in attempts:
        steps = [point.step for point in points if point.attempt == span.number]
        if not span.stopped_at_steps:
            continue
        if len(span.stopped_at_steps) > 1:
            trouble.append(f"attempt {span.number} stopped at several steps")
        if steps and max(steps) != span.stopped_at_steps[-1]:
            trouble.append(
                f"attempt {span.number} stopped at step {span.stopped_at_steps[-1]} but its last "
                f"loss is of step {max(steps)}"
            )
    return trouble


def _continuity(label: str, points: Sequence[LossFact]) -> Check:
    claim = f"the loss of {label} does not jump where it was reconfigured"
    ordered = sorted(points, key=lambda one: (one.step, one.attempt))
    losses = [point.loss for point in ordered]
    seams = [
        place
        for place, (before, then) in enumerate(itertools.pairwise(ordered), start=1)
        if before.attempt != then.attempt
    ]
    if not seams or not all(map(math.isfinite, losses)):
        return Check(claim, False, "no reconfiguration in the losses, or one that is no number")
    found, holds = [], True
    for seam in seams:
        jump = jump_at(losses, seam)
        if jump is None:
            holds = False
            found.append(f"step {ordered[seam].step}: too few steps around it")
            continue
        size, allowed = abs(jump[0]), _STANDARD_ERRORS * jump[1]
        holds = holds and size <= allowed
        found.append(f"step {ordered[seam].step}: {jump[0]:+.3f}, its noise is ±{allowed:.3f}")
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
        if then.order[0] <= before.order[1]
    ]
    return Check(
        "every accelerator was held by one job at a time",
        bool(by_slot) and not shared,
        "; ".join(shared[:3])
        or f"{sum(map(len, by_slot.values()))} holdings of {len(by_slot)} accelerators, no overlap",
    )
