"""Initial weights: functions of the seed and the parameter's name alone."""

import math
import zlib

import torch
from torch import Tensor

_TABLE_SPREAD = 0.02
_TABLES = ("embed", "shared", "tokens", "positions")


@torch.no_grad()
def initial(
    name: str,
    shape: tuple[int, ...],
    *,
    seed: int,
    layers: int,
    head_width: int,
    device: torch.device,
) -> Tensor:
    """The initial value of a parameter, from a stream of its own.

    Args:
        name: Its name in the whole model.
        shape: Its shape in the whole model.
        seed: The job's.
        layers: Layers of the whole model.
        head_width: Width of one attention head.
        device: Where it is drawn; the streams of CPU and GPU differ.
    """
    if len(shape) < 2:
        return torch.full(shape, 1.0 if name.endswith("weight") else 0.0, device=device)
    spread = math.prod(shape[1:]) ** -0.5
    owner = name.rpartition(".")[0]
    if any(word in owner for word in _TABLES):
        spread = _TABLE_SPREAD
    if name == "head.weight":
        spread *= 0.1  # so that training begins with even guesses
    if owner.endswith("Attention.q"):
        spread /= head_width**0.5  # T5 does not divide scores by it, so its queries start smaller
    if owner.endswith(("narrow", "attention.out")):
        # What is added to the residual stream starts smaller, as in GPT-2.
        spread /= (2 * layers) ** 0.5
    # The generator looks at 32 bits of its seed, so the two are hashed and not put together.
    generator = torch.Generator(device).manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
    return torch.empty(shape, device=device).normal_(0.0, spread, generator=generator)
