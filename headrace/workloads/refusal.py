"""Why a unit ended without success: a reason code of the closed set, and a sentence for people."""

import errno
import traceback
from collections.abc import Iterator

RANK_FAILED = "RankFailed"
RANK_LOST = "RankLost"
RANK_HUNG = "RankHung"
COMMUNICATION_FAILED = "CommunicationFailed"
OUT_OF_MEMORY = "OutOfMemory"
LOSS_NOT_FINITE = "LossNotFinite"
START_REFUSED = "StartRefused"
"""This node lacks what the start needs; another one may have it."""

CANNOT_BE_TRAINED = "CannotBeTrained"
"""Nor will it on another node, or at another time."""

STORE_NOT_SHARED = "CheckpointStoreNotShared"
CHECKPOINT_FAILED = "CheckpointFailed"
CHECKPOINT_CORRUPT = "CheckpointCorrupt"
CHECKPOINT_STORE_FULL = "CheckpointStoreFull"
FENCED = "FencedByNewerAttempt"

MAY_BE_THE_NODE = frozenset({START_REFUSED, STORE_NOT_SHARED, CHECKPOINT_FAILED})
"""What is wrong with one node, so that other ranks do not say it of theirs."""

STORE_FAILED = "it may well be whole: look at the store, and at how this node reaches it"
"""What is said of a checkpoint that a store did not give."""

MESSAGE_CHARACTERS_MAX = 2000
_FRAME_LINES = 12
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_SUCH_FILE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL}
_MEMORY_SIGNS = ("out of memory", "can't allocate memory", "not enough memory")


class WorkloadError(Exception):
    """An expected failure, with the reason that the control plane is told.

    Attributes:
        code: One of the reason codes above.
        message: What was wanted, what came, what would help.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class StoppedBeforeTraining(Exception):  # noqa: N818 - being asked to stop is no error
    """A stop was asked for before the first step; there is nothing to save."""


def reason_of(error: BaseException) -> tuple[str, str]:
    """Reason code and message of what was raised; unexpected errors also say where.

    What was raised comes first: lists and events show the beginning of a message.
    """
    if isinstance(error, WorkloadError):
        return error.code, error.message[-MESSAGE_CHARACTERS_MAX:]
    what = "".join(traceback.format_exception_only(error)).strip()[: MESSAGE_CHARACTERS_MAX // 2]
    where = "".join(traceback.format_tb(error.__traceback__)).rstrip().splitlines()[-_FRAME_LINES:]
    message = "\n".join((what, *where))[:MESSAGE_CHARACTERS_MAX]
    if _is_out_of_memory(error):
        return OUT_OF_MEMORY, message
    return RANK_FAILED, message


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    # torch's CPU allocator raises a plain RuntimeError, which only its words tell apart.
    words = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in words for sign in _MEMORY_SIGNS)


def is_full(error: BaseException) -> bool:
    """Whether it says that a file system or a quota is full."""
    return isinstance(error, OSError) and error.errno in _NO_ROOM


def no_room(error: BaseException | None) -> OSError | None:
    """The error that says a file system is full, anywhere in the chain of causes."""
    return next((each for each in _system_errors(error) if is_full(each)), None)


def store_failure(error: BaseException) -> OSError | None:
    """The error that says a store failed, anywhere in the chain of causes, which tells nothing
    about what lies in it. Files that are not there may be the doing of damaged bytes.
    """
    found = _system_errors(error)
    return next((each for each in found if each.errno not in _NO_SUCH_FILE), None)


def _system_errors(error: BaseException | None) -> Iterator[OSError]:
    """Those among an error and all its causes."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        current = waiting.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, OSError):
            yield current
        waiting += [current.__cause__, current.__context__]
        # torch.distributed.checkpoint wraps what the ranks raised in a mapping of its own.
        failures = getattr(current, "failures", None)
        if isinstance(failures, dict):
            waiting += [item[0] for item in failures.values() if isinstance(item, tuple)]
