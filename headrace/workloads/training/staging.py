"""Where a save has the state while it is written: a copy in host memory, or the state itself."""

from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.staging import AsyncStager

from headrace.workloads.training.sharding import local


class Staging(AsyncStager):
    """The host memory of one model's saves, taken by the first and used again by all later ones.

    Next to a GPU it is pinned, so that the state comes at the speed of the link. It is torch's
    allocator that pins, with threads (`host_memory`); torch's `DefaultStager` pins by itself, with
    one, and copies what lies in host memory as well.
    """

    def __init__(self, device: torch.device, *, copies: bool) -> None:
        """Take no memory yet.

        Args:
            device: Where this rank computes.
            copies: Whether to copy. Else a save writes from the state itself, which must not change
                before it is over.
        """
        self.copies = copies
        self._device = device
        self._slots: dict[str, Tensor] = {}

    def stage(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """What torch's writer may read while training goes on."""
        if not self.copies:
            return state_dict
        for name, tensor in state_dict.items():
            if name not in self._slots:
                pinned = tensor.device.type == "cuda"
                self._slots[name] = torch.empty_like(tensor, device="cpu", pin_memory=pinned)
            local(self._slots[name]).copy_(local(tensor), non_blocking=True)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return {name: self._slots[name] for name in state_dict}

    def synchronize_staging(self) -> None:
        """Nothing is on its way any more when `stage` returns."""

    def close(self) -> None:
        """Let go of the memory, once nothing is written from it any more."""
        self._slots = {}
