"""The execution plan: how one training job is laid out over accelerators.

A plan never changes what is trained (batch, precision and data belong to the job); it only says
how the work is split. This release knows data parallelism with gradient accumulation.
"""

import re
from dataclasses import dataclass

_SHORT_FORM = re.compile(r"dp([1-9][0-9]*)(?:-ga([1-9][0-9]*))?")


@dataclass(frozen=True, slots=True)
class ExecutionPlan:
    """One way to run a job.

    Attributes:
        data_parallel: Number of replicas; each rank holds the whole model.
        accumulation_steps: Micro-batches whose gradients a rank adds up before an update.
    """

    data_parallel: int = 1
    accumulation_steps: int = 1

    def __post_init__(self) -> None:
        if self.data_parallel < 1 or self.accumulation_steps < 1:
            raise ValueError(
                "a plan needs at least one replica and one accumulation step, got "
                f"data_parallel={self.data_parallel}, accumulation_steps={self.accumulation_steps}"
            )

    @property
    def ranks(self) -> int:
        """Accelerators that the plan occupies."""
        return self.data_parallel

    def __str__(self) -> str:
        """The canonical short form, e.g. ``dp4-ga2``; ``ga1`` is left out."""
        accumulation = f"-ga{self.accumulation_steps}" if self.accumulation_steps > 1 else ""
        return f"dp{self.data_parallel}{accumulation}"

    @classmethod
    def parse(cls, text: str) -> "ExecutionPlan":
        """Read the short form.

        Raises:
            ValueError: The text is not a plan in canonical form.
        """
        found = _SHORT_FORM.fullmatch(text)
        if found is None or found[2] == "1":
            raise ValueError(f"wanted a plan such as dp4 or dp2-ga4, got {text!r}")
        return cls(int(found[1]), int(found[2] or 1))
