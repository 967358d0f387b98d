"""Which types of models are worth fitting again, and fitting one. Pure; when and where it runs is
an edge's business.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from controlplane.domain.clock import Instant
from controlplane.domain.lesson import ComparedRow, Comparison, Learnt, Lesson
from controlplane.domain.model_type import ModelType, type_named, type_text
from controlplane.domain.observation import Observation
from controlplane.domain.step_time_fit import StepTimeFit, fit_key
from controlplane.rubick.fits import as_model, as_stored, donor_of, prior_of
from controlplane.rubick.fitting import fit
from controlplane.rubick.measurements import Measurement, columns
from controlplane.rubick.step_time import StepTimeModel
from headrace.api.accelerator_type import type_label

MORE_ROWS = 1.3
"""So many times the rows of the last fit are news, however well it predicted them."""

ROWS_ENOUGH = 7
"""So many tell enough of a model that what was left out of a fit can judge it: as many as Rubick's
profiles have (MLSys 2025)."""

ROWS_FITTED = 500
"""The newest ones; more cost time and teach little."""


def lessons(
    observations: Iterable[Observation], fits: Mapping[str, StepTimeFit]
) -> Iterator[Lesson]:
    """Types of which there is news: never fitted, many more rows, or a row beyond its interval.

    Args:
        observations: What jobs told.
        fits: What was learnt so far.
    """
    for (model_type, kind), told in _by_type(observations).items():
        if type_named(model_type) is None:
            continue
        before = fits.get(fit_key(model_type, kind))
        kept = tuple(told[-ROWS_FITTED:])
        if before is None or as_model(before) is None:
            yield Lesson(model_type, kind, kept, None, donor_of(model_type, kind, fits.values()))
        elif len(kept) > MORE_ROWS * before.rows or _surprises(kept, before):
            yield Lesson(model_type, kind, kept, before, None)


def _by_type(observations: Iterable[Observation]) -> dict[tuple[str, str], list[Observation]]:
    """What was measured, by types of model and of accelerator, those told last coming last."""
    groups: dict[tuple[str, str], list[Observation]] = {}
    for each in sorted(observations, key=lambda each: each.at):
        if each.row.machine is not None and each.row.iteration is not None:
            kind = type_label(each.row.machine.device)
            groups.setdefault((type_text(each.row.asked), kind), []).append(each)
    return groups


def comparisons(
    observations: Iterable[Observation], fits: Mapping[str, StepTimeFit]
) -> Iterator[Comparison]:
    """Every fit beside what was measured of its type: how good it is, for people to see.

    Args:
        observations: What jobs told.
        fits: What was learnt so far; those of a release with other parameters are left out.
    """
    groups = _by_type(observations)
    for fit_known in fits.values():
        model, known = as_model(fit_known), type_named(fit_known.model_type)
        if model is None or known is None:
            continue
        told = groups.get((fit_known.model_type, fit_known.accelerator_type), ())
        yield Comparison(fit_known, tuple(_compared(told, fit_known, model, known)))


def _compared(
    told: Sequence[Observation], fit_known: StepTimeFit, model: StepTimeModel, known: ModelType
) -> Iterator[ComparedRow]:
    if not told:
        return
    rows = columns(_measurements(told))
    times = model.predict(rows)
    guesses = prior_of(known, fit_known.accelerator_type, None).seconds(rows)
    for each, seconds, lower, upper, guess in zip(
        told,
        times.seconds.tolist(),
        times.lower.tolist(),
        times.upper.tolist(),
        guesses.tolist(),
        strict=True,
    ):
        yield ComparedRow(each, seconds, lower, upper, guess, is_news=each.at > fit_known.at)


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
    """Fits the rows of a lesson.

    Raises:
        ValueError: A row is no measurement of a step, or the type is not one of this release.
    """
    known = type_named(lesson.model_type)
    if known is None:
        raise ValueError(f"wanted a type of a built-in model, got {lesson.model_type!r}")
    rows = _measurements(lesson.told)
    prior = prior_of(known, lesson.accelerator_type, lesson.donor)
    before = as_model(lesson.before) if lesson.before is not None else None
    found = fit(rows, prior, before)
    if not all(np.isfinite(list(found.model.parameters().values()))):
        raise ValueError(f"{lesson.model_type}: the fit has no finite parameters")
    since = lesson.before.at if lesson.before is not None else Instant(-1)
    newest = _measurements(each for each in lesson.told if each.at > since) or rows
    # Judged by news that it was not fitted to: of several rows every other one is kept apart, if
    # enough are left to fit. A fit to one of two rows says nothing of a fit to both.
    unseen = newest[1::2] if len(rows) - len(newest[1::2]) >= ROWS_ENOUGH else []
    judged = found.model
    if unseen:
        judged = fit([row for row in rows if row not in unseen], prior, before).model
    error_before = _error(before or prior, unseen or newest)
    error = _error(judged, unseen or newest)
    threads = float(np.median([row.cpu_threads for row in rows]))
    # A prior knows no row of the type at all: whatever knows some is better.
    adopted = lesson.before is None or error <= error_before
    kept = as_stored(found.model, lesson.model_type, lesson.accelerator_type, threads, lesson.at)
    outliers = (f"{each.row}: {each.ratio:.2f} times what is predicted" for each in found.outliers)
    return Learnt(kept if adopted else None, error_before, error, tuple(outliers))


def _measurements(told: Iterable[Observation]) -> list[Measurement]:
    return [Measurement.of_row(each.row) for each in told]


def _error(model: StepTimeModel, rows: Sequence[Measurement]) -> float:
    """Mean error, as a share of what was measured, too high and too low alike."""
    off = np.log(model.seconds(columns(rows))) - np.log([row.seconds for row in rows])
    return float(np.expm1(np.abs(off)).mean())
