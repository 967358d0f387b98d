"""What the plain scripts must have alike to be compared: model, weights, tokens and the clock."""

import argparse
import atexit
import json
import os
import statistics
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812 - torch's own habit
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from headrace.api.models import PRESETS, Family, ModelShape

LEARNING_RATE = 3e-4
BETAS = (0.9, 0.95)
WEIGHT_DECAY = 0.01

Batch = tuple[Tensor, Tensor]


def chosen(plan: str, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line, which is the same for every plan."""
    models = [name for name, shape in PRESETS.items() if shape.family is Family.GPT2]
    parser = argparse.ArgumentParser(description=f"GPT-2 trained by {plan}, written plainly")
    parser.add_argument("--model", choices=models, default="gpt2-1.26b")
    parser.add_argument("--global-batch", type=int, default=16, help="samples of a step")
    parser.add_argument("--steps", type=int, default=30, help="steps that are measured")
    parser.add_argument("--warmup", type=int, default=10, help="steps before those")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(arguments)


def shape_of(model: str) -> ModelShape:
    """Sizes of a preset, its output head a matrix of its own as in ``gpt2-1.26b``."""
    return replace(PRESETS[model], tied=False)


def join() -> torch.device:
    """This rank's place in the process group of torchrun, and the device that it computes on."""
    if not torch.cuda.is_available():
        dist.init_process_group("gloo")
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    dist.init_process_group("nccl", device_id=device)
    return device


def leave() -> None:
    """End the process group, and the process without destructors once the script has ended.

    FSDP keeps gloo's threads alive beyond the group: one that frees the tensors of the last
    collective while Python ends would abort the process.
    """
    dist.destroy_process_group()
    atexit.register(os._exit, 0)


@torch.no_grad()
def initialise(model: nn.Module, device: torch.device, seed: int) -> None:
    """Give memory and weights to a model without them; by name, so the same under every plan."""
    model.to_empty(device=device)
    for name, parameter in model.named_parameters():
        generator = torch.Generator(device).manual_seed(seed + zlib.crc32(name.encode()))
        whole = torch.zeros(parameter.shape, device=device)
        if parameter.ndim > 1:
            whole.normal_(std=0.02, generator=generator)
        elif name.endswith("weight"):  # of a normalisation
            whole.fill_(1.0)
        if isinstance(parameter, DTensor):
            # Every rank has drawn the whole tensor and only cuts out its own part.
            whole = distribute_tensor(
                whole, parameter.device_mesh, parameter.placements, src_data_rank=None
            )
        parameter.copy_(whole)


def batches(given: argparse.Namespace, shape: ModelShape, device: torch.device) -> Iterator[Batch]:
    """The global batch of each step, the same on every rank: random tokens and what follows each.

    It is one batch over and over: that can be learned, so that wrong gradients show in the loss.
    """
    size = (given.global_batch, shape.sequence_length + 1)
    tokens = torch.randint(
        shape.vocabulary, size, generator=torch.Generator().manual_seed(given.seed)
    )
    if device.type == "cuda":
        tokens = tokens.pin_memory()
    for _ in range(given.warmup + given.steps):
        here = tokens.to(device, non_blocking=True)
        yield here[:, :-1].contiguous(), here[:, 1:].contiguous()


def loss_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over all tokens, in fp32."""
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


class Meter:
    """Notes when each step ends, and prints the measured ones as one line of JSON.

    On a GPU by events in its stream, so that no step waits for the one before.

    Args:
        plan: Short form of the plan.
        given: The command line.
        shape: Sizes of the model.
        device: This rank's.
    """

    def __init__(
        self, plan: str, given: argparse.Namespace, shape: ModelShape, device: torch.device
    ) -> None:
        self._plan, self._given, self._shape, self._device = plan, given, shape, device
        self._losses: list[Tensor] = []
        self._ends = [self._now()]

    def _now(self) -> Any:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def step_done(self, loss: Tensor) -> None:
        """A step has ended.

        Args:
            loss: This rank's share: the shares of all ranks sum to the loss of the global batch.
        """
        self._losses.append(loss)
        self._ends.append(self._now())

    def _seconds(self) -> list[float]:
        """What each measured step took."""
        steps = pairwise(self._ends[self._given.warmup :])
        if self._device.type != "cuda":
            return [end - begin for begin, end in steps]
        torch.cuda.synchronize(self._device)
        return [begin.elapsed_time(end) / 1000 for begin, end in steps]

    def report(self) -> None:
        """Sum the losses up, find the rank with the highest peak, print on rank 0."""
        losses = torch.stack(self._losses)
        dist.all_reduce(losses)
        on_gpu = self._device.type == "cuda"
        peak = torch.tensor(
            torch.cuda.max_memory_allocated(self._device) if on_gpu else 0, device=self._device
        )
        dist.all_reduce(peak, dist.ReduceOp.MAX)
        if dist.get_rank() != 0:
            return
        given = self._given
        quartiles = statistics.quantiles(self._seconds(), n=4, method="inclusive")
        lower, median, upper = quartiles
        line = {
            "plan": self._plan,
            "model": given.model,
            "global_batch": given.global_batch,
            "ranks": dist.get_world_size(),
            "device": torch.cuda.get_device_name(self._device) if on_gpu else "cpu",
            "torch": torch.__version__,
            "iteration_seconds": {"lower": lower, "median": median, "upper": upper},
            "tokens_per_second": given.global_batch * self._shape.sequence_length / median,
            "peak_allocated_bytes": int(peak) if on_gpu else None,
            "losses": losses.tolist(),
        }
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
