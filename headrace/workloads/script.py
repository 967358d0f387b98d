"""A script of the user's own under Headrace: run in the rank's own process, where
``headrace.train`` finds the place to train in.
"""

import os
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.workloads.refusal import (
    RANK_FAILED,
    START_REFUSED,
    WorkloadError,
)

if TYPE_CHECKING:
    from headrace.workloads.training.place import Place
    from headrace.workloads.training.run import End

_place: "Place | None" = None


def place() -> "Place | None":
    """Where the running script trains; None without Headrace."""
    return _place


def run_script(script: Mapping[str, Any], given: "Place") -> "End":
    """Run the script to its end, and say how its training ended.

    Raises:
        WorkloadError: It is not there, ended early, or trained nothing.
    """
    global _place
    _place = given
    _run(script)
    if given.end is None:
        raise WorkloadError(
            RANK_FAILED, f"{script['file']} ended without training: wanted a call of train.run"
        )
    return given.end


def _run(script: Mapping[str, Any]) -> None:
    folder = script.get("workingDirectory")
    if folder and not Path(folder).is_dir():
        raise WorkloadError(
            START_REFUSED, f"workingDirectory: there is no directory {folder} on this node"
        )
    if folder:
        os.chdir(folder)
    file = Path(script["file"])
    if not file.is_file():
        raise WorkloadError(
            START_REFUSED,
            f"script.file: there is no file {file.absolute()} on this node; put it where every "
            "node of the job sees it",
        )
    sys.argv = [str(file), *script.get("arguments", ())]
    sys.path.insert(0, str(file.absolute().parent))
    try:
        runpy.run_path(str(file), run_name="__main__")
    except SystemExit as end:
        if end.code not in (None, 0):
            raise WorkloadError(RANK_FAILED, f"{file} ended with exit status {end.code}") from end
