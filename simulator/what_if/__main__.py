"""``python -m simulator.what_if``: what `headrace what-if` starts. A question comes on standard
input, the answer goes to standard output, both JSON.
"""

import json
import sys

from simulator.progress_bar import progress_bar
from simulator.snapshots import read_snapshot
from simulator.what_if.asking import answered
from simulator.what_if.question import Question

REFUSED = 4
INTERRUPTED = 130
"""What `headrace` ends with in these cases."""

_SHOWN_AFTER_SECONDS = 1.0


def main() -> int:
    """Answers one question. Returns the exit code."""
    try:
        question = Question.model_validate_json(sys.stdin.read())
        state = read_snapshot(question.snapshot)
        with progress_bar("playing", after_seconds=_SHOWN_AFTER_SECONDS) as progress:
            told = answered(question, state, progress)
    except OSError as error:
        sys.stderr.write(f"headrace: {error.filename}: {error.strerror}\n")
        return 1
    except ValueError as error:
        lines = "".join(f"  {line}\n" for line in str(error).splitlines())
        sys.stderr.write(f"headrace: nothing was played:\n{lines}")
        return REFUSED
    except KeyboardInterrupt:
        return INTERRUPTED
    sys.stdout.write(json.dumps(told) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
