"""Whose line it was: errors of the user's code, told in a sentence."""

import sys
import traceback
from pathlib import Path
from types import TracebackType

import headrace
from headrace.workloads.refusal import RANK_FAILED, WorkloadError, reason_of
from headrace.workloads.training.world import lost_contact


def is_within(neighbour: str | Path, file: str) -> bool:
    """Whether a file lies beside another one, or below it, and is no installed package."""
    below = Path(neighbour).absolute().parent
    path = Path(file).absolute()
    return path.is_relative_to(below) and "site-packages" not in path.relative_to(below).parts


def raised(error: BaseException) -> str:
    """What was raised, and by which line of the user's."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not is_within(headrace.__file__, frame.filename)]
    told = f"{type(error).__name__}: {str(error).strip()}" if str(error) else type(error).__name__
    if not theirs:
        return told
    first = theirs[0]
    return f"{told} ({Path(first.filename).name}, line {first.lineno}, in {first.name})"


def tell_in_a_sentence() -> None:
    """From now on, what ends the process and is no surprise prints a sentence, below what the user
    wrote of the traceback, and not our frames. A hook that somebody else set stays.
    """
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _tell


def _tell(kind: type[BaseException], error: BaseException, frames: TracebackType | None) -> None:
    if not isinstance(error, WorkloadError):
        sys.__excepthook__(kind, error, frames)
        return
    cause: BaseException | None = error
    while isinstance(cause, WorkloadError):
        cause = cause.__cause__
    every = traceback.extract_tb(cause.__traceback__) if cause is not None else ()
    theirs: list[traceback.FrameSummary] = []
    for frame in every:  # what comes before ours is torch's, on its way to a model of ours
        theirs = [] if is_within(headrace.__file__, frame.filename) else [*theirs, frame]
    sys.stderr.write("".join(traceback.format_list(theirs)) + f"{error.code}: {error.message}\n")


def is_theirs(error: Exception) -> bool:
    """Whether it is a mistake in the user's code, and not another rank's end or want of memory."""
    if isinstance(error, WorkloadError) or lost_contact(error):
        return False
    return reason_of(error)[0] == RANK_FAILED
