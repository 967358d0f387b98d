"""What the command's exit status means; part of the interface, documented in docs/cli.md."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit statuses of ``headrace``."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    UNREACHABLE = 5
    JOB_FAILED = 6
    TIMED_OUT = 7
    INTERRUPTED = 130
    BROKEN_PIPE = 141


MEANINGS = {
    ExitCode.OK: "done",
    ExitCode.FAILED: "failed; the message says what and what would help",
    ExitCode.USAGE: "wrong use of the command line",
    ExitCode.NOT_FOUND: "no such job, attempt, rank, node or queue",
    ExitCode.REFUSED: "refused: an invalid manifest, or not allowed",
    ExitCode.UNREACHABLE: "no control plane answers",
    ExitCode.JOB_FAILED: "a job that was waited for failed",
    ExitCode.TIMED_OUT: "what was waited for did not happen in time",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C)",
    ExitCode.BROKEN_PIPE: "whoever read the output went away",
}


class CommandError(Exception):
    """Ends a command with a sentence on stderr and an exit status."""

    def __init__(self, code: ExitCode, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
