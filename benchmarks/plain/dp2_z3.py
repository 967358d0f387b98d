"""ZeRO-3 on two ranks (FSDP2), written plainly for this plan alone.

torchrun --nproc-per-node=2 benchmarks/plain/dp2_z3.py --model gpt2-1.26b --global-batch 16
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

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
    given = chosen("dp2-z3", arguments)
    device = join()
    rank, ranks = dist.get_rank(), dist.get_world_size()
    mesh = init_device_mesh(device.type, (ranks,))

    shape = shape_of(given.model)
    with torch.device("meta"):
        model = Gpt2(shape, 0, shape.layers)
    policy = MixedPrecisionPolicy()
    if device.type == "cuda":
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for block in model.blocks.values():
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    initialise(model, device, given.seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True
    )

    meter = Meter("dp2-z3", given, shape, device)
    for inputs, targets in batches(given, shape, device):
        mine, following = inputs.chunk(ranks)[rank], targets.chunk(ranks)[rank]
        loss = loss_of(model(mine), following)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        meter.step_done(loss.detach() / ranks)
    meter.report()
    leave()


if __name__ == "__main__":
    main()
