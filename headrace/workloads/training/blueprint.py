"""What the trainer asks of a model that nobody holds yet, whoever wrote it."""

from typing import Protocol

import torch
from torch import Tensor

from headrace.api.plan import ExecutionPlan
from headrace.workloads.training.families.part import Part


class Blueprint(Protocol):
    """A model that can be laid out under a plan, and anew under another one."""

    @property
    def layers(self) -> int:
        """How many layers the stages of a pipeline may divide."""
        ...

    @property
    def tied(self) -> bool:
        """Whether first and last stage share a table."""
        ...

    def part(self, first: int, last: int) -> Part:
        """The layers ``first`` to ``last`` (not included), as shapes without memory."""
        ...

    def initial(
        self, name: str, shape: tuple[int, ...], *, seed: int, device: torch.device
    ) -> Tensor:
        """The whole initial value of a parameter, the same on every rank.

        Args:
            name: Its name in the whole model.
            shape: Its shape in the whole model.
            seed: The job's.
            device: Where it is wanted.
        """
        ...

    def problem_with(self, plan: ExecutionPlan, global_batch_size: int) -> str:
        """Why the plan cannot train the model; empty if it can."""
        ...


def sizes_of(blueprint: Blueprint) -> dict[str, tuple[int, ...]]:
    """The shapes of the whole model's parameters by name."""
    with torch.device("meta"):
        whole = blueprint.part(0, blueprint.layers)
    return {name: tuple(parameter.shape) for name, parameter in whole.named_parameters()}
