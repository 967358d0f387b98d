"""Weights from a folder in Hugging Face's layout: ``config.json`` and ``*.safetensors``."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from headrace.api.models import ModelShape
from headrace.workloads.refusal import CANNOT_BE_TRAINED, START_REFUSED, WorkloadError
from headrace.workloads.training.families.build import part_of
from headrace.workloads.training.families.stored_names import Origin, is_left_out, origins

_NAMED_MAX = 5
_CONFIG = "config.json"
_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


def shape_in(folder: Path) -> ModelShape:
    """The shape that the folder's ``config.json`` describes.

    Raises:
        WorkloadError: There is none, or our modules do not compute that model.
    """
    if not folder.is_dir():
        raise _missing(f"wanted a folder of weights that is on every node; there is no {folder}")
    try:
        return ModelShape.from_hugging_face(json.loads((folder / _CONFIG).read_text("utf-8")))
    except FileNotFoundError as error:
        raise _missing(
            f"wanted {_CONFIG} and *.safetensors in {folder}, got no {_CONFIG}"
        ) from error
    except ValueError as error:
        raise _refused(f"{folder / _CONFIG}: {error}") from error


class StoredWeights:
    """The tensors of a model by our names, each read when it is asked for.

    Attributes:
        shapes: The whole model's parameters.
    """

    def __init__(self, folder: Path, shape: ModelShape) -> None:
        """Find every tensor, and read none.

        Raises:
            WorkloadError: The folder holds another model, or not all of this one.
        """
        self._folder = folder
        _check_same_model(folder, shape)
        with torch.device("meta"):
            model = part_of(shape, 0, shape.layers)
        self.shapes: Mapping[str, tuple[int, ...]] = {
            name: tuple(parameter.shape) for name, parameter in model.named_parameters()
        }
        self._files = self._opened()
        self._origins = self._found(shape)
        self._check_shapes()

    def read(self, name: str, box: Sequence[slice] | None = None) -> Tensor:
        """A tensor in the type in which it is stored.

        Args:
            name: Our name of it.
            box: Start and end in each dimension of our tensor; None for all of it.
        """
        origin, whole = self._origins[name], self.shapes[name]
        cut = [
            slice(*part.indices(length)[:2])
            for part, length in zip(box or [slice(None)] * len(whole), whole, strict=True)
        ]
        if origin.parts > 1:
            begin = origin.part * whole[0]
            cut[0] = slice(begin + cut[0].start, begin + cut[0].stop)
        if origin.is_transposed:
            cut.reverse()
        found: Tensor = self._files[origin.stored].get_slice(origin.stored)[tuple(cut)]
        return found.T if origin.is_transposed else found

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor by our name, one after the other."""
        for name in self.shapes:
            yield name, self.read(name)

    def _opened(self) -> dict[str, Any]:
        """The file of each stored tensor."""
        found = {}
        for path in _files_in(self._folder):
            try:
                file: Any = safe_open(path, framework="pt")
            except (SafetensorError, OSError) as error:
                raise _missing(f"{path} cannot be read: {error}") from error
            for name in file.keys():  # noqa: SIM118 - no mapping
                found[name] = file
        return found

    def _found(self, shape: ModelShape) -> dict[str, Origin]:
        chosen, missing = {}, []
        for name in self.shapes:
            places = list(origins(shape.family, name))
            there = [place for place in places if place.stored in self._files]
            if there:
                chosen[name] = there[0]
            else:
                missing.append(places[0].stored)
        used = {origin.stored for origin in chosen.values()}
        unknown = [
            stored
            for stored in sorted(self._files)
            if stored not in used and not is_left_out(shape.family, stored)
        ]
        if missing or unknown:
            told = [f"without {_named(missing)}"] if missing else []
            told += [f"with {_named(unknown)} that it does not have"] if unknown else []
            raise _refused(
                f"wanted the tensors of a {shape.family} of {shape.layers} layers in "
                f"{self._folder}, got them {' and '.join(told)}"
            )
        return chosen

    def _check_shapes(self) -> None:
        wrong = []
        for name, origin in self._origins.items():
            wanted = list(self.shapes[name])
            wanted[0] *= origin.parts
            if origin.is_transposed:
                wanted.reverse()
            stored = self._files[origin.stored].get_slice(origin.stored).get_shape()
            if list(stored) != wanted:
                wrong.append(f"{origin.stored} {wanted} but {list(stored)}")
        if wrong:
            raise _refused(f"{self._folder}: wanted {_named(wrong)}")


def _check_same_model(folder: Path, shape: ModelShape) -> None:
    """Much that changes the computation leaves no trace in the tensors' shapes."""
    theirs = shape_in(folder)
    different = [
        f"{field.name} {getattr(shape, field.name)} but {getattr(theirs, field.name)}"
        for field in fields(ModelShape)
        if getattr(shape, field.name) != getattr(theirs, field.name)
        # Where positions have a table, its shape tells.
        and field.name != "sequence_length"
    ]
    if different:
        raise _refused(f"{folder / _CONFIG}: wanted {_named(different)}; it is another model")


def _files_in(folder: Path) -> list[Path]:
    index = folder / _INDEX
    if index.exists():
        names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        gone = [name for name in names if not (folder / name).exists()]
        if gone:
            raise _missing(f"{index} names {_named(gone)}, which {folder} does not have")
        return [folder / name for name in names]
    if (folder / _SINGLE).exists():
        return [folder / _SINGLE]
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        raise _missing(
            f"wanted *.safetensors in {folder}, got none; store other formats anew with the "
            "transformers library's save_pretrained"
        )
    return found


def _named(what: Sequence[str]) -> str:
    more = len(what) - _NAMED_MAX
    return ", ".join(what[:_NAMED_MAX]) + (f" and {more} more" if more > 0 else "")


def _refused(message: str) -> WorkloadError:
    return WorkloadError(CANNOT_BE_TRAINED, message)


def _missing(message: str) -> WorkloadError:
    """On this node."""
    return WorkloadError(START_REFUSED, message)
