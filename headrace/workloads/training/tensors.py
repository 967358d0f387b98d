"""Tensors of a checkpoint to and from a store, by torch.distributed.checkpoint.

Every rank writes and reads its own pieces, under the names that torch gives with
``StateDictOptions(flatten_optimizer_state_dict=True)``: parameters are known by name and not by
position, so that whatever one plan wrote every other plan can load.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor

from headrace.workloads.refusal import (
    CANNOT_BE_TRAINED,
    CHECKPOINT_CORRUPT,
    CHECKPOINT_FAILED,
    CHECKPOINT_STORE_FULL,
    OUT_OF_MEMORY,
    STORE_FAILED,
    WorkloadError,
    no_room,
    reason_of,
    store_failure,
)
from headrace.workloads.rendezvous import RankGoneError
from headrace.workloads.storage import Storage
from headrace.workloads.training.optimiser import MOMENTS
from headrace.workloads.training.planned import PlannedModel
from headrace.workloads.training.stored_form import extents, reader_of, writer_of


def _stored_name(name: str) -> str:
    """The name in a checkpoint of a parameter, or of a moment written ``parameter|moment``."""
    parameter, _, moment = name.partition("|")
    return f"optimizer.state.{parameter}.{moment}" if moment else f"model.{parameter}"


def _stored(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {_stored_name(name): tensor for name, tensor in state.items()}


def save_begun(storage: Storage, folder: str, model: PlannedModel) -> "Saving":
    """Write the state into an empty folder of the store; in the background, if it can be copied.

    With offload it takes most of the host's memory, and a copy would take as much again: then this
    returns when all is written. All ranks call it together.
    """
    parameters, moments = model.distributed(), model.distributed_moments()
    everything = parameters | moments
    mine = _stored({name: everything[name] for name in sorted(model.saved())})
    # AdamW counts the steps of each parameter; they never differ.
    count = torch.tensor(float(model.step))
    counts = {f"{name.rpartition('.')[0]}.step": count for name in _stored(moments)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        future = dcp.async_save(
            mine | counts,
            storage_writer=writer_of(storage, storage.location(folder)),
            process_group=model.world.for_saving,
            async_stager=model.staging,
        )
    assert isinstance(future, Future)
    if not model.staging.copies:
        wait([future])
    size_bytes = sum(tensor.nbytes for tensor in everything.values())
    return Saving(storage, folder, future, size_bytes)


class Saving:
    """A state that is being written."""

    def __init__(
        self, storage: Storage, folder: str, future: "Future[Any]", size_bytes: int
    ) -> None:
        self._storage = storage
        self._folder = folder
        self._future = future
        self._size_bytes = size_bytes

    @property
    def is_over(self) -> bool:
        """Whether it has ended, well or not."""
        return self._future.done()

    def wait(self) -> None:
        """Wait for the end.

        Raises:
            WorkloadError: The store took less than all of it.
            RankGoneError: Another rank ended meanwhile.
        """
        try:
            self._future.result()
        except (Exception, dcp.CheckpointException) as error:  # the latter is no Exception
            full = no_room(error)
            if not isinstance(error, dcp.CheckpointException) and full is None:
                raise RankGoneError(f"a checkpoint was not finished: {error}") from error
            raise self._failed(error, full) from error

    def written(self) -> dict[str, int]:
        """Bytes that each file has at least, by its path in the folder; to be asked on rank 0.

        What torch 2.11 returns of a save does not say it, so it comes from what was written.
        """
        location = self._storage.location(self._folder)
        metadata = reader_of(self._storage, location).read_metadata()
        found: dict[str, int] = {}
        for path, offset, length in extents(metadata):
            found[path] = max(found.get(path, 0), offset + length)
        return found

    def _failed(self, error: BaseException, full: OSError | None) -> WorkloadError:
        why = (
            f"the store has no room for {self._size_bytes / 1e6:.1f} MB: "
            f"{full.strerror or full}; free some, or keep fewer checkpoints"
            if full is not None
            else _told(_first_cause(error))
        )
        return WorkloadError(
            CHECKPOINT_FAILED if full is None else CHECKPOINT_STORE_FULL,
            f"a checkpoint could not be written to {self._storage.name}: {why}. Earlier "
            "checkpoints are untouched",
        )


def _first_cause(error: BaseException) -> BaseException:
    """What the rank raised, without what torch wraps around it."""
    failures = getattr(error, "failures", None) or {}
    causes = [item[0] for item in failures.values() if isinstance(item, tuple)] or [error]
    cause: BaseException = causes[0]
    return cause


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip()[:500]}"


def check(storage: Storage, location: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """See that a checkpoint is of a model with these parameters, without reading its tensors.

    Raises:
        WorkloadError: It is not, or cannot be read.
    """
    with _reading(location):
        there = reader_of(storage, location).read_metadata().state_dict_metadata
    for name, wanted in shapes.items():
        for key in _stored_names(name):
            found = there.get(key)
            size = tuple(getattr(found, "size", ()))
            if found is None or size != wanted:
                came = "nothing" if found is None else f"size {size}"
                raise WorkloadError(
                    CANNOT_BE_TRAINED,
                    f"the checkpoint is of another model: for {key} wanted size {wanted}, got "
                    f"{came}; keep the model's sizes, or train a new job",
                )


def _stored_names(name: str) -> Iterable[str]:
    return (
        _stored_name(name),
        *(_stored_name(f"{name}|{moment}") for moment in MOMENTS),
    )


def load(storage: Storage, location: str, model: PlannedModel, step: int) -> None:
    """Fill a model that has no memory yet with the state of a checkpoint.

    Raises:
        WorkloadError: It cannot be read. What the model raises while it takes memory is no fault of
            the checkpoint, and passes.
    """
    reader = _opened(storage, location)
    model.allocate()
    _read(reader, location, _stored(model.distributed()))
    model.equip()
    _read(reader, location, _stored(model.distributed_moments()))
    model.begin_at(step)


def weights(
    storage: Storage, location: str, sizes: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """The whole parameters in a checkpoint, on the CPU.

    Raises:
        WorkloadError: They cannot be read.
    """
    found = {name: torch.empty(size) for name, size in sizes.items()}
    _read(_opened(storage, location), location, _stored(found))
    return found


def _opened(storage: Storage, location: str) -> Any:
    """torch's reader, once it could read what lies where; its `load` hides why it could not."""
    with _reading(location):
        reader = reader_of(storage, location)
        reader.read_metadata()
    return reader


def _read(reader: Any, location: str, wanted: dict[str, Tensor]) -> None:
    with _reading(location), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.load(wanted, storage_reader=reader, no_dist=True)


@contextmanager
def _reading(location: str) -> Iterator[None]:
    """Tell whether bytes are wrong, the store failed, or memory ran out.

    Raises:
        WorkloadError: It was not memory; that error is raised as it is.
    """
    try:
        yield
    except (Exception, dcp.CheckpointException) as error:  # the latter is no Exception
        cause = _first_cause(error)
        if reason_of(cause)[0] == OUT_OF_MEMORY:
            raise cause from None
        what = f"the checkpoint {location} cannot be read: {_told(cause)}"
        if store_failure(cause) is not None:
            raise WorkloadError(CHECKPOINT_FAILED, f"{what}; {STORE_FAILED}") from error
        advice = "remove it to go on from the one before"
        raise WorkloadError(CHECKPOINT_CORRUPT, f"{what}; {advice}") from error
