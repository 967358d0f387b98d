"""How a rank takes host memory: with offload many GiB come and go in every step.

Left alone, the C library asks the kernel for each large tensor anew, page by page of 4 KiB. On an
H100's host a tensor came from the GPU into such memory at 1.6 GB/s, into memory that was used
before at 15 GB/s; pinning went at 3 GB/s, and with threads at 9 (docs/evidence/plans.md).
"""

import ctypes
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

_TORCH = {
    "THP_MEM_ALLOC_ENABLE": "1",  # large pages, where the kernel gives them on request
    "PYTORCH_CUDA_ALLOC_CONF": "pinned_use_cuda_host_register:True,pinned_num_register_threads:8",
}

# Of mallopt(3).
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def may_offload(spec: Mapping[str, Any], plan: str) -> bool:
    """Whether a job may train with offload, under a plan or under another that it names.

    Args:
        spec: Of its manifest.
        plan: In short form; empty for none.
    """
    named = (plan, *(spec.get("plans") or ()))
    return any("offload" in text.split("-") for text in named)


def pin_fast() -> None:
    """Have torch pin memory with threads and take large pages. Must come before it is imported."""
    for name, value in _TORCH.items():
        os.environ.setdefault(name, value)


def keep_freed() -> None:
    """Have freed memory used again, of whoever frees it. Does nothing where the C library knows no
    such choice. All threads take from one place then, so it is for offload alone.
    """
    with suppress(OSError, AttributeError):
        set_option = ctypes.CDLL(None).mallopt
        # Nothing mapped by itself, no end of the heap returned, and the backward pass's thread
        # takes from where the others do.
        for option, setting in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_ARENA_MAX, 1)):
            set_option(option, setting)


def give_back() -> None:
    """Return to the kernel what is free."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
