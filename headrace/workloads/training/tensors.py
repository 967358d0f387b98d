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
    except Exception as error:
        storage.remove(folder)
        raise _failed(storage, error) from error


def _failed(storage: Storage, error: Exception) -> WorkloadError:
    full = no_room(error)
    why = (
        f"the store has no room: {full.strerror or full}; free some, or keep fewer checkpoints"
        if full is not None
        else f"{type(error).__name__}: {str(error).strip().splitlines()[-1:] or error}"
    )
    return WorkloadError(
        CHECKPOINT_FAILED,
        f"a checkpoint could not be written to {storage.name}: {why}. Earlier checkpoints are "
        "untouched",
    )


def load(storage: Storage, location: str, flat: "FlatModel") -> None:
    """Read the tensors into the model's own buffers.

    Raises:
        WorkloadError: They are those of another model.
    """
    import torch.distributed.checkpoint as dcp

    reader = _reader(storage, location)
    wanted = flat.state_dict()
    there = reader.read_metadata().state_dict_metadata
    _check_names(wanted, there)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.load(wanted, storage_reader=reader, no_dist=True)
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
