"""A built-in model with built-in data, as a manifest names them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from headrace.api.model_choice import chosen_shape
from headrace.api.models import Family, ModelShape, resized
from headrace.workloads.refusal import CANNOT_BE_TRAINED, WorkloadError
from headrace.workloads.training.families.build import FamilyBlueprint
from headrace.workloads.training.families.weights import StoredWeights, shape_in
from headrace.workloads.training.planned import PlannedModel
from headrace.workloads.training.samples import Digits, Samples, open_samples
from headrace.workloads.training.switching import fill_from_weights, fill_initial
from headrace.workloads.training.world import World


@dataclass(frozen=True, slots=True)
class BuiltInTask:
    """The parts of a manifest that say what is trained.

    Attributes:
        name: Family.
        preset: Which of its presets.
        config: Sizes that replace the preset's, by the manifest's names.
        weights: Folder in Hugging Face's layout to begin with; then preset and config are empty.
        source: Data.
        sequence_length: Tokens of a sample; 0 leaves it to the preset.
        seed: The job's.
    """

    name: str
    preset: str
    config: Mapping[str, int]
    weights: str
    source: str
    sequence_length: int
    seed: int

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> "BuiltInTask":
        """Read a manifest in canonical form.

        Raises:
            WorkloadError: It names no built-in model.
        """
        try:
            spec = manifest["spec"]
            model, data, training = spec["model"], spec["data"], spec["training"]
            config = model.get("config") or {}
            return cls(
                name=str(model["name"]),
                preset=str(model.get("preset") or "tiny"),
                config={key: int(size) for key, size in config.items() if size is not None},
                weights=str(model.get("weights") or ""),
                source=str(data["source"]),
                sequence_length=int(data.get("sequenceLength") or 0),
                seed=int(training.get("seed", 0)),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise WorkloadError(
                CANNOT_BE_TRAINED,
                f"the manifest is not one of a built-in model: {type(error).__name__}: {error}",
            ) from error

    def shape(self) -> ModelShape:
        """The model's sizes.

        Raises:
            WorkloadError: There is no such model, or its folder cannot be read.
        """
        if not self.weights:
            try:
                return chosen_shape(self.name, self.preset, self.config, self.sequence_length)
            except ValueError as error:
                raise WorkloadError(CANNOT_BE_TRAINED, f"model: {error}") from error
        found = shape_in(Path(self.weights).expanduser())
        if found.family != self.name:
            raise WorkloadError(
                CANNOT_BE_TRAINED,
                f"model: wanted weights of {self.name}, got those of {found.family} in "
                f"{self.weights}",
            )
        return found

    def blueprint(self) -> FamilyBlueprint:
        return FamilyBlueprint(self.shape())

    def samples(self) -> Samples:
        return open_samples(self.source, self._read_as(self.shape()), self.seed)

    def positions(self) -> int:
        return self._read_as(self.shape()).sequence_length

    def _read_as(self, shape: ModelShape) -> ModelShape:
        """The shape as the data shall fit it: stored weights may know longer samples."""
        wanted = self.sequence_length or shape.sequence_length
        if wanted > shape.sequence_length:
            raise WorkloadError(
                CANNOT_BE_TRAINED,
                f"data.sequenceLength: wanted at most {shape.sequence_length} tokens, which the "
                f"model in {self.weights} knows, got {wanted}",
            )
        return shape if shape.family is Family.VIT else resized(shape, sequence_length=wanted)

    def fingerprint(self) -> str:
        return ""  # seed and name say all of it

    def beginning(self) -> Callable[[PlannedModel], None]:
        if not self.weights:
            return lambda model: fill_initial(model, self.seed)
        stored = StoredWeights(Path(self.weights).expanduser(), self.shape())
        return lambda model: fill_from_weights(model, stored)

    def fixed(self) -> dict[str, Any]:
        return {
            "model": self.name,
            "preset": self.preset,
            "config": dict(self.config),
            "weights": self.weights,
            "source": self.source,
            "sequenceLength": self.sequence_length,
        }

    def try_together(self, world: World) -> None:
        """Tests have seen it."""

    def said_at_end(self, model: PlannedModel, samples: Samples) -> str:
        if not isinstance(samples, Digits):
            return ""
        return f"{_accuracy(model, samples):.1%} of the held-out digits are read right"


@torch.no_grad()
def _accuracy(model: PlannedModel, samples: Digits) -> float:
    images, labels = (part.to(model.world.device) for part in samples.held_out)
    right: torch.Tensor = model.outputs(images).argmax(dim=1) == labels
    return float(right.float().mean())
