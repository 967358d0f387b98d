"""How a live cluster decides: the policies by name, and what they learn of steps.

What fits is loaded when there is something to fit: it takes as much memory as all the rest.
"""

from collections.abc import Iterable, Mapping

from controlplane.baselines import BASELINES
from controlplane.domain.lesson import Comparison, Learnt, Lesson
from controlplane.domain.observation import Observation
from controlplane.domain.policy import Policy
from controlplane.domain.step_time_fit import StepTimeFit
from controlplane.rubick.fitted import FittedTimes
from controlplane.rubick.policy import Rubick
from controlplane.rubick.settings import LIVE


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


def learn(lesson: Lesson) -> Learnt:
    """See ``rubick.learning``."""
    from controlplane.rubick import learning

    return learning.learn(lesson)


def comparisons(
    observations: Iterable[Observation], fits: Mapping[str, StepTimeFit]
) -> Iterable[Comparison]:
    """See ``rubick.learning``."""
    if not fits:
        return ()
    from controlplane.rubick import learning

    return learning.comparisons(observations, fits)
