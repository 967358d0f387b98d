"""A unit whose connections to the other ranks break at its fifth step, and not the one to the
notice board: TEST_CUT_OFF says which unit.
"""

import os
import socket
import stat
from pathlib import Path
from typing import Any

from headrace.workloads import launch
from headrace.workloads.control import ControlFolder
from headrace.workloads.training.planned import PlannedModel


def cut_off(folder: Path) -> None:
    """Shut what leads to other ranks; the notice board listens on the port of the rendezvous."""
    board = int(ControlFolder(folder).launch().rendezvous.rpartition(":")[2])
    for entry in list(Path("/proc/self/fd").iterdir()):
        number = int(entry.name)
        try:
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                continue
            with socket.socket(fileno=os.dup(number)) as found:
                if found.getpeername()[1] != board:
                    found.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue


def main() -> int:
    """Run the unit, prepared to be cut off."""
    folder = Path(os.environ["HEADRACE_CONTROL_DIR"])
    gradients, steps = PlannedModel.gradients, 0

    def counted(self: PlannedModel, *given: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 5 and folder.name == f"unit-{os.environ['TEST_CUT_OFF']}":
            cut_off(folder)
        return gradients(self, *given)

    PlannedModel.gradients = counted  # type: ignore[assignment, method-assign]
    return launch.main()
