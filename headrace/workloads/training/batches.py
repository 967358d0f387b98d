"""Batches: a tensor, or tuples, lists and mappings of such, with samples in the first dimension."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

Batch: TypeAlias = Any
"""A tensor, or a tuple, list or mapping of batches; an empty one for nothing."""


def on_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with all its tensors on a device, or on their way to a GPU."""
    if device.type == "cpu":
        return batch
    return _mapped(batch, lambda tensor: tensor.pin_memory().to(device, non_blocking=True))


def micro_batches(batch: Batch, count: int) -> list[Batch]:
    """The batch in equal parts, one after the other."""

    def part(index: int) -> Batch:
        return _mapped(batch, lambda tensor: tensor.chunk(count)[index])

    return [part(index) for index in range(count)]


def leaves(batch: Batch) -> Iterator[Any]:
    """Its tensors, and whatever else is where a tensor should be."""
    if isinstance(batch, Mapping):
        batch = tuple(batch.values())
    if isinstance(batch, tuple | list):
        for part in batch:
            yield from leaves(part)
    else:
        yield batch


def described(batch: Batch) -> str:
    """Types and sizes, for sentences."""
    told = [
        f"{str(leaf.dtype).removeprefix('torch.')}{list(leaf.shape)}"
        if isinstance(leaf, Tensor)
        else type(leaf).__name__
        for leaf in leaves(batch)
    ]
    return ", ".join(told) or "nothing"


def _mapped(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, Mapping):
        return {key: _mapped(part, change) for key, part in batch.items()}
    parts = [_mapped(part, change) for part in batch]
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*parts)  # a named tuple
    return type(batch)(parts)
