"""Which GPUs of a node reach each other over NVLink, directly or through a switch."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from types import ModuleType
from typing import Any

Linked = Callable[[str, str], bool]
"""Whether two GPUs are joined by NVLink."""


def islands(gpus: Sequence[str], linked: Linked) -> dict[str, str]:
    """The name of each GPU's island, which is a number; empty for one that is linked to none.

    GPUs that reach each other over others of the same island are in it as well: where each is
    linked to some of the others only (the cube mesh of a DGX-1), rings still go over NVLink.

    Args:
        gpus: In a stable order; islands are numbered by their first one.
        linked: Asked once for each pair.
    """
    root = {gpu: gpu for gpu in gpus}

    def first_of(gpu: str) -> str:
        while root[gpu] != gpu:
            gpu = root[gpu]
        return gpu

    for one, other in combinations(gpus, 2):
        if linked(one, other):
            # The earlier one stays the first, whatever is joined.
            ahead, behind = sorted((first_of(one), first_of(other)), key=gpus.index)
            root[behind] = ahead
    members: dict[str, list[str]] = {}
    for gpu in gpus:
        members.setdefault(first_of(gpu), []).append(gpu)
    several = [every for every in members.values() if len(every) > 1]
    names = {gpu: str(number) for number, every in enumerate(several) for gpu in every}
    return {gpu: names.get(gpu, "") for gpu in gpus}


def links_of(nvml: ModuleType | Any, handles: Mapping[str, Any]) -> Linked:
    """What NVML says of pairs: it counts a way through NVSwitches as well. Where it cannot say, as
    for parts of a GPU, there is no link.

    Args:
        nvml: The ``pynvml`` module, initialised.
        handles: Of the GPUs, by UUID.
    """

    def linked(one: str, other: str) -> bool:
        try:
            status = nvml.nvmlDeviceGetP2PStatus(
                handles[one], handles[other], nvml.NVML_P2P_CAPS_INDEX_NVLINK
            )
        except nvml.NVMLError:
            return False
        return bool(status == nvml.NVML_P2P_STATUS_OK)

    return linked
