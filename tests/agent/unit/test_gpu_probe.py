"""Accelerators, from a played NVML and from the cores of this machine."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from agent.gpu_probe import AcceleratorsMissingError, GpuProbe, Wanted, shares
from agent.translate import accelerator
from headrace.api.accelerator_type import type_label


class NVMLError(Exception):
    """As pynvml's."""


class NotSupportedError(NVMLError):
    """As pynvml's NVMLError_NotSupported."""


@dataclass
class PlayedNvml:
    """As much of pynvml as the probe asks for, over GPUs that a test lists."""

    gpus: list[str]
    ecc: dict[str, int] = field(default_factory=dict)
    xids: list[tuple[str, int]] = field(default_factory=list)
    driver: bool = True
    ecc_known: bool = True
    links: frozenset[frozenset[str]] = frozenset()
    links_known: bool = True
    NVMLError: type[Exception] = NVMLError
    NVMLError_NotSupported: type[Exception] = NotSupportedError
    NVML_MEMORY_ERROR_TYPE_UNCORRECTED: int = 1
    NVML_VOLATILE_ECC: int = 0
    NVML_P2P_CAPS_INDEX_NVLINK: int = 2
    NVML_P2P_STATUS_OK: int = 0
    nvmlEventTypeXidCriticalError: int = 8  # noqa: N815

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.driver:
            raise NVMLError("driver not loaded")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return self.gpus[index]

    def nvmlDeviceGetUUID(self, handle: str) -> str:  # noqa: N802
        return handle

    def nvmlDeviceGetName(self, handle: str) -> bytes:  # noqa: N802
        return b"NVIDIA H100 80GB HBM3"

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:  # noqa: N802
        return SimpleNamespace(total=85 << 30)

    def nvmlDeviceGetTotalEccErrors(self, handle: str, kind: int, counter: int) -> int:  # noqa: N802
        assert (kind, counter) == (1, 0)
        if not self.ecc_known:
            raise NotSupportedError("no ECC")
        return self.ecc.get(handle, 0)

    def nvmlDeviceGetP2PStatus(self, one: str, other: str, kind: int) -> int:  # noqa: N802
        assert kind == 2
        if not self.links_known:
            raise NotSupportedError("not for a part of a GPU")
        return 0 if frozenset((one, other)) in self.links else 5

    def nvmlEventSetCreate(self) -> str:  # noqa: N802
        return "events"

    def nvmlDeviceRegisterEvents(self, handle: str, kinds: int, events: str) -> None:  # noqa: N802
        assert (kinds, events) == (8, "events")

    def nvmlEventSetWait_v2(self, events: str, timeout_ms: int) -> Any:  # noqa: N802
        assert timeout_ms == 0
        if not self.xids:
            raise NVMLError("timeout")
        uuid, xid = self.xids.pop(0)
        return SimpleNamespace(device=uuid, eventData=xid)


def test_gpus_are_named_by_uuid_with_type_memory_and_a_share_of_the_cores() -> None:
    probe = GpuProbe(PlayedNvml(["GPU-1", "GPU-2"]), {})
    first, second = probe.find("n", Wanted(cpu_cores=(0, 1, 2, 3)))
    assert (first.id, first.type) == ("GPU-1", "nvidia-h100-80gb-hbm3")
    assert first.memory_bytes == 85 << 30
    assert (first.cpu_cores, second.cpu_cores) == ((0, 1), (2, 3))
    assert first.host_memory_bytes == second.host_memory_bytes > 0
    assert first.unhealthy == ""


def test_gpus_that_nvlink_joins_are_in_one_island_whichever_of_them_are_offered() -> None:
    links = frozenset(frozenset(pair) for pair in (("GPU-1", "GPU-3"), ("GPU-2", "GPU-4")))
    nvml = PlayedNvml([f"GPU-{i}" for i in range(1, 6)], links=links)
    found = GpuProbe(nvml, {}).find("n", Wanted())
    assert [one.island for one in found] == ["0", "1", "0", "1", ""]
    assert [accelerator(one).island for one in found] == ["0", "1", "0", "1", ""], "as registered"
    some = GpuProbe(nvml, {}).find("n", Wanted("GPU-4, GPU-5"))
    assert [one.island for one in some] == ["1", ""]


