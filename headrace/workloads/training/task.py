"""What is trained, whoever wrote it: one of our models, or a script of the user's own."""

from collections.abc import Callable
from typing import Any, Protocol

from headrace.workloads.training.blueprint import Blueprint
from headrace.workloads.training.planned import PlannedModel
from headrace.workloads.training.samples import Samples
from headrace.workloads.training.world import World


class Task(Protocol):
    """A model and its data.

    All but `try_together` and `said_at_end` is asked before ranks are connected and before a GPU is
    touched; whatever is wrong is told there as a `WorkloadError`.
    """

    def blueprint(self) -> Blueprint:
        """The model."""
        ...

    def samples(self) -> Samples:
        """The data."""
        ...

    def positions(self) -> int:
        """Positions of a sample; 0 where nobody can tell."""
        ...

    def fingerprint(self) -> str:
        """Of what is in memory before any data is read; must be the same on all ranks."""
        ...

    def beginning(self) -> Callable[[PlannedModel], None]:
        """What fills the model before its first step."""
        ...

    def fixed(self) -> dict[str, Any]:
        """What must stay the same while a job trains, as it is written into checkpoints."""
        ...

    def try_together(self, world: World) -> None:
        """See what only connected ranks can see; all of them call it, before they train."""
        ...

    def said_at_end(self, model: PlannedModel, samples: Samples) -> str:
        """What is worth telling of a model that is done; may be nothing."""
        ...
