r"""Whether a measurement can be true at all, before anything is fitted to it.

A robust fit lets a row that is far off count for little as long as others speak against it. The
first rows of a model have no others, so what cannot be is not taken in where it is imported, and
not learnt from where a job tells it: a step that needs more
arithmetic than the device can do, and one that is further from what the model's sizes and the
hardware's name allow (the prior, which is wide) than

.. math:: |\ln t - \ln \hat t| \le z \sqrt{J \Sigma J^T + \sigma^2}

with z = 5, or 5.5 on devices of which no maker's figure is known: processors above all, which
others may keep busy meanwhile. The rows of docs/evidence are off by 1.3 deviations at most.
"""

from collections.abc import Mapping, Sequence
from math import isfinite

import numpy as np

from controlplane.domain.model_type import ModelType, type_named, type_text
from controlplane.domain.step_time_fit import StepTimeFit, fit_key
from controlplane.rubick.fits import as_model, sizes_of
from controlplane.rubick.measurements import Measurement, columns
from controlplane.rubick.priors import prior_for
from controlplane.rubick.step_time import StepTimeModel, log_seconds_with_jacobian
from headrace.api.accelerator_type import type_label
from headrace.api.plan import ExecutionPlan
from headrace.api.profile_rows import PlanRow, peak_flops, step_flops

ABSURD_AT = 5.0
"""So many standard deviations of the prior a step may be off on a known device."""

ABSURD_ELSEWHERE_TIMES = 500.0
"""On another one, so many times too long or too short. A processor that others use as well may be
a hundred times slower than its sizes let expect; seconds for milliseconds are a thousand.
"""

_ROUNDING = 1.02


def absurdity(row: PlanRow) -> str:
    """What is wrong with the time of a row; empty if it can be true.

    Args:
        row: Measured, of a type of model that this release knows.
    """
    return absurdities([row])[0]


def absurdities(rows: Sequence[PlanRow]) -> list[str]:
    """The same of many, those of a type on a device computed together."""
    found = [""] * len(rows)
    alike: dict[tuple[str, str], list[int]] = {}
    for place, row in enumerate(rows):
        assert row.machine is not None
        assert row.iteration is not None
        if not (isfinite(row.iteration) and row.iteration > 0):
            found[place] = f"wanted a finite time above 0 s, got {row.iteration}"
            continue
        alike.setdefault((type_text(row.asked), row.machine.device), []).append(place)
    for (model_type, device), places in alike.items():
        known = type_named(model_type)
        assert known is not None
        group = [rows[place] for place in places]
        prior = prior_for(sizes_of(known), device, precision=known.precision)
        for place, row, expected, deviation in zip(
            places, group, *_expected(prior, group), strict=True
        ):
            found[place] = _absurdity(known, row, expected, deviation)
    return found


def _absurdity(known: ModelType, row: PlanRow, expected: float, deviation: float) -> str:
    """What is wrong with a time, the logarithm of which is expected to be so much."""
    machine, seconds, asked = row.machine, row.iteration, row.asked
    assert machine is not None
    assert seconds is not None
    flops = step_flops(known.shape, asked.global_batch, asked.sequence_length)
    peak = peak_flops(machine.device, asked.precision)
    ranks = ExecutionPlan.parse(row.plan).ranks
    if peak is not None and flops / seconds / ranks > _ROUNDING * peak:
        times = flops / seconds / ranks / peak
        return (
            f"wanted at least {flops / ranks / peak:.3g} s, which is what {machine.device} needs "
            f"for the arithmetic alone, got {seconds:.4g} s, {times:.1f} times as fast"
        )
    reach = deviation * ABSURD_AT if peak is not None else float(np.log(ABSURD_ELSEWHERE_TIMES))
    off = float(np.log(seconds)) - expected
    if abs(off) <= reach:
        return ""
    low, high = np.exp([expected - reach, expected + reach]).tolist()
    is_milliseconds = off > 0 and abs(off - float(np.log(1000))) <= reach
    hint = "; are these milliseconds?" if is_milliseconds else ""
    return (
        f"wanted {low:.3g} to {high:.3g} s, all that the sizes of {asked.model} on "
        f"{machine.device} allow, got {seconds:.4g} s{hint}"
    )


def doubts(rows: Sequence[PlanRow], fits: Mapping[str, StepTimeFit]) -> tuple[str, ...]:
    """A sentence for each row that is beyond the interval of the fit that there is.

    Args:
        rows: Measured, of types of models that this release knows.
        fits: What was learnt so far; where nothing was, there is no doubt.
    """
    found: list[str] = []
    for row in rows:
        assert row.machine is not None
        assert row.iteration is not None
        fit = fits.get(fit_key(type_text(row.asked), type_label(row.machine.device)))
        model = as_model(fit) if fit is not None else None
        if model is None:
            continue
        measurement = Measurement.of_row(row)
        times = model.predict(columns([measurement]))
        if not times.lower[0] <= row.iteration <= times.upper[0]:
            found.append(
                f"{measurement} takes {row.iteration:.4g} s, {row.iteration / times.seconds[0]:.3g}"
                f" times what is predicted ({times.lower[0]:.3g} to {times.upper[0]:.3g} s): it is "
                "taken, and counts for little unless others bear it out"
            )
    return tuple(found)


def _expected(model: StepTimeModel, rows: Sequence[PlanRow]) -> tuple[list[float], list[float]]:
    """Logarithms of predicted times, and the standard deviations of these."""
    configurations = columns([Measurement.of_row(row) for row in rows])
    logs, jacobian = log_seconds_with_jacobian(model.log_parameters, model.sizes, configurations)
    return logs.tolist(), model.deviations(jacobian).tolist()
