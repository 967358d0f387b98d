"""``python -m simulator.forecasting``: what the control plane starts beside itself.

A question is two lines on standard input: what is asked, and the state. The answer is a line on
standard output: what is predicted, or why nothing is. It ends with its input.
"""

import json
import os
import sys
import time

from controlplane.domain.codec import dump, load
from controlplane.domain.forecast import Forecasts
from controlplane.engine.state import ClusterState
from controlplane.live import live_policies
from simulator.forecasting.answering import Asked, answered
from simulator.forecasting.playing import BudgetSpentError

_NICENESS = 10


def main() -> int:
    """Answers until nothing more is asked. Returns the exit code."""
    # Whoever decides, and whoever trains, goes first.
    os.nice(_NICENESS)
    policies = live_policies()
    while line := sys.stdin.readline():
        stored = sys.stdin.readline()
        try:
            asked: Asked = load(line, Asked)
            state: ClusterState = load(stored, ClusterState)
            answer = dump(answered(asked, state, policies, time.monotonic), Forecasts)
        except (ArithmeticError, BudgetSpentError, LookupError, RuntimeError, ValueError) as error:
            answer = json.dumps({"error": f"{type(error).__name__}: {error}"})
        sys.stdout.write(answer + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BrokenPipeError, KeyboardInterrupt):
        sys.exit(0)
