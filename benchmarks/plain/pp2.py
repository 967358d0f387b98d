"""A 1F1B pipeline of two ranks, written plainly for this plan alone.

torchrun --nproc-per-node=2 benchmarks/plain/pp2.py --model gpt2-1.26b --global-batch 16
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.pipelining import PipelineStage, Schedule1F1B

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.plain.setting import (
    BETAS,
    LEARNING_RATE,
    WEIGHT_DECAY,
    Meter,
    batches,
    chosen,
    initialise,
    join,
    leave,
    loss_of,
    shape_of,
)
from headrace.workloads.training.families.gpt2 import Gpt2

MICRO_BATCHES = 4


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and report."""
    plan = f"pp2.1f1b-ga{MICRO_BATCHES}"
    given = chosen(plan, arguments)
    device = join()
    rank, ranks = dist.get_rank(), dist.get_world_size()

    shape = shape_of(given.model)
    with torch.device("meta"):
        part = Gpt2(shape, shape.layers * rank // ranks, shape.layers * (rank + 1) // ranks)
    initialise(part, device, given.seed)
    stage = PipelineStage(part, rank, ranks, device)
    schedule = Schedule1F1B(stage, n_microbatches=MICRO_BATCHES, loss_fn=loss_of)
    optimizer = torch.optim.AdamW(
        part.parameters(), lr=LEARNING_RATE, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True
    )

    meter = Meter(plan, given, shape, device)
    for inputs, targets in batches(given, shape, device):
        losses: list[Tensor] = []
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            if stage.is_first:
                schedule.step(inputs, return_outputs=False)
            else:
                schedule.step(target=targets, losses=losses, return_outputs=False)
        optimizer.step()
        optimizer.zero_grad()
        loss = torch.stack(losses).mean() if losses else torch.zeros((), device=device)
        meter.step_done(loss.detach())
    meter.report()
    leave()


if __name__ == "__main__":
    main()
