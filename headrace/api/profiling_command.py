"""How the ranks that measure plans are started: a command line and nothing else."""

import sys
from collections.abc import Sequence
from pathlib import Path

from headrace.api.profile_rows import Asked

GRACE_SECONDS = 60.0
"""How much longer than asked for a run may take, for the plan that it is at."""


def profiling_command(
    asked: Asked, plans: Sequence[str], *, seconds: float, output: Path
) -> list[str]:
    """One process for each accelerator, all started anew when one fails with a plan.

    Args:
        asked: What is measured.
        plans: In this order.
        seconds: Time for everything, start included.
        output: Where rows are appended.
    """
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *(f"--nproc-per-node={asked.accelerators}", f"--max-restarts={len(plans)}"),
        *("-m", "headrace.workloads.profiling", asked.model),
        *(f"--global-batch={asked.global_batch}", f"--precision={asked.precision}"),
        *(f"--sequence-length={asked.sequence_length}", f"--seconds={seconds}"),
        *(f"--output={output}", "--plans", *plans),
    ]
