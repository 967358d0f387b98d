"""What there is to learn of steps, and what became of it."""

from dataclasses import dataclass

from controlplane.domain.clock import Instant
from controlplane.domain.observation import Observation
from controlplane.domain.step_time_fit import StepTimeFit, fit_key


@dataclass(frozen=True, slots=True)
class Lesson:
    """A type of model on a type of accelerator of which there is something to learn.

    Attributes:
        model_type: See ``model_type.type_text``.
        accelerator_type: As nodes call it.
        told: What was measured, those told last coming last.
        before: The fit that there is; None if this is the first.
        donor: A fit of another model there, from which the first one begins.
    """

    model_type: str
    accelerator_type: str
    told: tuple[Observation, ...]
    before: StepTimeFit | None
    donor: StepTimeFit | None

    @property
    def key(self) -> str:
        """Under which the fit is found."""
        return fit_key(self.model_type, self.accelerator_type)

    @property
    def at(self) -> Instant:
        """When the newest of it was told."""
        return max(each.at for each in self.told)


@dataclass(frozen=True, slots=True)
class Learnt:
    """What became of a lesson.

    Attributes:
        fit: The fit; None if it predicts the newest rows worse than what there was, or there was
            no row that can be true.
        error_before: Median error of the newest rows, as a share, by what there was; no number if
            no row can be true.
        error: The same by the fit.
        outliers: Rows that cannot be true, and then those that the fit does not explain, worst
            first, in words.
    """

    fit: StepTimeFit | None
    error_before: float
    error: float
    outliers: tuple[str, ...]
