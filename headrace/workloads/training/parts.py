"""What the training loop of a rank works with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from headrace.workloads.checkpoints import JobCheckpoints
from headrace.workloads.control import Chronicle, ControlFolder, StopSignal
from headrace.workloads.rendezvous import Rendezvous
from headrace.workloads.training.samples import Samples
from headrace.workloads.training.saving import Saver
from headrace.workloads.training.spec import TrainingSpec
from headrace.workloads.training.world import World
from headrace.workloads.watch import Watch


@dataclass(frozen=True, slots=True)
class Parts:
    """Plugged together by ``run``.

    Attributes:
        attempt: Attempt that holds the claim on the checkpoints.
        sequence_length: Positions of a sample; 0 where only a script of the user's own knows.
        facts: What must be the same on whoever trains with this rank.
        try_together: What the task has to see of ranks that have just met.
    """

    spec: TrainingSpec
    samples: Samples
    sequence_length: int
    saver: Saver
    checkpoints: JobCheckpoints
    attempt: int
    facts: dict[str, Any]
    try_together: Callable[[World], None]
    rendezvous: Rendezvous
    control: ControlFolder
    stop: StopSignal
    chronicle: Chronicle
    watch: Watch
