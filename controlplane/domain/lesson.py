"""What there is to learn of steps, what became of it, and how good it is."""

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
        fit: The fit; None if it predicts the newest rows worse than what there was.
        error_before: Mean error of the newest rows, as a share, by what there was.
        error: The same by the fit.
        outliers: Rows that it does not explain, in words, worst first.
    """

    fit: StepTimeFit | None
    error_before: float
    error: float
    outliers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ComparedRow:
    """A step that was measured, and what is predicted of it. Times are in seconds.

    Attributes:
        told: What was measured.
        predicted: By the fit.
        lower: Lower end of the fit's interval.
        upper: Upper end of it.
        guessed: By the model's sizes and the accelerator's name alone, as before anything was
            measured there.
        is_news: Whether it was told after the fit, which does not know it.
    """

    told: Observation
    predicted: float
    lower: float
    upper: float
    guessed: float
    is_news: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """A fit beside what was measured.

    Attributes:
        fit: The fit.
        rows: What was measured of its type, those told last coming last.
    """

    fit: StepTimeFit
    rows: tuple[ComparedRow, ...]
