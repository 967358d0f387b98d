"""One rank that measures, under ``torchrun`` or as a single process."""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.api.chosen_plans import MOST, chosen_plans
from headrace.api.models import PRESETS, Family, resized
from headrace.api.plan import ExecutionPlan
from headrace.api.profile_rows import Asked
from headrace.workloads.collector import importing
from headrace.workloads.control import seconds_since_start
from headrace.workloads.host_memory import keep_freed, pin_fast

if TYPE_CHECKING:
    from torch.distributed import Store

    from headrace.workloads.profiling.session import Task


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m headrace.workloads.profiling")
    add = parser.add_argument
    add("model", choices=sorted(PRESETS), help="preset")
    add("--global-batch", type=int, default=16, help="samples of a step")
    add("--sequence-length", type=int, default=0, help="0 for the preset's")
    add("--precision", choices=["fp32", "bf16"], default="fp32")
    add("--plans", nargs="*", default=[], help="plans, in order; else those of the rule")
    add("--most", type=int, default=MOST, help="how many plans the rule gives")
    add("--seconds", type=float, default=210.0, help="time for everything, start included")
    add("--warmup", type=int, default=3, help="steps of a plan that do not count")
    add("--steps", type=int, default=10, help="steps of a plan that count")
    add("--plan-seconds", type=float, default=6.0, help="after these, few steps are enough")
    add("--output", type=Path, required=True, help="JSON lines; what is there is not repeated")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one rank; returns its exit status. A status other than 0 asks to be started anew."""
    given = _parser().parse_args(arguments)
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    life = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))

    pin_fast()
    keep_freed()

    with importing():
        import torch
        import torch.distributed as dist

        from headrace.workloads.profiling.session import (
            NO_PLAN,
            Clock,
            Session,
            StartAnewError,
            plan_begun,
        )
        from headrace.workloads.training.samples import RANDOM, open_samples
        from headrace.workloads.training.world import World

    task = _task(given, ranks)
    # torchrun lives on when its ranks are started anew.
    since = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else "self"
    clock = Clock(lambda: seconds_since_start(since), given.seconds)
    store: Store = next(dist.rendezvous("env://"))[0] if "RANK" in os.environ else dist.HashStore()
    board = dist.PrefixStore("profile", store)
    if life > 0 and plan_begun(board) == NO_PLAN:
        sys.stderr.write("the ranks could not be started; the reason is above\n")
        return 0
    device = _device(torch, ranks)
    world = World(dist.PrefixStore(f"life/{life}", store), rank=rank, size=ranks, device=device)
    samples = open_samples(RANDOM, task.shape, 1)
    batch = samples.batch(torch.arange(given.global_batch))
    try:
        Session(task, world, board, batch, clock).run()
    except StartAnewError as error:
        sys.stderr.write(f"rank {rank} failed with {error}; the ranks are started anew\n")
        return 1
    world.part()
    return 0


def _device(torch: Any, ranks: int) -> Any:
    """This rank's GPU, or its share of the cores for lack of one."""
    local = int(os.environ.get("LOCAL_RANK", "0"))
    # torchrun gives a rank one thread, with which an optimizer in host memory would crawl.
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // ranks))
    if torch.cuda.device_count() == 0:
        return torch.device("cpu")
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def _task(given: argparse.Namespace, ranks: int) -> "Task":
    from headrace.workloads.profiling.measuring import Length
    from headrace.workloads.profiling.session import Task

    shape = PRESETS[given.model]
    if given.sequence_length and shape.family is not Family.VIT:
        shape = resized(shape, sequence_length=given.sequence_length)
    asked = Asked(given.model, ranks, given.global_batch, shape.sequence_length, given.precision)
    plans = [ExecutionPlan.parse(text) for text in given.plans]
    return Task(
        asked,
        shape,
        plans or chosen_plans(shape, ranks, given.global_batch, given.most),
        Length(max(1, given.warmup), max(3, given.steps), given.plan_seconds),
        given.output,
    )


if __name__ == "__main__":
    try:
        status = main()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # Without destructors: those of a broken process group may wait for ever.
    os._exit(status)
