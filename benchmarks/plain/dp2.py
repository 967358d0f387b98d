"""Data parallel on two ranks, written plainly for this plan alone.

torchrun --nproc-per-node=2 benchmarks/plain/dp2.py --model gpt2-1.26b --global-batch 16
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

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


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and report."""
    given = chosen("dp2", arguments)
    device = join()
    rank, ranks = dist.get_rank(), dist.get_world_size()
    on_gpu = device.type == "cuda"

    shape = shape_of(given.model)
    with torch.device("meta"):
        gpt2 = Gpt2(shape, 0, shape.layers)
    initialise(gpt2, device, given.seed)
    model = DistributedDataParallel(
        gpt2, device_ids=[device.index] if on_gpu else None, gradient_as_bucket_view=True
    )
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True
    )

    meter = Meter("dp2", given, shape, device)
    for inputs, targets in batches(given, shape, device):
        mine, following = inputs.chunk(ranks)[rank], targets.chunk(ranks)[rank]
        with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
            loss = loss_of(model(mine), following)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        meter.step_done(loss.detach() / ranks)
    meter.report()
    leave()


if __name__ == "__main__":
    main()
