"""Tensors of a checkpoint to and from a store, by torch.distributed.checkpoint.

The one file that knows that library, whose import takes seconds: only the rank that saves or loads
pays for it. All replicas are equal, so rank 0 writes and reads alone and gives the others what it
read over the process group.
"""

import warnings
from typing import TYPE_CHECKING, Any

from torch import Tensor

from headrace.workloads.refusal import (
    CHECKPOINT_FAILED,
    START_REFUSED,
    WorkloadError,
    no_room,
)
from headrace.workloads.storage import LocalStorage, Storage

if TYPE_CHECKING:
    from headrace.workloads.training.optimiser import FlatModel


def save(storage: Storage, folder: str, state: dict[str, Tensor]) -> None:
    """Write the tensors into an empty folder of the store, durably.

    Raises:
        WorkloadError: The store took less than all of them.
    """
    import torch.distributed.checkpoint as dcp

    location = storage.location(folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is no process group is as wanted
            dcp.save(state, storage_writer=_writer(storage, location), no_dist=True)
    except (Exception, dcp.CheckpointException) as error:  # the latter is no Exception
        storage.remove(folder)
        size_bytes = sum(tensor.nbytes for tensor in state.values())
        raise _failed(storage, error, size_bytes) from error


def _failed(storage: Storage, error: BaseException, size_bytes: int) -> WorkloadError:
    # torch's archive writer hides the system's error behind one of its own, so look again.
    full = no_room(error) or storage.lacks_room(size_bytes)
    why = (
        f"the store has no room for {size_bytes / 1e6:.1f} MB: {full.strerror or full}; free some, "
        "or keep fewer checkpoints"
        if full is not None
        else _first_cause(error)
    )
    return WorkloadError(
        CHECKPOINT_FAILED,
        f"a checkpoint could not be written to {storage.name}: {why}. Earlier checkpoints are "
        "untouched",
    )


def _first_cause(error: BaseException) -> str:
    """What the rank raised, without the stack that torch wraps around it."""
    failures = getattr(error, "failures", None) or {}
    causes = [item[0] for item in failures.values() if isinstance(item, tuple)] or [error]
    return f"{type(causes[0]).__name__}: {str(causes[0]).strip()[:500]}"


def load(storage: Storage, location: str, flat: "FlatModel") -> None:
    """Read the tensors into the model's own buffers.

    Raises:
        WorkloadError: They are those of another model.
    """
    import torch.distributed.checkpoint as dcp

    wanted = flat.state_dict()
    try:
        reader = _reader(storage, location)
        _check_names(wanted, reader.read_metadata().state_dict_metadata)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dcp.load(wanted, storage_reader=reader, no_dist=True)
    except (OSError, RuntimeError, dcp.CheckpointException) as error:
        raise WorkloadError(
            CHECKPOINT_FAILED,
            f"the checkpoint {location} cannot be read: {_first_cause(error)}; remove it to go on "
            "from the one before",
        ) from error
    flat.step = int(wanted[f"optimizer.state.{flat.pieces[0].name}.step"].item())


def _check_names(wanted: dict[str, Tensor], there: dict[str, Any]) -> None:
    for name, tensor in wanted.items():
        found = there.get(name)
        if found is None or tuple(getattr(found, "size", ())) != tuple(tensor.shape):
            came = "nothing" if found is None else f"size {tuple(found.size)}"
            raise WorkloadError(
                START_REFUSED,
                f"the checkpoint is of another model: for {name} wanted size "
                f"{tuple(tensor.shape)}, got {came}; keep the model's sizes, or train a new job",
            )


def _writer(storage: Storage, location: str) -> Any:
    if isinstance(storage, LocalStorage):
        from torch.distributed.checkpoint import FileSystemWriter

        return FileSystemWriter(location, sync_files=True)
    return _fsspec().FsspecWriter(location)


def _reader(storage: Storage, location: str) -> Any:
    if isinstance(storage, LocalStorage):
        from torch.distributed.checkpoint import FileSystemReader

        return FileSystemReader(location)
    return _fsspec().FsspecReader(location)


def _fsspec() -> Any:
    """torch's reader and writer for URLs, which moved to a public name after torch 2.11."""
    import importlib

    package = "torch.distributed.checkpoint"
    try:
        return importlib.import_module(f"{package}.fsspec_filesystem")
    except ModuleNotFoundError:
        return importlib.import_module(f"{package}._fsspec_filesystem")
