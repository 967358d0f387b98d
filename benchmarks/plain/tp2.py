"""Tensor parallel on two ranks, written plainly for this plan alone.

torchrun --nproc-per-node=2 benchmarks/plain/tp2.py --model gpt2-1.26b --global-batch 16
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    loss_parallel,
    parallelize_module,
)

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
    given = chosen("tp2", arguments)
    device = join()
    ranks = dist.get_world_size()
    mesh = init_device_mesh(device.type, (ranks,))

    shape = shape_of(given.model)
    with torch.device("meta"):
        model = Gpt2(shape, 0, shape.layers)
    whole = Replicate()
    parallelize_module(
        model,
        mesh,
        {
            "tokens": RowwiseParallel(input_layouts=whole),
            # One all-reduce of the gradient of what query, key and value have in common.
            "blocks.*.attention": PrepareModuleInput(
                input_layouts=whole, desired_input_layouts=whole
            ),
            "blocks.*.attention.query": ColwiseParallel(),
            "blocks.*.attention.key": ColwiseParallel(),
            "blocks.*.attention.value": ColwiseParallel(),
            "blocks.*.attention.out": RowwiseParallel(),
            "blocks.*.widen": ColwiseParallel(),
            "blocks.*.narrow": RowwiseParallel(),
            # The logits stay divided by vocabulary until the loss.
            "head": ColwiseParallel(output_layouts=Shard(-1), use_local_output=False),
        },
    )
    initialise(model, device, given.seed)
    # The fused update wants divided and whole parameters in groups of their own.
    groups: list[dict[str, Any]] = [
        {"params": [each for each in model.parameters() if isinstance(each, DTensor)]},
        {"params": [each for each in model.parameters() if not isinstance(each, DTensor)]},
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=LEARNING_RATE, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True
    )

    meter = Meter("tp2", given, shape, device)
    for inputs, targets in batches(given, shape, device):
        with loss_parallel():
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                loss = loss_of(model(inputs), targets)
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        assert isinstance(loss, DTensor)
        meter.step_done(loss.to_local().detach() / ranks)
    meter.report()
    leave()


if __name__ == "__main__":
    main()
