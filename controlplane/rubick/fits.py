"""Between what the log keeps of a fit and the model that predicts; and what a model begins with."""

from collections.abc import Iterable

import numpy as np

from controlplane.domain.clock import Instant
from controlplane.domain.model_type import ModelType, type_named
from controlplane.domain.step_time_fit import StepTimeFit
from controlplane.rubick.parameters import NAMES
from controlplane.rubick.priors import prior_for, transferred
from controlplane.rubick.sizes import ModelSizes
from controlplane.rubick.step_time import StepTimeModel
from headrace.api.profile_rows import device_labelled


def sizes_of(known: ModelType) -> ModelSizes:
    """Sizes of a type of model."""
    return ModelSizes.of_shape(
        known.shape, sequence_length=known.positions, precision=known.precision
    )


def as_stored(
    model: StepTimeModel, model_type: str, accelerator_type: str, cpu_threads: float, at: Instant
) -> StepTimeFit:
    """A fitted model as names and numbers."""
    return StepTimeFit(
        model_type=model_type,
        accelerator_type=accelerator_type,
        parameters=tuple(model.parameters().items()),
        covariance=tuple(model.covariance[np.tril_indices(len(NAMES))].tolist()),
        noise=float(model.noise),
        interval_factor=float(model.interval_factor),
        coverage=float(model.coverage),
        rows=model.rows,
        cpu_threads=cpu_threads,
        at=at,
    )


def is_usable(fit: StepTimeFit) -> bool:
    """Whether this release can predict by the fit: it knows the model, and the same parameters."""
    return type_named(fit.model_type) is not None and (
        tuple(name for name, _ in fit.parameters) == NAMES
    )


def as_model(fit: StepTimeFit) -> StepTimeModel | None:
    """The model that predicts; None if the fit is not usable."""
    known = type_named(fit.model_type)
    if known is None or not is_usable(fit):
        return None
    lower = np.zeros((len(NAMES), len(NAMES)))
    lower[np.tril_indices(len(NAMES))] = fit.covariance
    return StepTimeModel(
        sizes=sizes_of(known),
        log_parameters=np.log([value for _, value in fit.parameters]),
        covariance=lower + np.tril(lower, -1).T,
        noise=fit.noise,
        interval_factor=fit.interval_factor,
        coverage=fit.coverage,
        rows=fit.rows,
    )


def donor_of(
    model_type: str, accelerator_type: str, fits: Iterable[StepTimeFit]
) -> StepTimeFit | None:
    """The fit that tells most about another type of model on the same accelerators: rather one of
    the same model, then the one with the most rows; None if there is none that is usable.
    """
    name = model_type.partition(" ")[0]

    def rank(fit: StepTimeFit) -> tuple[bool, int, str]:
        return (fit.model_type.partition(" ")[0] != name, -fit.rows, fit.model_type)

    others = (
        fit
        for fit in fits
        if fit.accelerator_type == accelerator_type
        and fit.model_type != model_type
        and is_usable(fit)
    )
    return min(others, key=rank, default=None)


def prior_of(known: ModelType, accelerator_type: str, donor: StepTimeFit | None) -> StepTimeModel:
    """What is expected of a type of model before any step of it was measured there.

    Args:
        known: The type of model.
        accelerator_type: As nodes call it.
        donor: A fit of another model there, if there is one.
    """
    taught = as_model(donor) if donor is not None else None
    if taught is not None:
        return transferred(taught, sizes_of(known))
    return prior_for(sizes_of(known), device_labelled(accelerator_type), precision=known.precision)
