"""The processes of a launch unit: found by the control folder in their environment, and ended."""

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from headrace.api.processes import (
    Process,
    environments,
    of_session,
    pid_namespace,
    process,
)
from headrace.api.variables import CONTROL_DIR_VARIABLE


def of_control_folder(
    folder: Path, *, below: bool = False, within: str = ""
) -> Iterator[tuple[Process, Path]]:
    """Processes whose environment names a control folder, with that folder.

    Args:
        folder: The control folder, or the folder above many of them.
        below: Whether every control folder below ``folder`` counts.
        within: The PID namespace that they must be in; empty for any.
    """
    wanted = os.fsencode(folder)
    for pid, environment in environments():
        named = re.search(rb"(?:^|\0)" + CONTROL_DIR_VARIABLE.encode() + rb"=([^\0]*)", environment)
        if not named:
            continue
        value = named.group(1)
        if within and pid_namespace(pid) != within:
            continue
        if value == wanted or (below and value.startswith(wanted + b"/")):
            found = process(pid)
            if found is not None:
                yield found, Path(os.fsdecode(value))


def kill_unit(
    folder: Path, session: int = 0, *, patience_seconds: float = 10.0, within: str = ""
) -> bool:
    """Kills whatever is left of a launch unit; False if something outlives ``patience_seconds``.

    A rank may have children in sessions of their own (``torchrun`` does that), hence the search
    by environment. Repeated until nothing is found, because they may fork meanwhile. Blocks.
    With ``within`` only those of that PID namespace are found by it.
    """
    deadline = time.monotonic() + patience_seconds
    while True:
        found = {one for one, _ in of_control_folder(folder, within=within)}
        if session > 0:
            found.update(of_session(session))
        left = {one for one in found if one.alive}
        if not left:
            return True
        for one in left:
            one.signal(signal.SIGKILL)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
