"""How a live cluster decides: the policies by name, and what they learn of steps.

What fits is loaded when there is something to fit: it takes as much memory as all the rest.
"""

from collections.abc import Iterable, Mapping, Sequence

from controlplane.baselines import BASELINES
from controlplane.domain.fit_report import FitReport
from controlplane.domain.lesson import Learnt, Lesson
from controlplane.domain.observation import Observation
from controlplane.domain.policy import Policy
from controlplane.domain.step_time_fit import StepTimeFit
from controlplane.rubick.fitted import FittedTimes
from controlplane.rubick.policy import Rubick
from controlplane.rubick.settings import LIVE
from headrace.api.profile_rows import PlanRow


def live_policies() -> Mapping[str, Policy]:
    """Every policy of a live cluster, by the name in its settings. Rubick chooses by models that
    are fitted to what jobs tell.
    """
    return {**BASELINES, "rubick": Rubick(FittedTimes(), LIVE)}


def lessons(
    observations: Iterable[Observation], fits: Mapping[str, StepTimeFit]
) -> Iterable[Lesson]:
    """See ``rubick.learning``."""
    told = tuple(observations)
    if not told:
        return ()
    from controlplane.rubick import learning

    return learning.lessons(told, fits)


def absurdity(row: PlanRow) -> str:
    """See ``rubick.plausibility``."""
    from controlplane.rubick import plausibility

    return plausibility.absurdity(row)


def doubts(rows: Sequence[PlanRow], fits: Mapping[str, StepTimeFit]) -> Sequence[str]:
    """See ``rubick.plausibility``."""
    from controlplane.rubick import plausibility

    return plausibility.doubts(rows, fits)


def fit_reports(
    fits: Mapping[str, StepTimeFit], observations: Iterable[Observation]
) -> Sequence[FitReport]:
    """See ``rubick.reporting``."""
    if not fits:
        return ()
    from controlplane.rubick import reporting

    return tuple(reporting.reports(fits, observations))


def learn(lesson: Lesson) -> Learnt:
    """See ``rubick.learning``."""
    from controlplane.rubick import learning

    return learning.learn(lesson)
