"""A data set of the user's own: samples by index."""

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import default_collate

from headrace.workloads.refusal import CANNOT_BE_TRAINED, RANK_FAILED, WorkloadError
from headrace.workloads.training.batches import Batch, described, leaves
from headrace.workloads.training.own.blame import is_theirs, raised

_LOOKED_AT = 8
"""Samples of which a data set's fingerprint is made."""

_NAMED = 8
"""Samples that a sentence names at most."""


class DataSet(Protocol):
    """What torch calls a map-style data set; lists will do."""

    def __len__(self) -> int:
        """How many samples there are."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """A sample, made of tensors or numbers; always the same one for an index."""
        ...


class OwnSamples:
    """The samples of a data set, put together as torch's loader does."""

    def __init__(self, data: DataSet, *, at_least: int) -> None:
        """Look at some samples.

        Args:
            data: The data set.
            at_least: How many samples are wanted.

        Raises:
            WorkloadError: It is too short, or its samples are no tensors or not always the same.
        """
        self.count = _length(data)
        if self.count < at_least:
            raise _refused(
                f"wanted {at_least} samples or more, which is one global batch, got {self.count}; "
                "use more data or a smaller global batch"
            )
        self._data = data
        chosen = torch.linspace(0, self.count - 1, min(_LOOKED_AT, self.count)).long()
        self.fingerprint = self._fingerprint(chosen)
        if self._fingerprint(chosen) != self.fingerprint:
            raise _refused(
                "wanted the same sample whenever its index comes, or no two plans would train "
                "alike; got another one the second time. Draw what is random in a sample from a "
                "generator that is seeded by its index"
            )

    def batch(self, indices: Tensor) -> tuple[Batch, Batch]:
        """The samples; targets, if any, are among them, so that what is given as such is empty."""
        return self.of(indices.tolist()), ()

    def of(self, indices: Sequence[int]) -> Batch:
        """These samples, in this order."""
        try:
            # torch's own name for fetching many at once.
            many = getattr(self._data, "__getitems__", None)
            found = many(indices) if many else [self._sample(index) for index in indices]
            return default_collate(list(found))
        except Exception as error:
            if not is_theirs(error):
                raise
            # They come in a random order, so first and last would tell nothing.
            which = ", ".join(map(str, indices[:_NAMED]))
            more = f" and {len(indices) - _NAMED} more" if len(indices) > _NAMED else ""
            raise WorkloadError(
                RANK_FAILED,
                f"data: wanted samples {which}{more} of {self.count}, made of tensors or numbers "
                f"of one size, got {raised(error)}",
            ) from error

    def _sample(self, index: int) -> Any:
        try:
            return self._data[index]
        except Exception as error:
            if not is_theirs(error):
                raise
            raise WorkloadError(
                RANK_FAILED, f"data: wanted sample {index} of {self.count}, got {raised(error)}"
            ) from error

    def _fingerprint(self, indices: Tensor) -> str:
        found = hashlib.sha256(str(self.count).encode())
        for index in indices.tolist():
            batch = self.of([index])
            for leaf in leaves(batch):
                if not isinstance(leaf, Tensor):
                    raise _refused(
                        f"wanted samples made of tensors or numbers, got {described(batch)}"
                    )
                found.update(leaf.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return found.hexdigest()[:16]


def _length(data: Any) -> int:
    try:
        length = len(data)
    except (TypeError, NotImplementedError):
        length = -1
    if length < 0 or not hasattr(data, "__getitem__"):
        raise _refused(
            "wanted a data set with a length and samples by index, as torch.utils.data.Dataset, "
            f"got {type(data).__name__}"
        )
    return length


def _refused(message: str) -> WorkloadError:
    return WorkloadError(CANNOT_BE_TRAINED, f"data: {message}")
