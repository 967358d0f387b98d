"""Which types of models are worth fitting again, and fitting one. Pure; when and where it runs is
an edge's business.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from controlplane.domain.clock import Instant
from controlplane.domain.lesson import Learnt, Lesson
from controlplane.domain.model_type import type_named, type_text
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

FEW_ROWS = 12
"""With fewer, a row about a plan and place of which there was none is news: some plan may be tried
just to learn it.
"""

ROWS_FITTED = 500
"""The newest ones; more cost time and teach little."""


def lessons(
    observations: Iterable[Observation], fits: Mapping[str, StepTimeFit]
) -> Iterator[Lesson]:
    """Types of which there is news: never fitted, many more rows, any while there are few, or a row
    beyond its interval.

    Args:
        observations: What jobs told.
        fits: What was learnt so far.
    """
    for key, kept in by_type(observations).items():
        model_type, kind = type_text(kept[0].row.asked), _kind(kept[0])
        if type_named(model_type) is None:
            continue
        before = fits.get(key)
        if before is None or as_model(before) is None:
            yield Lesson(model_type, kind, kept, None, donor_of(model_type, kind, fits.values()))
        elif _are_more(len(kept), before.rows) or _surprises(kept, before):
            yield Lesson(model_type, kind, kept, before, None)


def by_type(observations: Iterable[Observation]) -> dict[str, tuple[Observation, ...]]:
    """What was measured of each type of model on each type of accelerator, by `fit_key`: the newest
    rows, those told last coming last.
    """
    groups: dict[str, list[Observation]] = {}
    for each in observations:
        if each.row.machine is not None and each.row.iteration is not None:
            key = fit_key(type_text(each.row.asked), _kind(each))
            groups.setdefault(key, []).append(each)
    return {
        key: tuple(sorted(told, key=lambda each: each.at)[-ROWS_FITTED:])
        for key, told in groups.items()
    }


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
    """Mean error, as a share of what was measured, too high and too low alike. None counts for more
    than the whole, so that a row that nothing explains does not decide between two models.
    """
    off = np.log(model.seconds(columns(rows))) - np.log([row.seconds for row in rows])
    return float(np.minimum(np.expm1(np.abs(off)), 1.0).mean())
