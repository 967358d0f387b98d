"""What accelerators this node has, and whether they are well.

GPUs are found through NVML. Where there are none, CPU slots stand in for them. Each accelerator
brings an even share of the node's cores and memory.
"""

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import psutil

from agent.nvlink import islands, links_of
from controlplane.domain.ids import AcceleratorId
from controlplane.domain.node import Accelerator
from headrace.api.accelerator_type import type_label
from headrace.api.visible_gpus import visible_gpus

CPU_TYPE = "cpu"

XIDS_OF_PROGRAMS = frozenset({13, 31, 43, 45, 68, 109})
"""Xids that a user's program causes by itself; the GPU is not to blame (NVIDIA's list)."""


class AcceleratorsMissingError(Exception):
    """What was asked for is not there; the message says what is."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the operator wants the agent to offer.

    Attributes:
        accelerators: ``auto`` (GPUs if there are any, else CPU slots), ``cpu``, a number of GPUs,
            or GPU UUIDs joined by commas. Only UUIDs reach beyond ``CUDA_VISIBLE_DEVICES``.
        slots: Number of CPU slots; 0 for one a core.
        cpu_cores: Cores to share out; empty for all that this process may use.
    """

    accelerators: str = "auto"
    slots: int = 0
    cpu_cores: tuple[int, ...] = ()


@dataclass
class GpuProbe:
    """Watches the GPUs that this agent offers.

    Attributes:
        nvml: The ``pynvml`` module, or None where it is not installed.
        environment: Where ``CUDA_VISIBLE_DEVICES`` is looked up.
    """

    nvml: ModuleType | Any | None
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    _handles: dict[str, Any] = field(default_factory=dict)
    _events: Any = None
    _quarantined: dict[str, str] = field(default_factory=dict)

    def find(self, node: str, wanted: Wanted) -> tuple[Accelerator, ...]:
        """The accelerators of this node.

        Raises:
            AcceleratorsMissingError: GPUs were asked for that are not here.
        """
        cores = wanted.cpu_cores or tuple(sorted(os.sched_getaffinity(0)))
        memory_bytes = psutil.virtual_memory().total
        every = gpus = {} if wanted.accelerators == CPU_TYPE else self._gpus()
        left = {uuid: gpus[uuid] for uuid in visible_gpus(tuple(gpus), self.environment)}
        if wanted.accelerators == "auto" or wanted.accelerators.isdigit():
            gpus = left
        if wanted.accelerators not in ("auto", CPU_TYPE):
            gpus = _chosen(gpus, wanted.accelerators)
        if not gpus:
            count = wanted.slots or len(cores)
            return tuple(
                Accelerator(
                    id=AcceleratorId(f"{node}-slot-{index}"),
                    type=CPU_TYPE,
                    cpu_cores=share,
                    host_memory_bytes=memory_bytes // count,
                )
                for index, share in enumerate(shares(cores, count))
            )
        self._watch(gpus)
        problems = self.problems()
        # Of all GPUs, so that agents that share a machine call an island the same.
        island = islands(tuple(every), links_of(self.nvml, every))
        return tuple(
            Accelerator(
                id=AcceleratorId(uuid),
                type=type_label(_text(self._nvml.nvmlDeviceGetName(handle))),
                memory_bytes=int(self._nvml.nvmlDeviceGetMemoryInfo(handle).total),
                cpu_cores=share,
                host_memory_bytes=memory_bytes // len(gpus),
                unhealthy=problems.get(uuid, ""),
                island=island[uuid],
            )
            for (uuid, handle), share in zip(gpus.items(), shares(cores, len(gpus)), strict=True)
        )

    def problems(self) -> dict[str, str]:
        """Why each GPU that is unhealthy is so. Stays until the agent starts anew."""
        if not self._handles:
            return {}
        self._read_xids()
        for uuid, handle in self._handles.items():
            if uuid in self._quarantined:
                continue
            problem = self._ecc_problem(handle)
            if problem:
                self._quarantined[uuid] = problem
        return dict(self._quarantined)

    @property
    def _nvml(self) -> Any:
        assert self.nvml is not None
        return self.nvml

    def _gpus(self) -> dict[str, Any]:
        """Handles by UUID, in NVML's order; empty without a driver."""
        if self.nvml is None:
            return {}
        try:
            self.nvml.nvmlInit()
            count = self.nvml.nvmlDeviceGetCount()
        except self.nvml.NVMLError:
            return {}
        handles = [self.nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        return {_text(self.nvml.nvmlDeviceGetUUID(handle)): handle for handle in handles}

    def _watch(self, gpus: dict[str, Any]) -> None:
        self._handles = dict(gpus)
        try:
            self._events = self._nvml.nvmlEventSetCreate()
            for handle in gpus.values():
                self._nvml.nvmlDeviceRegisterEvents(
                    handle, self._nvml.nvmlEventTypeXidCriticalError, self._events
                )
        except self._nvml.NVMLError:
            self._events = None  # not every GPU or container tells of Xids; ECC is still read

    def _read_xids(self) -> None:
        while self._events is not None:
            try:
                event = self._nvml.nvmlEventSetWait_v2(self._events, 0)
                uuid = _text(self._nvml.nvmlDeviceGetUUID(event.device))
            except self._nvml.NVMLError:
                return  # a timeout: nothing (more) happened
            xid = int(event.eventData)
            if uuid in self._handles and xid not in XIDS_OF_PROGRAMS:
                self._quarantined.setdefault(uuid, f"Xid {xid} was reported by the driver")

    def _ecc_problem(self, handle: Any) -> str:
        nvml = self._nvml
        try:
            errors = int(
                nvml.nvmlDeviceGetTotalEccErrors(
                    handle, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
                )
            )
        except nvml.NVMLError_NotSupported:
            return ""
        except nvml.NVMLError as error:
            return f"NVML cannot read it: {error}"
        return f"{errors} uncorrected ECC errors since the last reset" if errors else ""


def installed_nvml() -> ModuleType | None:
    """The NVML bindings, where they are installed."""
    try:
        import pynvml
    except ImportError:
        return None
    module: ModuleType = pynvml
    return module


def shares(cores: Sequence[int], count: int) -> list[tuple[int, ...]]:
    """``cores`` cut evenly into ``count`` shares; with fewer cores than shares they take turns."""
    if count > len(cores):
        return [(cores[index % len(cores)],) for index in range(count)] if cores else [()] * count
    cut = [index * len(cores) // count for index in range(count + 1)]
    return [tuple(cores[low:high]) for low, high in itertools.pairwise(cut)]


def _chosen(gpus: dict[str, Any], wanted: str) -> dict[str, Any]:
    have = ", ".join(gpus) or "no GPUs (or no NVIDIA driver)"
    if wanted.isdigit():
        if int(wanted) > len(gpus) or int(wanted) == 0:
            raise AcceleratorsMissingError(f"{wanted} GPUs were asked for; this node has {have}")
        return dict(list(gpus.items())[: int(wanted)])
    uuids = [part.strip() for part in wanted.split(",") if part.strip()]
    missing = [uuid for uuid in uuids if uuid not in gpus]
    if missing or not uuids:
        raise AcceleratorsMissingError(
            f"GPU {', '.join(missing) or repr(wanted)} was asked for; this node has {have}. "
            "--accelerators takes auto, cpu, a number, or UUIDs joined by commas"
        )
    return {uuid: gpus[uuid] for uuid in uuids}


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
