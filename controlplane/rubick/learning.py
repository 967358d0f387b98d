"""Which types of models are worth fitting again, and fitting one. Pure; when and where it runs is
an edge's business.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import nan

import numpy as np

from controlplane.domain.clock import Instant
from controlplane.domain.lesson import Learnt, Lesson
from controlplane.domain.model_type import type_named, type_text
from controlplane.domain.observation import Observation
from controlplane.domain.step_time_fit import StepTimeFit, fit_key
from controlplane.rubick.fits import as_model, as_stored, donor_of, is_usable, prior_of
from controlplane.rubick.fitting import fit
from controlplane.rubick.measurements import Measurement, columns
from controlplane.rubick.plausibility import absurdities
from controlplane.rubick.step_time import StepTimeModel
from headrace.api.accelerator_type import type_label

MORE_ROWS = 1.3
"""So many times the rows of the last fit are news, however well it predicted them."""

ROWS_ENOUGH = 7
"""So many tell enough of a model that a fit to them can be judged: as many as Rubick's profiles
have (MLSys 2025). With fewer all are learnt from: two fits to a row or two say nothing of each
other."""

FEW_ROWS = 12
"""With fewer, a row about a plan and place of which there was none is news: some plan may be tried
just to learn it.
"""

ROWS_FITTED = 500
"""The newest ones; more cost time and teach little. Of what jobs told and of what was imported half
as many have room, however much there is of the other.
"""


def lessons(
    observations: Iterable[Observation], fits: Mapping[str, StepTimeFit]
) -> Iterator[Lesson]:
    """Types of which there is news: never fitted, many more rows, any while there are few, or a row
    beyond its interval. What cannot be true is no news of a type that was fitted.

    Args:
        observations: What jobs told.
        fits: What was learnt so far.
    """
    for key, kept in by_type(observations).items():
        model_type, kind = type_text(kept[0].row.asked), _kind(kept[0])
        if type_named(model_type) is None:
            continue
        before = fits.get(key)
        if before is None or not is_usable(before):
            yield Lesson(model_type, kind, kept, None, donor_of(model_type, kind, fits.values()))
            continue
        sound, _ = told_apart(kept)
        if _are_more(len(sound), before.rows) or _surprises(sound, before):
            yield Lesson(model_type, kind, kept, before, None)


def by_type(observations: Iterable[Observation]) -> dict[str, tuple[Observation, ...]]:
    """What was measured of each type of model on each type of accelerator, by `fit_key`: the newest
    rows of jobs and of imports, those told last coming last.
    """
    groups: dict[str, list[Observation]] = {}
    for each in observations:
        if each.row.machine is not None and each.row.iteration is not None:
            key = fit_key(type_text(each.row.asked), _kind(each))
            groups.setdefault(key, []).append(each)
    return {key: tuple(_newest(told)) for key, told in groups.items()}


def _newest(told: Sequence[Observation]) -> list[Observation]:
    """As many as are fitted."""
    in_order = sorted(told, key=lambda each: each.at)
    if len(in_order) <= ROWS_FITTED:
        return in_order
    imported = sum(bool(each.who) for each in told)
    half = ROWS_FITTED // 2
    room = {
        True: min(imported, max(half, ROWS_FITTED - (len(told) - imported))),
        False: min(len(told) - imported, max(half, ROWS_FITTED - imported)),
    }
    found: list[Observation] = []
    for each in reversed(in_order):
        if room[bool(each.who)]:
            room[bool(each.who)] -= 1
            found.append(each)
    return found[::-1]


def told_apart(
    told: Sequence[Observation],
) -> tuple[list[Observation], list[tuple[Observation, str]]]:
    """What can be true, and what cannot, with why.

    Args:
        told: What was measured of types of models that this release knows.
    """
    sound: list[Observation] = []
    absurd: list[tuple[Observation, str]] = []
    for each, problem in zip(told, absurdities([each.row for each in told]), strict=True):
        if problem:
            absurd.append((each, problem))
        else:
            sound.append(each)
    return sound, absurd


def _kind(told: Observation) -> str:
    assert told.row.machine is not None
    return type_label(told.row.machine.device)


def _are_more(rows: int, before: int) -> bool:
    return rows > MORE_ROWS * before or before < min(rows, FEW_ROWS)


def _surprises(told: Sequence[Observation], before: StepTimeFit) -> bool:
    """Whether something that it did not know is beyond its interval."""
    model = as_model(before)
    rows = _measurements(each for each in told if each.at > before.at)
    if model is None or not rows:
        return False
    times = model.predict(columns(rows))
    seconds = np.array([row.seconds for row in rows])
    return bool(((seconds < times.lower) | (seconds > times.upper)).any())


def learn(lesson: Lesson) -> Learnt:
    """Fits the rows of a lesson that can be true.

    Raises:
        ValueError: A row is no measurement of a step, or the type is not one of this release.
    """
    known = type_named(lesson.model_type)
    if known is None:
        raise ValueError(f"wanted a type of a built-in model, got {lesson.model_type!r}")
    sound, absurd = told_apart(lesson.told)
    named = tuple(
        f"{Measurement.of_row(each.row)}: not learnt from: {problem}" for each, problem in absurd
    )
    rows = _measurements(sound)
    if not rows:
        return Learnt(None, nan, nan, named)
    prior = prior_of(known, lesson.accelerator_type, lesson.donor)
    before = as_model(lesson.before) if lesson.before is not None else None
    found = fit(rows, prior, before)
    if not all(np.isfinite(list(found.model.parameters().values()))):
        raise ValueError(f"{lesson.model_type}: the fit has no finite parameters")
    since = lesson.before.at if lesson.before is not None else Instant(-1)
    newest = _measurements(each for each in sound if each.at > since) or rows
    # Judged by news that it was not fitted to: of several rows every other one is kept apart, if
    # enough are left to fit.
    unseen = newest[1::2] if len(rows) - len(newest[1::2]) >= ROWS_ENOUGH else []
    judged = found.model
    if unseen:
        judged = fit([row for row in rows if row not in unseen], prior, before).model
    error_before = _error(before or prior, unseen or newest)
    error = _error(judged, unseen or newest)
    threads = float(np.median([row.cpu_threads for row in rows]))
    # A prior knows no row of the type at all: whatever knows some is better.
    adopted = lesson.before is None or len(rows) < ROWS_ENOUGH or error <= error_before
    kept = as_stored(found.model, lesson.model_type, lesson.accelerator_type, threads, lesson.at)
    outliers = (f"{each.row}: {each.ratio:.2f} times what is predicted" for each in found.outliers)
    return Learnt(kept if adopted else None, error_before, error, (*named, *outliers))


def _measurements(told: Iterable[Observation]) -> list[Measurement]:
    return [Measurement.of_row(each.row) for each in told]


def _error(model: StepTimeModel, rows: Sequence[Measurement]) -> float:
    """Median error, as a share of what was measured, too high and too low alike: a row that nothing
    explains does not decide between two models.
    """
    off = np.log(model.seconds(columns(rows))) - np.log([row.seconds for row in rows])
    return float(np.median(np.expm1(np.abs(off))))
