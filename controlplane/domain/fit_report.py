"""How a fit stands to what was measured, for people."""

from dataclasses import dataclass

from controlplane.domain.clock import Instant
from controlplane.domain.ids import JobUid
from controlplane.domain.observation import Observation
from controlplane.domain.step_time_fit import StepTimeFit
from headrace.api.profile_rows import PlanRow


@dataclass(frozen=True, slots=True)
class FitSource:
    """Who told some of the measurements.

    Attributes:
        uid: A job that told in passing; empty for an import.
        who: Who imported; empty for what jobs told.
        rows: How many of those that are kept.
        last_at: When the newest was told.
    """

    uid: JobUid
    who: str
    rows: int
    last_at: Instant


@dataclass(frozen=True, slots=True)
class FitOutlier:
    """A measurement that the fit does not bear out.

    Attributes:
        row: What was measured.
        predicted_seconds: What a step takes by the fit.
        reason: Why it may be so far off, and who told it.
    """

    row: PlanRow
    predicted_seconds: float
    reason: str


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
class FittedParameter:
    """A number of the fit.

    Attributes:
        name: With its unit.
        value: Its median.
        factor: By which factor it may well be larger or smaller: one standard deviation.
    """

    name: str
    value: float
    factor: float


@dataclass(frozen=True, slots=True)
class Errors:
    """Errors of predictions, as shares of what was measured, too high and too low alike."""

    mean: float
    median: float
    highest: float


@dataclass(frozen=True, slots=True)
class FitReport:
    """A fit beside the measurements that are kept. Of several about the same only the newest is, so
    they may be fewer or newer than those that it was fitted to.

    Attributes:
        fit: The fit.
        errors: Of the rows that it knew; None if none of them is kept.
        errors_since: Of those that came since; None if none did.
        rows_since: How many came since.
        held: Share of the rows that it knew which are within their intervals; None if none is left.
        sources: Who told the rows, who told most first.
        outliers: Rows that it does not bear out, worst first.
        compared: What was measured of its type, those told last coming last.
        parameters: Its numbers.
        unusable: Why this release cannot predict by it; empty if it can.
    """

    fit: StepTimeFit
    errors: Errors | None = None
    errors_since: Errors | None = None
    rows_since: int = 0
    held: float | None = None
    sources: tuple[FitSource, ...] = ()
    outliers: tuple[FitOutlier, ...] = ()
    compared: tuple[ComparedRow, ...] = ()
    parameters: tuple[FittedParameter, ...] = ()
    unusable: str = ""
