"""Which samples belong to which step: a function of seed and step alone.

An epoch is one permutation of all samples. Step ``s`` takes the next ``global_batch_size`` of the
endless sequence of epochs; a replica takes its contiguous part of them.
"""

import zlib

import torch
from torch import Tensor


class SampleOrder:
    """The order of the data of one job."""

    def __init__(self, *, samples: int, global_batch_size: int, seed: int) -> None:
        self._samples = samples
        self._batch = global_batch_size
        self._seed = seed
        self._epoch = -1
        self._permutation = torch.empty(0, dtype=torch.int64)

    def of_step(self, step: int) -> Tensor:
        """Indices of the samples of a step, counted from 1."""
        start = (step - 1) * self._batch
        parts = []
        left = self._batch
        while left:
            epoch, position = divmod(start, self._samples)
            part = self._of_epoch(epoch)[position : position + left]
            parts.append(part)
            start += len(part)
            left -= len(part)
        return torch.cat(parts)

    def _of_epoch(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            # The generator looks at 32 bits of its seed, so the two are hashed to that.
            seed = zlib.crc32(f"{self._seed}/{epoch}".encode())
            generator = torch.Generator().manual_seed(seed)
            self._permutation = torch.randperm(self._samples, generator=generator)
            self._epoch = epoch
        return self._permutation
