"""The demo's own verdict, from the events and losses that the control plane kept.

Pure: facts in, checks out. A check that cannot be made because something is missing has failed.
"""

import itertools
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from headrace.api.counted import counted
from headrace.api.generated import admin_pb2
from headrace.api.plan import ExecutionPlan
from headrace.cli.plan_words import explained, kind
from headrace.cli.report_facts import LossFact
from headrace.cli.report_model import AttemptSpan, Block, History

_WINDOW_STEPS = 30
_WINDOW_LEAST = 10
_STANDARD_ERRORS = 4.0
_JOBS = 3
_NO_JUMP = "no loss jumps where a job was reconfigured"


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
    """What the demo is meant to show, and what is known beside events and losses.

    Attributes:
        elastic: Uid of the job that is there from the start and makes room.
        promised: Uid of the guaranteed job.
        guest: Uid of the job to which nothing is promised.
        asked_for: Accelerators that the guaranteed job asks for.
        changes_kind: Whether the first job must have gone over to another kind of plan.
        policy: Name of the policy that decides.
        refused: How often a decision, or what it said of a job, broke a rule; None if that could
            not be found out.
    """

    elastic: str
    promised: str
    guest: str
    asked_for: int
    changes_kind: bool
    policy: str
    refused: int | None


def checked(
    history: History,
    losses: Mapping[str, tuple[LossFact, ...]],
    learnt: Sequence[admin_pb2.Fit],
    expected: Expected,
) -> list[Check]:
    """Every claim of the demo.

    Args:
        history: What happened, from the log.
        losses: Of every job by uid.
        learnt: Fits beside what was measured.
        expected: What it is held against.
    """
    label = {job.uid: job.label for job in history.jobs}
    jobs = {
        expected.elastic: label.get(expected.elastic, "the first job"),
        expected.promised: label.get(expected.promised, "the guaranteed job"),
        expected.guest: label.get(expected.guest, "the third job"),
    }
    elastic, promised = jobs[expected.elastic], jobs[expected.promised]
    return [
        _all_succeeded(history, jobs),
        _planned(history, label),
        *([_kinds(history, expected.elastic, elastic)] if expected.changes_kind else ()),
        _promise(_of(history, expected.promised), promised, expected.asked_for),
        _learnt(learnt, jobs),
        _rules(expected),
        *(_steps(history, uid, name, losses.get(uid, ())) for uid, name in jobs.items()),
        _continuity(history, expected, label),
        _exclusive(history.blocks),
    ]


def _of(history: History, uid: str) -> list[AttemptSpan]:
    return [span for span in history.attempts if span.uid == uid]


def _all_succeeded(history: History, jobs: Mapping[str, str]) -> Check:
    found = {job.uid: job.stage for job in history.jobs}
    told = ", ".join(f"{name} {found.get(uid, 'never came')}" for uid, name in jobs.items())
    holds = len(jobs) == _JOBS and all(found.get(uid) == "Succeeded" for uid in jobs)
    return Check("every job succeeded", holds, told)


def _planned(history: History, label: Mapping[str, str]) -> Check:
    """Every change was the policy's doing, and nothing failed."""
    told = [
        f"{label.get(one.uid, one.uid)} {one.before.plan} to {one.then.plan} {one.price}"
        for one in history.transitions
    ]
    failed = [one for one in history.transitions if not one.planned]
    broke = [span for span in history.attempts if span.broke]
    return Check(
        "every change of plan or place was planned, and nothing failed",
        not failed and not broke and bool(history.attempts),
        f"{len(told)} changes{': ' if told else ''}{'; '.join(told)}"
        + (f"; {len(failed)} retries, {len(broke)} parts that failed" if failed or broke else ""),
    )


def _kinds(history: History, uid: str, label: str) -> Check:
    """The first job changed in memory between kinds of plan, and not only between sizes."""
    kinds = [
        one
        for one in history.of_job(uid)
        if one.in_memory and kind(_plan(one.before)) != kind(_plan(one.then))
    ]
    seen = ", then ".join(explained(span.plan) for span in _of(history, uid))
    return Check(
        f"{label} went over to another kind of plan in memory while it trained",
        bool(kinds),
        seen or "it ran under no plan",
    )


