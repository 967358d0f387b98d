"""How a live cluster decides: the policies by name, and what they know of steps."""

from collections.abc import Mapping

from controlplane.baselines import BASELINES
from controlplane.domain.policy import Policy
from controlplane.rubick.fitted import FittedTimes
from controlplane.rubick.learning import learn, lessons
from controlplane.rubick.policy import Rubick
from controlplane.rubick.settings import LIVE

__all__ = ["learn", "lessons", "live_policies"]


def live_policies() -> Mapping[str, Policy]:
    """Every policy of a live cluster, by the name in its settings. Rubick chooses by models that
    are fitted to what jobs tell.
    """
    return {**BASELINES, "rubick": Rubick(FittedTimes(), LIVE)}
