"""How fits stand to the measurements that are kept: what people read of them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from controlplane.domain.clock import Instant
from controlplane.domain.fit_report import (
    Errors,
    FitOutlier,
    FitReport,
    FitSource,
    FittedParameter,
)
from controlplane.domain.ids import JobUid
from controlplane.domain.observation import Observation
from controlplane.domain.step_time_fit import StepTimeFit
from controlplane.rubick.configurations import Numbers
from controlplane.rubick.fits import as_model
from controlplane.rubick.fitting import OUTLYING_AT
from controlplane.rubick.learning import by_type
from controlplane.rubick.measurements import Measurement, columns
from controlplane.rubick.step_time import StepTimeModel
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
    model = as_model(fit)
    if model is None:
        return FitReport(
            fit,
            rows_since=sum(each.at > fit.at for each in told),
            sources=_sources(told),
            unusable=(
                "it was fitted by a release with other parameters, or is of a model that this one "
                "does not have"
            ),
        )
    logs, half = _predicted(model, told)
    off = np.log([each.row.iteration or np.nan for each in told]) - logs
    knew = np.array([each.at <= fit.at for each in told], dtype=bool)
    return FitReport(
        fit,
        errors=_errors(off[knew]),
        errors_since=_errors(off[~knew]),
        rows_since=int((~knew).sum()),
        held=float((np.abs(off) <= half)[knew].mean()) if knew.any() else None,
        sources=_sources(told),
        outliers=tuple(_outliers(fit, told, logs, off)),
        parameters=_parameters(model),
    )


def _predicted(model: StepTimeModel, told: Sequence[Observation]) -> tuple[Numbers, Numbers]:
    """Logarithms of predicted times, and half the width of their intervals."""
    if not told:
        return np.empty(0), np.empty(0)
    times = model.predict(columns([Measurement.of_row(each.row) for each in told]))
    return np.log(times.seconds), np.log(times.upper / times.seconds)


def _errors(off: Numbers) -> Errors | None:
    if not len(off):
        return None
    shares = np.expm1(np.abs(off))
    return Errors(float(shares.mean()), float(np.median(shares)), float(shares.max()))


def _outliers(
    fit: StepTimeFit, told: Sequence[Observation], logs: Numbers, off: Numbers
) -> Iterator[FitOutlier]:
    for place in np.argsort(-np.abs(off), kind="stable"):
        if abs(off[place]) <= OUTLYING_AT * fit.noise:
            return
        each = told[place]
        ratio = float(np.exp(off[place]))
        told_by = f"imported by {each.who}" if each.who else f"told by job {each.uid}"
        came = ", and came after the fit" if each.at > fit.at else ""
        reason = f"{ratio:.3g} times what is predicted; {_why_off(each.row)}; {told_by}{came}"
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
