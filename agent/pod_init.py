"""Process 1 of a job's own pod: starts a supervisor for each unit that the agent hands over.

The pod shares neither folders nor network nor process numbers with its node. The agent, which is
the same user and sees the node's processes, finds this one by its environment, and reaches its
folder through ``/proc`` (``job_pods``). It writes a unit's ``start.json`` and sends SIGUSR1.
There is no Ray here: what an actor does for a unit, a process does.
"""

import ctypes
import json
import os
import signal
import sys
from importlib import metadata
from pathlib import Path

from agent.control_folder import write_atomically
from agent.unit_actor import UnitSupervisor
from headrace.api.variables import JOB_POD_ADDRESS_VARIABLE

FOLDER = Path("/run/headrace")
"""Where the pod has the volume that it speaks with the agent through."""
UNITS, ABOUT, START = "units", "pod.json", "start.json"
PROTOCOL = 1
"""Counts the changes of what pod and agent write for each other; they must be the same."""
LOOK_AGAIN_SECONDS = 5.0
"""A signal may have come before this process was ready for it."""

_WAKING = {signal.SIGUSR1, signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}


def main() -> int:
    """Starts supervisors until the pod is to end; all that runs here ends with this process."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _WAKING)
    (FOLDER / UNITS).mkdir(exist_ok=True)
    about = {
        "protocol": PROTOCOL,
        "address": os.environ.get(JOB_POD_ADDRESS_VARIABLE, ""),
        "version": metadata.version("headrace-server"),
    }
    write_atomically(FOLDER / ABOUT, json.dumps(about))
    started: set[Path] = set()
    while True:
        for start in sorted((FOLDER / UNITS).glob(f"*/*/*/{START}")):
            if start not in started:
                started.add(start)
                _spawn(start)
        woken = signal.sigtimedwait(_WAKING, LOOK_AGAIN_SECONDS)
        if woken is not None and woken.si_signo in (signal.SIGTERM, signal.SIGINT):
            return 0
        _reap()


def _spawn(start: Path) -> None:
    program = [sys.executable, "-m", "agent.pod_init", str(start), str(os.getpid())]
    # What this process waits for, its children must not have blocked.
    os.posix_spawn(sys.executable, program, os.environ, setsigmask=[])


def _reap() -> None:
    """Also those whose parents died: they are children of process 1 then."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def supervise(start: Path, parent: int) -> None:
    """Sees one unit through.

    Args:
        start: The file with its ``UnitSpec``.
        parent: The number of process 1, with which this one dies.
    """
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    supervisor = UnitSupervisor()
    refused = supervisor.start(json.loads(start.read_text()))
    if refused:
        sys.stderr.write(f"{refused}\n")
    supervisor.wait()


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit(main())
    supervise(Path(sys.argv[1]), int(sys.argv[2]))
