"""A performance model that was fitted to measured steps: names and numbers, as the log keeps it."""

from dataclasses import dataclass

from controlplane.domain.clock import Instant


@dataclass(frozen=True, slots=True)
class StepTimeFit:
    """What is known of the steps of one type of model on one type of accelerator.

    Attributes:
        model_type: See ``model_type.type_text``.
        accelerator_type: As nodes call it.
        parameters: Fitted numbers by name. A release that has others does not use the fit.
        covariance: Of their logarithms: the lower triangle, row by row.
        noise: Standard deviation of the logarithm of a measured time, beside the parameters'.
        interval_factor: How many standard deviations an interval reaches to each side.
        coverage: Probability with which an interval is meant to hold a measured time.
        rows: Measurements that it was fitted to.
        cpu_threads: Threads of a rank in these, their median.
        at: Of the measurements, it knows those that were told by then.
        fitted_at: When it became part of the state; 0 in those that were stored before this was
            noted.
    """

    model_type: str
    accelerator_type: str
    parameters: tuple[tuple[str, float], ...]
    covariance: tuple[float, ...]
    noise: float
    interval_factor: float
    coverage: float
    rows: int
    cpu_threads: float
    at: Instant
    fitted_at: Instant = Instant(0)

    @property
    def key(self) -> str:
        """Under which it is found."""
        return fit_key(self.model_type, self.accelerator_type)


def fit_key(model_type: str, accelerator_type: str) -> str:
    """Under which the fit of a type of model on a type of accelerator is found."""
    return f"{model_type} on {accelerator_type}"
