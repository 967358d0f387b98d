"""From whatever a unit ends with to ``exit.json``, a last line of output, and an exit status."""

import sys
from collections.abc import Callable
from typing import Any

from headrace.workloads.control import FAILED, STOPPED, ControlFolder
from headrace.workloads.refusal import RANK_FAILED, StoppedBeforeTraining, reason_of


def ended(control: ControlFolder, run: Callable[[], Any]) -> int:
    """Run, and tell how it ended. ``run`` returns something with outcome, step and message."""
    try:
        end = run()
    except StoppedBeforeTraining as stop:
        return control.exit(STOPPED, message=str(stop) or "stopped before the first step")
    except BaseException as error:  # torch has errors that are no Exception
        code, message = reason_of(error)
        sys.stderr.write(f"{code}: {message}\n")
        step = control.step_begun if code == RANK_FAILED else 0
        return control.exit(FAILED, step=step, reason=code, message=message)
    sys.stdout.write(f"{end.outcome} at step {end.step}. {end.message}".rstrip() + "\n")
    return control.exit(
        end.outcome, step=end.step, reason=getattr(end, "reason", ""), message=end.message
    )
