"""What saves cost a training: how long it stands still, until when they are written, host memory.

An attempt is started as an agent starts it and saves every so many steps. Each rank has a GPU of
this machine; without enough of them all are CPU processes with a tiny model, which says nothing
about GPUs. The time of a step is that between two lines of rank 0's progress. Checkpoints go to a
temporary folder: `TMPDIR` says where, and there must be room for two.

    python benchmarks/saves.py [--model gpt2-1.26b] [--plan dp2-z2] [--global-batch 16]
"""

import argparse
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.switches import Attempt
from headrace.api.models import PRESETS
from headrace.api.plan import ExecutionPlan

SETTLED = 3
"""First steps that do not count."""
_PATIENCE_SECONDS = 1800.0


@dataclass
class Watched:
    """When rank 0 told what, in seconds; and what the fullest rank took of the host.

    Attributes:
        steps: When a step was done.
        commits: When the checkpoint of a step was.
        before_bytes: Largest resident memory until the first save.
        peak_bytes: Until the end.
        lines_read: Of rank 0's progress.
    """

    steps: dict[int, float] = field(default_factory=dict)
    commits: dict[int, float] = field(default_factory=dict)
    before_bytes: int = 0
    peak_bytes: int = 0
    lines_read: int = 0

    def look(self, attempt: Attempt, every: int) -> None:
        """Take down what is new."""
        now, lines = time.monotonic(), attempt.lines("progress.jsonl")
        for line in lines[self.lines_read :]:
            told = json.loads(line)
            self.steps.setdefault(told["step"], now)
            if told["checkpoint_step"]:
                self.commits.setdefault(told["checkpoint_step"], now)
        self.lines_read = len(lines)
        self.peak_bytes = max(resident_peak(unit.pid) for unit in attempt.units)
        if max(self.steps, default=0) < every:
            self.before_bytes = self.peak_bytes

    def between(self, first: int, last: int) -> list[float]:
        """Time of each step from after ``first`` to ``last``."""
        return [self.steps[step + 1] - self.steps[step] for step in range(first, last)]

    def rows(self, every: int, saves: int) -> Iterator[str]:
        """A line for each save."""
        usual = statistics.median(self.between(SETTLED, every))
        for save in range(every, every * saves + 1, every):
            took = self.commits[save] - self.steps[save]
            until = min(step for step, at in self.steps.items() if at >= self.commits[save])
            near = self.between(save, max(save + 1, until))
            slower = sum(near) - usual * len(near)
            yield (
                f"| {save} | {near[0] - usual:.2f} | {max(near):.2f} | {slower:.2f} | {took:.1f} |"
            )


def resident_peak(pid: int) -> int:
    """Largest host memory that a process has had, in bytes; pinned memory is in it."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0


def main() -> None:
    gpus = torch.cuda.device_count()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--model", choices=PRESETS, default="gpt2-1.26b" if gpus else "gpt2-small")
    parser.add_argument("--plan", default="dp2-z2" if gpus > 1 else "dp1")
    parser.add_argument("--global-batch", type=int, default=16)
    parser.add_argument("--every-steps", type=int, default=20)
    parser.add_argument("--saves", type=int, default=4)
    given = parser.parse_args()
    on_gpu = gpus >= ExecutionPlan.parse(given.plan).ranks
    every, saves, watched = given.every_steps, given.saves, Watched()
    with tempfile.TemporaryDirectory() as folder:
        attempt = Attempt(given, Path(folder), on_gpu=on_gpu)

        def is_done() -> bool:
            watched.look(attempt, every)
            last = watched.commits.get(every * saves)
            return last is not None and max(watched.steps.values()) > last

        try:
            attempt.start(given.plan)
            attempt.wait(is_done, patience_seconds=_PATIENCE_SECONDS)
        finally:
            attempt.end()
    usual = watched.between(SETTLED, every)
    print(
        f"{given.model}, {given.plan}, batch {given.global_batch}, {'GPU' if on_gpu else 'CPU'}; "
        f"a step takes {statistics.median(usual):.3f} s, the longest before the first save "
        f"{max(usual):.3f} s\n"
    )
    print(
        "| save of step | stood still | longest step until committed | all steps until then took "
        "longer by | committed after |"
    )
    print("| --- | --- | --- | --- | --- |")
    print("\n".join(watched.rows(every, saves)))
    print(
        f"\nhost memory of the fullest rank: {watched.before_bytes / 2**30:.2f} GiB before the "
        f"first save, {watched.peak_bytes / 2**30:.2f} GiB with saves"
    )


if __name__ == "__main__":
    main()
