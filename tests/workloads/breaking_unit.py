"""A unit that breaks at a chosen place: killed in a phase of a change of plan, or cut off.

TEST_BREAK says where: ``relaid``, ``parameters``, ``equip``, ``moments`` and ``first-step`` are
phases of a change of plan at which the process gets a SIGKILL; ``cut-off`` shuts its connections to
the other ranks, but not the one to the notice board. TEST_BREAK_UNIT says which unit. The change
of plan is asked for by TEST_PLAN while step 10 is trained.
"""

import os
import signal
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headrace.workloads import launch
from headrace.workloads.control import ControlFolder
from headrace.workloads.training import planned, switching, trainer


def _die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _before(owner: Any, name: str, what: Callable[[], None]) -> None:
    """Do something before every call of a method."""
    original = getattr(owner, name)

    def called(*args: Any, **kwargs: Any) -> Any:
        what()
        return original(*args, **kwargs)

    setattr(owner, name, called)


def _before_step(step: int, what: Callable[[], object]) -> None:
    steps: list[int] = []

    def count() -> None:
        steps.append(1)
        if len(steps) == step:
            what()

    _before(planned.PlannedModel, "gradients", count)


def _while_switching(owner: Any, name: str, *, call: int = 1) -> None:
    """Die at the n-th call of a method within the first change of plan."""
    calls: list[int] = []
    switching_now: list[bool] = []

    def count() -> None:
        if switching_now:
            calls.append(1)
            if len(calls) == call:
                _die()

    _before(owner, name, count)
    module: Any = trainer
    original = module.switched

    def switched(*args: Any) -> Any:
        switching_now.append(True)
        found = original(*args)
        if name == "gradients":
            return found
        switching_now.clear()
        return found

    module.switched = switched


def _cut_off() -> None:
    """Shut what leads to other ranks; the notice board listens on the port of the rendezvous."""
    folder = Path(os.environ["HEADRACE_CONTROL_DIR"])
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
    """Run the unit, prepared to break."""
    where = os.environ["TEST_BREAK"]
    folder = Path(os.environ["HEADRACE_CONTROL_DIR"])
    if plan := os.environ.get("TEST_PLAN"):
        _before_step(10, lambda: (folder / "plan").write_text(plan))
    if folder.name == f"unit-{os.environ['TEST_BREAK_UNIT']}":
        match where:
            case "relaid" | "equip":
                _while_switching(planned.PlannedModel, where)
            case "parameters":
                _while_switching(switching._Exchange, "_carry")
            case "moments":
                _while_switching(switching._Exchange, "run", call=2)
            case "first-step":
                _while_switching(planned.PlannedModel, "gradients")
            case "cut-off":
                _before_step(5, _cut_off)
    return launch.main()
