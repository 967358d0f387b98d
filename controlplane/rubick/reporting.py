"""How fits stand to the measurements that are kept: what people read of them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from controlplane.domain.clock import Instant
from controlplane.domain.fit_report import (
    ComparedRow,
    Errors,
    FitOutlier,
    FitReport,
    FitSource,
    FittedParameter,
)
from controlplane.domain.ids import JobUid
from controlplane.domain.model_type import type_named
from controlplane.domain.observation import Observation
from controlplane.domain.step_time_fit import StepTimeFit
from controlplane.rubick.configurations import Numbers
from controlplane.rubick.fits import as_model, prior_of
from controlplane.rubick.fitting import OUTLYING_AT
from controlplane.rubick.learning import by_type
from controlplane.rubick.measurements import Measurement, columns
from controlplane.rubick.plausibility import absurdities
from controlplane.rubick.step_time import StepTimeModel, StepTimes
from headrace.api.profile_rows import PlanRow

_FEW_STEPS = 5
_SCATTERS_BY = 0.2
"""Quartiles that are further apart than this share of the median say little of a step."""


def reports(
    fits: Mapping[str, StepTimeFit], observations: Iterable[Observation]
) -> Iterator[FitReport]:
    """A report of each fit, in the order of their names.

    Args:
        fits: What was learnt.
        observations: What is kept of what was measured.
    """
    told = by_type(observations)
    for key in sorted(fits):
        yield _report(fits[key], told.get(key, ()))


def _report(fit: StepTimeFit, told: Sequence[Observation]) -> FitReport:
    model, known = as_model(fit), type_named(fit.model_type)
    if model is None or known is None:
        return FitReport(
            fit,
            rows_since=sum(each.at > fit.at for each in told),
            sources=_sources(told),
            unusable=(
                "it was fitted by a release with other parameters, or is of a model that this one "
                "does not have"
            ),
        )
    if not told:
        return FitReport(fit, parameters=_parameters(model))
    rows = columns([Measurement.of_row(each.row) for each in told])
    times, guesses = model.predict(rows), prior_of(known, fit.accelerator_type, None).seconds(rows)
    logs, half = np.log(times.seconds), np.log(times.upper / times.seconds)
    off = np.log([each.row.iteration or np.nan for each in told]) - logs
    problems = absurdities([each.row for each in told])
    sound = np.array([not problem for problem in problems], dtype=bool)
    came = np.array([each.at > fit.at for each in told], dtype=bool)
    knew = sound & ~came
    return FitReport(
        fit,
        errors=_errors(off[knew]),
        errors_since=_errors(off[sound & came]),
        rows_since=int(came.sum()),
        held=float((np.abs(off) <= half)[knew].mean()) if knew.any() else None,
        sources=_sources(told),
        outliers=tuple(_outliers(fit, told, logs, off, problems)),
        compared=tuple(_compared(fit, told, times, guesses)),
        parameters=_parameters(model),
    )


def _compared(
    fit: StepTimeFit, told: Sequence[Observation], times: StepTimes, guesses: Numbers
) -> Iterator[ComparedRow]:
    for each, seconds, lower, upper, guess in zip(
        told,
        times.seconds.tolist(),
        times.lower.tolist(),
        times.upper.tolist(),
        guesses.tolist(),
        strict=True,
    ):
        yield ComparedRow(each, seconds, lower, upper, guess, is_news=each.at > fit.at)


def _errors(off: Numbers) -> Errors | None:
    if not len(off):
        return None
    shares = np.expm1(np.abs(off))
    return Errors(float(shares.mean()), float(np.median(shares)), float(shares.max()))


def _outliers(
    fit: StepTimeFit,
    told: Sequence[Observation],
    logs: Numbers,
    off: Numbers,
    problems: Sequence[str],
) -> Iterator[FitOutlier]:
    for place in np.argsort(-np.abs(off), kind="stable"):
        each = told[place]
        problem = problems[place]
        if not problem and abs(off[place]) <= OUTLYING_AT * fit.noise:
            continue
        ratio = float(np.exp(off[place]))
        told_by = f"imported by {each.who}" if each.who else f"told by job {each.uid}"
        came = ", and came after the fit" if each.at > fit.at else ""
        why = f"not learnt from: {problem}" if problem else _why_off(each.row)
        reason = f"{ratio:.3g} times what is predicted; {why}; {told_by}{came}"
        yield FitOutlier(each.row, float(np.exp(logs[place])), reason)


def _why_off(row: PlanRow) -> str:
    low, high, median = row.iteration_lower, row.iteration_upper, row.iteration
    if low is not None and high is not None and median and high - low > _SCATTERS_BY * median:
        return f"its steps scattered, half of them from {low:.3g} to {high:.3g} s"
    if 0 < row.steps < _FEW_STEPS:
        return f"only {row.steps} steps were measured"
    return "the other rows do not bear it out"


def _sources(told: Sequence[Observation]) -> tuple[FitSource, ...]:
    counts: dict[tuple[JobUid, str], list[Instant]] = {}
    for each in told:
        counts.setdefault((each.uid, each.who), []).append(each.at)
    found = [FitSource(uid, who, len(at), max(at)) for (uid, who), at in counts.items()]
    return tuple(sorted(found, key=lambda each: (-each.rows, each.uid, each.who)))


def _parameters(model: StepTimeModel) -> tuple[FittedParameter, ...]:
    spreads = np.exp(np.sqrt(np.diag(model.covariance))).tolist()
    return tuple(
        FittedParameter(name, value, factor)
        for (name, value), factor in zip(model.parameters().items(), spreads, strict=True)
    )