def _plan(span: AttemptSpan) -> ExecutionPlan:
    return ExecutionPlan.parse(span.plan)


def _promise(spans: Sequence[AttemptSpan], label: str, asked_for: int) -> Check:
    """Who is guaranteed is never stopped, nor given less than it asked for.

    That each plan that it is given is predicted to be as fast as promised is one of the rules that
    every decision is held against.
    """
    held = sorted({span.accelerators for span in spans})
    stopped = [span for span in spans if span.stop_ns is not None]
    attempts = {span.number for span in spans}
    done = bool(spans) and spans[-1].outcomes == ("Succeeded",)
    trouble = [f"{len(stopped)} times stopped"] if stopped else []
    if len(attempts) != 1:
        trouble.append(f"{len(attempts)} attempts")
    if not done:
        trouble.append("it was not seen to finish")
    if not held or held[0] < asked_for:
        trouble.append(f"it held {counted(held[0] if held else 0, 'accelerator')} at least")
    plans = ", then ".join(span.plan for span in spans)
    return Check(
        f"{label}, which is guaranteed, was never stopped and never had fewer accelerators than "
        f"the {asked_for} that it asks for",
        not trouble,
        "; ".join(trouble) or f"one attempt under {plans}",
    )


def _learnt(learnt: Sequence[admin_pb2.Fit], jobs: Mapping[str, str]) -> Check:
    """There is a fit of the type of model of each job, which trains it alone."""
    known = {row.uid: fit for fit in learnt for row in fit.compared if fit.rows > 0}
    told = [
        f"{name}: {known[uid].model_type.partition(' ')[0]} from {known[uid].rows} "
        f"{'plan' if known[uid].rows == 1 else 'plans'}"
        if uid in known
        else f"{name}: nothing"
        for uid, name in jobs.items()
    ]
    return Check(
        "what steps take was learnt on the spot from the steps of each job",
        len(jobs) == _JOBS and jobs.keys() <= known.keys(),
        ", ".join(told),
    )


def _rules(expected: Expected) -> Check:
    if expected.refused is None:
        found = "the control plane's count could not be read"
    else:
        found = f"{expected.refused} decisions were refused, whole or about a job"
    return Check(
        f"no decision of {expected.policy or 'the policy'} broke a rule: capacity, gangs, quotas, "
        "promises, cool-down",
        expected.refused == 0,
        found,
    )


def _steps(history: History, uid: str, label: str, points: Sequence[LossFact]) -> Check:
    """Each step once: by the losses, and by the steps at which ranks said they stopped or left."""
    spans = _of(history, uid)
    least = max((job.steps_total for job in history.jobs if job.uid == uid), default=1)
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


def _continuity(history: History, expected: Expected, label: Mapping[str, str]) -> Check:
    """No loss jumps where a job was reconfigured; where that was so early or late that the curve
    around it is too short to tell, that is said.
    """
    found, holds, judged = [], True, set()
    for series in history.losses:
        points, name = series.counted, label.get(series.uid, series.uid)
        losses = [point.loss for point in points]
        if not all(map(math.isfinite, losses)):
            return Check(_NO_JUMP, False, f"a loss of {name} is no number")
        for mark in series.marks:
            seam = bisect_left(points, mark.step, key=lambda one: one.step)
            where = f"{name} step {points[seam].step}"
            jump = jump_at(losses, seam)
            if jump is None:
                found.append(f"{where}: too few steps around it to tell")
                continue
            judged.add(series.uid)
            size, allowed = abs(jump[0]), _STANDARD_ERRORS * jump[1]
            holds = holds and size <= allowed
            found.append(f"{where}: {jump[0]:+.3f}, its noise is ±{allowed:.3f}")
    if expected.changes_kind and expected.elastic not in judged:
        holds = False
        found.append(f"no change of {label.get(expected.elastic, 'the first job')} can be judged")
    return Check(_NO_JUMP, holds, "; ".join(found) or "nobody was reconfigured")


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
