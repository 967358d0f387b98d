"""How a script trains without Headrace. No torch in here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.workloads.checkpoints import is_folder_name
from headrace.workloads.refusal import CANNOT_BE_TRAINED, WorkloadError
from headrace.workloads.training.spec import TrainingSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How to train without Headrace; under it, the job's manifest says all of this.

    Attributes:
        global_batch_size: Samples of a step, over all ranks together.
        steps: Optimizer steps.
        checkpoints: Folder or fsspec URL of the checkpoints. What lies there is gone on from.
        plan: Execution plan in short form, such as ``dp2-z3``; data parallel if left out.
        micro_batch_size_max: Most samples that a rank holds at once; None for no limit.
        precision: ``fp32``, or ``bf16`` for computing; weights are float32.
        learning_rate: The highest; it rises in a line, then falls by a cosine to a tenth.
        warmup_steps: Steps in which it rises.
        weight_decay: AdamW's, for matrices.
        seed: Of initial weights and of the order of the data.
        checkpoint_every_steps: Steps between two checkpoints.
        checkpoints_kept: The newest so many.
    """

    global_batch_size: int
    steps: int
    checkpoints: str
    plan: str = ""
    micro_batch_size_max: int | None = None
    precision: str = "fp32"
    learning_rate: float = 3e-4
    warmup_steps: int = 0
    weight_decay: float = 0.01
    seed: int = 0
    checkpoint_every_steps: int = 50
    checkpoints_kept: int = 3

    def checked(self) -> tuple[TrainingSpec, str]:
        """As the trainer wants it, and the name of the checkpoints' folder in its parent.

        Raises:
            WorkloadError: A value is not as it must be.
        """
        from headrace.api.manifest import TrainingJob, parse

        store, name = self._folder()
        document = self._manifest(store)
        parsed = parse(document)
        if not isinstance(parsed, TrainingJob):
            told = "; ".join(str(problem) for problem in parsed)
            raise WorkloadError(CANNOT_BE_TRAINED, f"settings, as in a manifest: {told}")
        return TrainingSpec.from_manifest(document), name

    def _folder(self) -> tuple[str, str]:
        """Where the checkpoints' folder lies, and its name."""
        given = str(self.checkpoints)
        store, slash, name = given.rstrip("/").rpartition("/")
        if "://" in given and "://" not in store:
            raise _refused(f"wanted a folder in a store, such as {given.rstrip('/')}/run", given)
        if not is_folder_name(name):
            raise _refused(
                "wanted a folder with a name of letters, digits, -, _ and ., beginning and ending "
                "with a letter or digit",
                given,
            )
        if "://" not in given and Path(given).expanduser().is_file():
            raise _refused("wanted a folder, which is not a file", given)
        return store or slash or ".", name

    def _manifest(self, store: str) -> dict[str, Any]:
        training = {
            "globalBatchSize": self.global_batch_size,
            "steps": self.steps,
            "precision": self.precision,
            "learningRate": self.learning_rate,
            "warmupSteps": self.warmup_steps,
            "weightDecay": self.weight_decay,
            "seed": self.seed,
        }
        if self.micro_batch_size_max is not None:
            training["microBatchSizeMax"] = self.micro_batch_size_max
        return {
            "apiVersion": "headrace.dev/v1alpha1",
            "kind": "TrainingJob",
            "metadata": {"name": "script"},
            "spec": {
                "script": {"file": "/script"},
                "training": training,
                "checkpoint": {
                    "store": store,
                    "everySteps": self.checkpoint_every_steps,
                    "keep": self.checkpoints_kept,
                },
            },
        }


def _refused(wanted: str, came: str) -> WorkloadError:
    return WorkloadError(CANNOT_BE_TRAINED, f"settings.checkpoints: {wanted}, got {came!r}")
