"""A unit that dies as by ``kill -9`` while the number of ranks changes, told by environment.

TEST_VICTIM says which unit, TEST_PHASE in which call: of ``meeting``, when the ranks are about to
meet, ``allocate``, before the weights move, or ``let_go``, when some are about to leave. TEST_CALL
says in which call of it in its life.
"""

import os
import signal
from typing import Any

from headrace.workloads import launch, watch
from headrace.workloads.training import run, trainer, world
from headrace.workloads.training.planned import PlannedModel


def _dying(method: Any, call: int) -> Any:
    calls = 0

    def counted(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return method(*given)

    return counted


def main() -> int:
    """Run the unit; the victim dies in the phase, which the others notice soon."""
    watch._LISTENED_BEFORE_LOST = 1
    if os.environ["HEADRACE_CONTROL_DIR"].endswith(f"/unit-{os.environ['TEST_VICTIM']}"):
        phase, call = os.environ["TEST_PHASE"], int(os.environ["TEST_CALL"])
        if phase == "meeting":
            run.meeting = trainer.meeting = _dying(world.meeting, call)  # type: ignore[attr-defined]
        elif phase == "allocate":
            PlannedModel.allocate = _dying(PlannedModel.allocate, call)  # type: ignore[method-assign]
        else:
            world.World.let_go = _dying(world.World.let_go, call)  # type: ignore[method-assign]
    return launch.main()
