"""Starts units for tests: imports torch once, then forks a real process for each.

Reads one JSON line a unit from stdin ({"environment", "output"}), answers with its pid. Forking
saves each of the many units of this folder the seconds that importing torch and transformers
takes; what runs in them is ``headrace.workloads.launch`` all the same, in processes of their own.
"""

import ctypes
import importlib
import json
import os
import resource
import signal
import sys

from headrace.workloads import launch
from headrace.workloads.collector import importing

with importing():  # what the collector leaves alone stays shared by the forked units
    for name in ("built_in", "run"):
        importlib.import_module(f"headrace.workloads.training.{name}")
    for name in ("bert", "roberta", "t5", "vit"):
        importlib.import_module(f"transformers.models.{name}.modeling_{name}")

_PR_SET_PDEATHSIG = 1


def _become_unit(environment: dict[str, str], output: str) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if limit := environment.pop("TEST_ADDRESS_SPACE_BYTES", ""):
        resource.setrlimit(resource.RLIMIT_AS, (int(limit), int(limit)))
    os.environ.update(environment)
    target = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(target, 1)
    os.dup2(target, 2)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    status = 1
    try:
        other = environment.get("TEST_MODULE")
        status = importlib.import_module(other).main() if other else launch.main()
    finally:
        launch.leave_now(status)


def main() -> None:
    """Serve until stdin closes."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # ended units are reaped by the kernel
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become_unit(request["environment"], request["output"])
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
