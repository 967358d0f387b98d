"""Becomes the rank: arranges that it dies with its supervisor, pins it, and replaces itself.

Run as a bare script with ``python -I -S``, so that nothing but this file is read. The death signal
must be set after the user id has changed (a change clears it), which is why it is done here and not
by the supervisor.

Arguments: the supervisor's pid, core numbers joined by commas (may be empty), then the program.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Never returns: the program takes this process over."""
    supervisor, cores, program = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    # The supervisor may have died before the signal was asked for.
    if os.getppid() != supervisor:
        os._exit(1)
    if cores:
        here = os.sched_getaffinity(0)
        wanted = {int(core) for core in cores.split(",")} & here
        os.sched_setaffinity(0, wanted or here)
    os.execv(program[0], program)  # noqa: S606


if __name__ == "__main__":
    main()
