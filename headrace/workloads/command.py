"""A program of the user's own, one process a node, with the variables that torchrun reads.

The rendezvous only makes sure that all nodes are of one attempt and agrees on a port; the program
builds its own process group there.
"""

import ctypes
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.api.addresses import LISTENING_PORTS
from headrace.workloads.control import (
    FAILED,
    STOPPED,
    SUCCEEDED,
    Chronicle,
    Launch,
    StopSignal,
)
from headrace.workloads.refusal import OUT_OF_MEMORY, RANK_FAILED, START_REFUSED, WorkloadError
from headrace.workloads.rendezvous import Rendezvous, bind, split_address

_POLL_SECONDS = 0.2

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class ProgramEnd:
    """How the program ended."""

    outcome: str
    step: int
    message: str
    reason: str = ""


def run_command(
    launch: Launch,
    command: Mapping[str, Any],
    met: Rendezvous,
    stop: StopSignal,
    chronicle: Chronicle,
) -> ProgramEnd:
    """Run the program to its end; a stop reaches it as SIGTERM."""
    address = _program_address(launch, met)
    met.agree({"program": list(command["program"])})
    environment = with_own_programs({**os.environ, **variables(launch, *address)})
    program = [expanded(part, environment) for part in command["program"]]
    folder = command.get("workingDirectory")
    if folder and not Path(folder).is_dir():
        raise WorkloadError(
            START_REFUSED, f"workingDirectory: there is no directory {folder} on this node"
        )
    chronicle.say(f"starting {program[0]}")
    try:
        process = subprocess.Popen(
            program, cwd=folder or None, env=environment, preexec_fn=_die_with_parent()
        )
    except OSError as error:
        raise WorkloadError(
            START_REFUSED,
            f"program: {program[0]} cannot be started on this node: {error.strerror}; wanted an "
            "executable on PATH or an absolute path",
        ) from error
    return _awaited(process, stop)


def _program_address(launch: Launch, met: Rendezvous) -> tuple[str, int]:
    """Where the program's own ranks meet: unit 0's host, and a port that is free there."""
    if launch.unit != 0:
        host, _ = split_address(launch.rendezvous)
        return host, int(met.await_start("program-port"))
    port = _free_port(launch.bind_address)
    met.put("program-port", port)
    return launch.bind_address, port


def _free_port(host: str) -> int:
    """A port that is free now; the program binds it a moment later."""
    for port in random.sample(LISTENING_PORTS, 100):
        try:
            with bind(host, port):
                return port
        except WorkloadError:
            continue
    with bind(host) as free:
        return int(free.getsockname()[1])


def variables(launch: Launch, host: str, port: int) -> dict[str, str]:
    """What the program is told, in torch's own names; torchrun reads the PET_ ones."""
    processes = str(max(1, len(launch.accelerators)))
    plain = {
        "MASTER_ADDR": host,
        "MASTER_PORT": str(port),
        "NNODES": str(launch.units_total),
        "NODE_RANK": str(launch.unit),
        "NPROC_PER_NODE": processes,
    }
    return {
        **plain,
        **{f"PET_{name}": value for name, value in plain.items()},
        "WORLD_SIZE": str(launch.ranks_total),
        "RANK": str(launch.first_rank),
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": processes,
    }


def with_own_programs(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with the folder of this Python at the end of PATH.

    ``torchrun`` is found there however the agent was started, and nothing of the user's is hidden.
    """
    own = str(Path(sys.executable).parent)
    path = environment.get("PATH") or os.defpath
    if own in path.split(os.pathsep):
        return dict(environment)
    return {**environment, "PATH": f"{path}{os.pathsep}{own}"}


def expanded(text: str, environment: Mapping[str, str]) -> str:
    """``$(NAME)`` replaced as Kubernetes does: unknown names stay, and ``$$`` becomes ``$``.

    As there, a name is whatever stands between the parentheses, and what is put in is not
    looked at again.
    """

    def value(found: re.Match[str]) -> str:
        return "$" if found[1] is None else environment.get(found[1], found[0])

    return re.sub(r"\$(?:\$|\(([^)]*)\))", value, text)


def _die_with_parent() -> Any:
    """For the child: end when this process is killed, and do not outlive an attempt."""
    libc = ctypes.CDLL(None, use_errno=True)
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _awaited(process: "subprocess.Popen[bytes]", stop: StopSignal) -> ProgramEnd:
    killed_before = _kernel_kills()
    asked = False
    while True:
        try:
            status = process.wait(timeout=_POLL_SECONDS)
            break
        except subprocess.TimeoutExpired:
            if not asked and stop.asked():
                process.send_signal(signal.SIGTERM)
                asked = True
    # A SIGTERM to all at once may have ended the program before we passed it on.
    asked = asked or stop.asked()
    if status == 0:
        # Being done at the same moment as being asked to stop is being done: but only the
        # program knows, so after a stop it counts as stopped and is started again.
        return ProgramEnd(STOPPED if asked else SUCCEEDED, 0, "")
    if asked and (status > 0 or status == -signal.SIGTERM):
        # Not a failure: torchrun ends with 1 and a traceback whenever it is asked to stop.
        told = f" with exit status {status}" if status > 0 else ""
        return ProgramEnd(STOPPED, 0, f"the program ended on SIGTERM{told}")
    if status == -signal.SIGKILL and _kernel_kills() > killed_before:
        return ProgramEnd(
            FAILED, 0, "the kernel killed the program for want of host memory", OUT_OF_MEMORY
        )
    told = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    return ProgramEnd(FAILED, 0, f"the program ended with {told}", RANK_FAILED)


def _kernel_kills() -> int:
    """Processes of this control group that the kernel killed for memory; 0 where unknown."""
    try:
        lines = Path("/sys/fs/cgroup/memory.events").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
