"""What this machine is, and how much memory a rank takes of it."""

import os
import re
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from headrace.api.profile_rows import Machine
from headrace.workloads.host_memory import give_back


def this_machine(device: torch.device) -> Machine:
    """Device and versions."""
    on_gpu = device.type == "cuda"
    try:
        headrace = metadata.version("headrace")
    except metadata.PackageNotFoundError:
        headrace = "not installed"
    return Machine(
        device=torch.cuda.get_device_name(device) if on_gpu else "cpu",
        cpu_threads=torch.get_num_threads(),
        torch=torch.__version__,
        cuda=torch.version.cuda or "",
        nccl=".".join(map(str, _nccl())) if on_gpu else "",
        driver=_driver() if on_gpu else "",
        headrace=headrace,
    )


def _nccl() -> tuple[int, ...]:
    found: tuple[int, ...] = torch.cuda.nccl.version()  # type: ignore[no-untyped-call]
    return found


def _driver() -> str:
    try:
        told = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        return ""
    found = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", told)
    return found[1] if found else ""


def free_host_bytes(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Host memory that the ranks of this machine may still take together.

    Args:
        cgroup: Folder of this process's cgroup, whose limit counts what is used in it already.
    """
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    with suppress(OSError):  # this counts what only caches files too
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
        free = int(found[1]) * 1024 if found else free
    with suppress(OSError, ValueError):  # no limit is told as "max"
        limit, used = (
            int((cgroup / name).read_text()) for name in ("memory.max", "memory.current")
        )
        told = (cgroup / "memory.stat").read_text()
        cached = re.search(r"^inactive_file (\d+)$", told, re.MULTILINE)
        gives_way = int(cached[1]) if cached else 0
        free = min(free, max(0, limit - used + gives_way))
    return free


class Memory:
    """Peaks of this rank's memory, from one ``reset`` or ``begin`` to the next."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._nvml = _Nvml(device) if device.type == "cuda" else None

    def begin(self) -> None:
        """Begin anew on the device, without waiting for it; on the host the peak stays."""
        if self._nvml is not None:
            torch.cuda.reset_peak_memory_stats(self._device)

    def reset(self) -> None:
        """Begin anew, with what is unused given back."""
        if self._nvml is not None:
            torch.cuda.synchronize(self._device)
            torch.cuda.empty_cache()
        self.begin()
        give_back()
        with suppress(OSError):  # else the peak is that since the start
            Path("/proc/self/clear_refs").write_text("5")

    def peaks(self) -> dict[str, int]:
        """Bytes of the allocator, of the process on the device, and of the process on the host."""
        host = _resident_peak()
        if self._nvml is None:
            return {"peak_allocated": host, "peak_process": host, "host": host}
        # What is reserved is never given back in between, so the two peaks belong together.
        beside = self._nvml.used() - torch.cuda.memory_reserved(self._device)
        return {
            "peak_allocated": torch.cuda.max_memory_allocated(self._device),
            "peak_process": torch.cuda.max_memory_reserved(self._device) + max(0, beside),
            "host": host,
        }


class _Nvml:
    """What NVML says that this process uses; what CUDA says that all use, where it does not."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pynvml: Any = None
        self._handle: Any = None
        with suppress(Exception):  # no package, another container's GPU: all the same here
            import pynvml

            pynvml.nvmlInit()
            uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
            self._pynvml = pynvml

    def used(self) -> int:
        """Bytes of the device."""
        if self._pynvml is not None:
            with suppress(Exception):
                processes = self._pynvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
                told = {each.pid: each.usedGpuMemory for each in processes}
                # A container knows its processes by other numbers than the driver.
                mine = told.get(os.getpid()) or (next(iter(told.values())) if len(told) == 1 else 0)
                if mine:
                    return int(mine)
        free, total = torch.cuda.mem_get_info(self._device)
        return total - free


def _resident_peak() -> int:
    with suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        if found:
            return int(found[1]) * 1024
    return 0
