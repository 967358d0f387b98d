"""Where the ``headrace`` command begins: Ctrl-C is understood before anything else is loaded."""

import sys

INTERRUPTED = 130
"""As ``ExitCode.INTERRUPTED``, which is not loaded yet."""


def run() -> None:
    """Loads the command line and runs it."""
    try:
        from headrace.cli.main import run as run_commands

        run_commands()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        raise SystemExit(INTERRUPTED) from None


if __name__ == "__main__":
    run()
