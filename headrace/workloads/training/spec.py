"""What is trained, read from a canonical manifest. Nothing here depends on the number of ranks.

The manifest was validated by the schema in ``headrace.api.manifest`` before it came here, so this
reads plain JSON: loading the schema would cost every rank half a second of its start.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.api.model_choice import chosen_shape
from headrace.api.models import ModelShape
from headrace.workloads.refusal import START_REFUSED, WorkloadError

PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True, slots=True)
class StartFrom:
    """Another job's checkpoint to begin with.

    Attributes:
        uid: That job.
        step: Its step; None for the newest.
        store: Its store; empty for the job's own store.
    """

    uid: str
    step: int | None = None
    store: str = ""


@dataclass(frozen=True, slots=True)
class TrainingSpec:
    """The parts of a manifest that a trainer needs; names and units are the manifest's.

    Attributes:
        model_name: Family.
        weights: Folder in Hugging Face's layout to begin with; then preset and config are empty.
        sequence_length: Tokens of a sample; 0 leaves it to the preset.
        micro_batch_size_max: Most samples a rank holds at once; 0 for no limit.
        every_seconds: Longest time between checkpoints; 0 for no such limit.
    """

    model_name: str
    model_preset: str
    model_config: Mapping[str, int]
    weights: str
    data_source: str
    sequence_length: int
    global_batch_size: int
    micro_batch_size_max: int
    steps: int
    precision: str
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    seed: int
    store: str
    every_steps: int
    every_seconds: int
    keep: int
    start_from: StartFrom | None

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> "TrainingSpec":
        """Read a manifest in canonical form.

        Raises:
            WorkloadError: A part is missing, or asks for what this release cannot do.
        """
        try:
            spec = manifest["spec"]
            model, training, checkpoint = spec["model"], spec["training"], spec["checkpoint"]
            data = spec["data"]
            start = checkpoint.get("startFrom")
            found = cls(
                model_name=str(model["name"]),
                model_preset=str(model.get("preset") or "tiny"),
                weights=str(model.get("weights") or ""),
                model_config={
                    key: int(value)
                    for key, value in (model.get("config") or {}).items()
                    if value is not None
                },
                data_source=str(data["source"]),
                sequence_length=int(data.get("sequenceLength") or 0),
                global_batch_size=int(training["globalBatchSize"]),
                micro_batch_size_max=int(training.get("microBatchSizeMax") or 0),
                steps=int(training["steps"]),
                precision=str(training.get("precision", "fp32")),
                learning_rate=float(training.get("learningRate", 3e-4)),
                warmup_steps=int(training.get("warmupSteps", 0)),
                weight_decay=float(training.get("weightDecay", 0.01)),
                seed=int(training.get("seed", 0)),
                store=str(checkpoint["store"]),
                every_steps=int(checkpoint.get("everySteps", 50)),
                every_seconds=int(checkpoint.get("everySeconds") or 0),
                keep=int(checkpoint.get("keep", 3)),
                start_from=_start_from(start) if start else None,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise WorkloadError(
                START_REFUSED,
                f"the manifest is not one of a built-in model: {type(error).__name__}: {error}",
            ) from error
        if found.precision not in PRECISIONS:
            raise WorkloadError(
                START_REFUSED,
                f"wanted precision {' or '.join(PRECISIONS)}, got {found.precision!r}: fp16 needs "
                "loss scaling, which is not there yet",
            )
        return found

    def shape(self) -> ModelShape:
        """The model's sizes.

        Raises:
            WorkloadError: There is no such model, or its folder cannot be read.
        """
        if self.weights:
            from headrace.workloads.training.families.weights import shape_in

            found = shape_in(Path(self.weights).expanduser())
        else:
            try:
                return chosen_shape(
                    self.model_name, self.model_preset, self.model_config, self.sequence_length
                )
            except ValueError as error:
                raise WorkloadError(START_REFUSED, f"model: {error}") from error
        if found.family != self.model_name:
            raise WorkloadError(
                START_REFUSED,
                f"model: wanted weights of {self.model_name}, got those of {found.family} in "
                f"{self.weights}",
            )
        return found

    def fixed(self) -> dict[str, Any]:
        """What must stay the same while a job trains, as it is written into checkpoints."""
        return {
            "model": self.model_name,
            "preset": self.model_preset,
            "config": dict(self.model_config),
            "weights": self.weights,
            "source": self.data_source,
            "sequenceLength": self.sequence_length,
            "globalBatchSize": self.global_batch_size,
            "seed": self.seed,
        }


def _start_from(found: Mapping[str, Any]) -> StartFrom:
    step = found.get("step")
    return StartFrom(
        uid=str(found["uid"]),
        step=int(step) if step is not None else None,
        store=str(found.get("store") or ""),
    )