def test_where_nvml_cannot_say_there_is_no_island() -> None:
    both = frozenset({frozenset({"GPU-1", "GPU-2"})})
    nvml = PlayedNvml(["GPU-1", "GPU-2"], links=both, links_known=False)
    assert [one.island for one in GpuProbe(nvml, {}).find("n", Wanted())] == ["", ""]
    assert [one.island for one in GpuProbe(None, {}).find("n", Wanted(slots=2))] == ["", ""]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("auto", ["GPU-1", "GPU-2", "GPU-3"]),
        ("2", ["GPU-1", "GPU-2"]),
        ("GPU-3, GPU-1", ["GPU-3", "GPU-1"]),
        ("cpu", ["n-slot-0", "n-slot-1"]),
    ],
)
def test_agents_can_share_the_gpus_of_a_machine(wanted: str, found: list[str]) -> None:
    probe = GpuProbe(PlayedNvml(["GPU-1", "GPU-2", "GPU-3"]), {})
    assert [one.id for one in probe.find("n", Wanted(wanted, slots=2))] == found


@pytest.mark.parametrize(
    ("wanted", "visible", "found"),
    [
        ("auto", "2,0", ["GPU-3", "GPU-1"]),
        ("auto", "GPU-2", ["GPU-2"]),
        ("auto", "-1", ["n-slot-0"]),
        ("1", "1,2", ["GPU-2"]),
        ("GPU-3", "0", ["GPU-3"]),
    ],
)
def test_what_is_not_named_by_uuid_keeps_to_cuda_visible_devices(
    wanted: str, visible: str, found: list[str]
) -> None:
    nvml = PlayedNvml(["GPU-1", "GPU-2", "GPU-3"])
    probe = GpuProbe(nvml, {"CUDA_VISIBLE_DEVICES": visible})
    assert [one.id for one in probe.find("n", Wanted(wanted, slots=1))] == found


@pytest.mark.parametrize("wanted", ["4", "0", "GPU-9", ","])
def test_gpus_that_are_not_here_are_said(wanted: str) -> None:
    probe = GpuProbe(PlayedNvml(["GPU-1"]), {})
    with pytest.raises(AcceleratorsMissingError, match="this node has GPU-1"):
        probe.find("n", Wanted(wanted))


@pytest.mark.parametrize("nvml", [None, PlayedNvml(["GPU-1"], driver=False), PlayedNvml([])])
def test_without_gpus_slots_stand_in(nvml: PlayedNvml | None) -> None:
    found = GpuProbe(nvml, {}).find("n", Wanted(slots=3, cpu_cores=(5, 7)))
    assert [(one.id, one.type, one.cpu_cores) for one in found] == [
        ("n-slot-0", "cpu", (5,)),
        ("n-slot-1", "cpu", (7,)),
        ("n-slot-2", "cpu", (5,)),
    ]
    assert GpuProbe(nvml, {}).problems() == {}


def test_by_default_there_is_a_slot_for_each_core() -> None:
    assert len(GpuProbe(None, {}).find("n", Wanted(cpu_cores=(0, 1, 2)))) == 3


def test_hardware_faults_quarantine_for_good_and_faults_of_programs_do_not() -> None:
    nvml = PlayedNvml(["GPU-1", "GPU-2", "GPU-3"], ecc={"GPU-2": 3})
    probe = GpuProbe(nvml, {})
    _, second, _ = probe.find("n", Wanted("auto"))
    assert "3 uncorrected ECC errors" in second.unhealthy
    nvml.ecc.clear()
    nvml.xids += [("GPU-3", 13), ("GPU-1", 79), ("GPU-elsewhere", 79)]
    problems = probe.problems()
    assert sorted(problems) == ["GPU-1", "GPU-2"]
    assert "Xid 79" in problems["GPU-1"]
    assert probe.problems() == problems


def test_a_gpu_without_ecc_is_well() -> None:
    nvml = PlayedNvml(["GPU-1"], ecc_known=False)
    assert GpuProbe(nvml, {}).find("n", Wanted())[0].unhealthy == ""


@pytest.mark.parametrize("cores", range(1, 9))
@pytest.mark.parametrize("count", range(1, 12))
def test_shares_are_even_and_use_every_core(cores: int, count: int) -> None:
    cut = shares(range(cores), count)
    assert len(cut) == count
    sizes = {len(share) for share in cut}
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1
    assert {core for share in cut for core in share} == set(range(cores))


def test_a_type_is_a_label_value() -> None:
    assert type_label("NVIDIA A100-SXM4-40GB") == "nvidia-a100-sxm4-40gb"
    assert len(type_label("x" * 99)) == 63
