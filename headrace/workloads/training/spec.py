"""How it is trained, read from a canonical manifest. Nothing here depends on the number of ranks.

The manifest was validated by the schema in ``headrace.api.manifest`` before it came here, so this
reads plain JSON: loading the schema would cost every rank half a second of its start.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.workloads.refusal import CANNOT_BE_TRAINED, WorkloadError

PRECISIONS = ("fp32", "bf16")
STALL_SECONDS = 120


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
        micro_batch_size_max: Most samples a rank holds at once; 0 for no limit.
        every_seconds: Longest time between checkpoints; 0 for no such limit.
        stall_seconds: A step is not taken for hanging before it has lasted this long.
    """

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
    stall_seconds: int = STALL_SECONDS

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> "TrainingSpec":
        """Read a manifest in canonical form.

        Raises:
            WorkloadError: A part is missing, or asks for what this release cannot do.
        """
        try:
            spec = manifest["spec"]
            training, checkpoint = spec["training"], spec["checkpoint"]
            start = checkpoint.get("startFrom")
            found = cls(
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
                stall_seconds=int((spec.get("retries") or {}).get("stallSeconds") or STALL_SECONDS),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise WorkloadError(
                CANNOT_BE_TRAINED,
                f"the manifest says not how to train: {type(error).__name__}: {error}",
            ) from error
        if found.precision not in PRECISIONS:
            raise WorkloadError(
                CANNOT_BE_TRAINED,
                f"wanted precision {' or '.join(PRECISIONS)}, got {found.precision!r}: fp16 needs "
                "loss scaling, which is not there yet",
            )
        return found


def _start_from(found: Mapping[str, Any]) -> StartFrom:
    step = found.get("step")
    return StartFrom(
        uid=str(found["uid"]),
        step=int(step) if step is not None else None,
        store=str(found.get("store") or ""),
    )
