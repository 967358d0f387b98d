"""A unit that dies as by ``kill -9`` in one phase of a change of plan, told by environment.

The phase is a method of the model: ``relaid`` begins the change, ``allocate`` comes before the
weights move, ``equip`` before the optimizer's states do, ``begin_at`` when all has arrived,
``gradients`` with the first step under the new plan.
"""

import os
import signal
from typing import Any

from headrace.workloads import launch
from headrace.workloads.training.planned import PlannedModel


def _dies_in(phase: str) -> None:
    relaid, method = PlannedModel.relaid, getattr(PlannedModel, phase)
    changing = phase == "relaid"

    def begun(self: PlannedModel, *given: Any) -> PlannedModel:
        nonlocal changing
        changing = True
        return relaid(self, *given)

    def killed(self: PlannedModel, *given: Any) -> Any:
        if changing:
            os.kill(os.getpid(), signal.SIGKILL)
        return method(self, *given)

    PlannedModel.relaid = begun  # type: ignore[assignment, method-assign]
    setattr(PlannedModel, phase, killed)


def main() -> int:
    """Run the unit; the victim dies in the phase."""
    if os.environ["HEADRACE_CONTROL_DIR"].endswith(f"/unit-{os.environ['TEST_VICTIM']}"):
        _dies_in(os.environ["TEST_PHASE"])
    return launch.main()
