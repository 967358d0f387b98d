"""Which GPUs ``CUDA_VISIBLE_DEVICES`` leaves, by the rules of every CUDA program.

NVML numbers GPUs by their place on the PCI bus. CUDA does so too under
``CUDA_DEVICE_ORDER=PCI_BUS_ID``; by default it puts the fastest first, so on a machine with GPUs of
several kinds an index may mean another GPU here than in a program. UUIDs mean the same everywhere.
"""

import re
from collections.abc import Mapping, Sequence

VARIABLE = "CUDA_VISIBLE_DEVICES"


def visible_gpus(uuids: Sequence[str], environment: Mapping[str, str]) -> tuple[str, ...]:
    """The GPUs that may be used, in the order in which the variable names them.

    As in CUDA, the first entry that names no GPU ends the list (so ``-1`` and the empty text leave
    none), one entry twice leaves none, and a UUID may be cut short as long as it is unambiguous.

    Args:
        uuids: All GPUs of the machine, in NVML's order.
        environment: Where the variable is looked up; without it all GPUs may be used.
    """
    if VARIABLE not in environment:
        return tuple(uuids)
    chosen: list[str] = []
    for entry in environment[VARIABLE].split(","):
        named = _named(entry.strip(), uuids)
        if named is None:
            break
        if named in chosen:
            return ()
        chosen.append(named)
    return tuple(chosen)


def _named(entry: str, uuids: Sequence[str]) -> str | None:
    """The one GPU that an entry means; None if it means none, or several."""
    if re.fullmatch(r"\+?[0-9]{1,9}", entry):
        index = int(entry)
        return uuids[index] if index < len(uuids) else None
    if not entry.startswith("GPU-"):
        return None
    meant = [uuid for uuid in uuids if uuid.startswith(entry)]
    return meant[0] if len(meant) == 1 else None
