"""A script of the user's own under Headrace: run in the rank's own process, where
``headrace.train`` finds the place to train in.
"""

import os
import runpy
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import headrace
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
    except Exception as error:
        told = _told(error, file)
        if told:
            raise WorkloadError(RANK_FAILED, told) from error
        raise


def _told(error: Exception, file: Path) -> str:
    """Where in the script's folder something was raised, and what; its traceback, without what
    runs the script, goes to the output. Empty if it was raised in a training: that tells its own.
    """
    from headrace.workloads.training.own.blame import is_theirs, is_within

    if not is_theirs(error):
        return ""
    where, line, what = str(file), 0, str(error).strip()
    started, folder = error.__traceback__, file.absolute().parent
    while started is not None and started.tb_frame.f_code.co_filename != where:
        started = started.tb_next
    frames = traceback.extract_tb(started)
    if started is None and isinstance(error, SyntaxError):
        line, what = error.lineno or 0, error.msg
    elif any(is_within(headrace.__file__, frame.filename) for frame in frames):
        return ""
    for frame in frames:
        if is_within(file, frame.filename):
            where, line = frame.filename, frame.lineno or 0
    traceback.print_exception(type(error), error, started)
    place = Path(where).absolute().relative_to(folder)
    kind = type(error).__name__
    return f"{place}, line {line}: {kind}: {what}" if what else f"{place}, line {line}: {kind}"
