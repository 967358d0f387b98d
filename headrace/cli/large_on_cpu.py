"""Says of large models that they would train on CPU slots, of which nobody checks the memory."""

from collections.abc import Collection, Iterable, Iterator

from headrace.api.generated import admin_pb2
from headrace.api.manifest import TrainingJob

_LARGE = 300_000_000
"""Parameters. The small preset of GPT-2, which people do try on a processor, has 124 million."""

_BYTES_A_PARAMETER = 16
"""Weight, gradient and the two moments of AdamW in fp32: what one replica holds."""

_CPU = "cpu"


def large(jobs: Iterable[TrainingJob]) -> list[TrainingJob]:
    """Those of a large built-in model; only of these it matters which nodes there are."""
    return [job for job in jobs if _parameters(job) >= _LARGE]


def notes(jobs: Collection[TrainingJob], nodes: Collection[admin_pb2.NodeStatus]) -> Iterator[str]:
    """A sentence for each job of which every accelerator that it may have is a processor.

    Args:
        jobs: Of large models.
        nodes: Of the cluster. Where there is none yet nothing is said.
    """
    every = [each for status in nodes for each in status.node.accelerators]
    for job in jobs:
        kind = job.spec.accelerators.type
        able = [each for each in every if not kind or each.type == kind]
        if able and all(each.type == _CPU for each in able):
            count = _parameters(job)
            yield (
                f"job/{job.metadata.name} would train {count / 1e9:.2g} billion parameters on CPU "
                f"slots, where memory is not checked: a replica takes some "
                f"{count * _BYTES_A_PARAMETER / 1e9:.0f} GB before its first sample; a smaller "
                "preset, or nodes with GPUs, would help"
            )


def _parameters(job: TrainingJob) -> int:
    model = job.spec.model
    shape = None if model is None else model.shape()
    return 0 if shape is None else shape.parameters
