"""Policies kept for comparison: ``fifo`` and ``equal-share``, and those of other papers, which
choose by step times.
"""

from collections.abc import Mapping

from controlplane.baselines.equal_share import equal_share
from controlplane.baselines.fifo import Fifo
from controlplane.domain.policy import Policy
from controlplane.domain.step_times import StepTimes

BASELINES: Mapping[str, Policy] = {"fifo": Fifo(), "equal-share": equal_share}


def baselines(step_times: StepTimes, switch_seconds: float) -> Mapping[str, Policy]:
    """The policies that need step times, by name; each has its ``assumptions``.

    Args:
        step_times: Knows what steps take.
        switch_seconds: What a restart takes.
    """
    # Their solver takes longer to load than all the rest, and a control plane seldom needs it.
    from controlplane.baselines.antman import AntMan
    from controlplane.baselines.measured_share import MeasuredShare
    from controlplane.baselines.sia import Sia
    from controlplane.baselines.synergy import Synergy

    return {
        "equal-share-measured": MeasuredShare(step_times),
        "sia": Sia(step_times, switch_seconds),
        "sia-dp3d": Sia(step_times, switch_seconds, scale_3d=True),
        "sia-bootstrap": Sia(step_times, switch_seconds, bootstrap=True),
        "synergy": Synergy(step_times),
        "antman": AntMan(step_times),
    }
