"""The execution plan: how one training job is laid out over accelerators.

A plan never changes what is trained: precision, batch and data belong to the job. It only says who
computes and who keeps which part. The dimensions are those of the Rubick paper (MLSys 2025,
section 3), widened by ZeRO-1 and ZeRO-3, pipeline schedules, and their combinations.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import lru_cache
from typing import Any

SIZE_MAX = 65536
"""No size and no number of micro-batches is larger."""


class PipelineSchedule(StrEnum):
    """The order in which a pipeline's stages work on micro-batches.

    ``interleaved`` (Megatron-LM) and ``zb`` (zero bubble, the V-shaped form) give two stages to
    each rank, the others one.
    """

    GPIPE = "gpipe"
    ONE_F_ONE_B = "1f1b"
    INTERLEAVED = "interleaved"
    ZERO_BUBBLE = "zb"

    @property
    def stages_per_rank(self) -> int:
        """Stages that each pipeline rank holds."""
        return 2 if self in (PipelineSchedule.INTERLEAVED, PipelineSchedule.ZERO_BUBBLE) else 1


_SCHEDULES = "|".join(PipelineSchedule)
_NUMBER = "[1-9][0-9]{0,4}"
_SHORT_FORM = re.compile(
    rf"(?:dp(?P<dp>{_NUMBER})(?:-|$))?"
    rf"(?:tp(?P<tp>{_NUMBER})(?:-|$))?"
    rf"(?:pp(?P<pp>{_NUMBER})\.(?P<schedule>{_SCHEDULES})(?:-|$))?"
    r"(?:z(?P<zero>[1-3])(?:-|$))?"
    rf"(?:ga(?P<ga>{_NUMBER})(?:-|$))?"
    r"(?:(?P<gc>gc)(?:-|$))?"
    r"(?P<offload>offload)?"
)
_SEVERAL = (
    "([2-9]|[1-9][0-9]{1,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-6])"
)
_STAGES = rf"pp{_SEVERAL}\.({_SCHEDULES})"
SHORT_FORM = (
    rf"^(dp1|dp{_SEVERAL}(-tp{_SEVERAL})?(-{_STAGES})?|tp{_SEVERAL}(-{_STAGES})?|{_STAGES})"
    rf"(-z[1-3])?(-ga{_SEVERAL})?(-gc)?(-offload)?$"
)
"""What the canonical short form of a plan matches, and nothing else: for schemas that others check.
It needs nothing that regular expressions of other languages do not have.
"""
_EXAMPLES = "dp4, dp2-z3-gc, tp2-ga4 or pp2.1f1b-ga4"
_PART = re.compile(r"(dp|tp|pp|z|ga|gc|offload)(\d*)(?:\.(\w+))?")
_ORDER = ("dp", "tp", "pp", "z", "ga", "gc", "offload")
_SIZED = frozenset({"dp", "tp", "pp", "z", "ga"})


@dataclass(frozen=True, slots=True)
class ExecutionPlan:
    """One way to run a job.

    Ranks are numbered with tensor-parallel neighbours next to each other, then data-parallel ones,
    then pipeline stages: ``rank = (stage * data_parallel + replica) * tensor_parallel + slice``.

    Attributes:
        data_parallel: Replicas among which the batch is split.
        accumulation_steps: Micro-batches of a replica in one optimizer step; those of a pipeline
            are on their way at the same time.
        tensor_parallel: Ranks that share each layer's matrices.
        pipeline_parallel: Ranks among which the layers are divided.
        schedule: Order of work of a pipeline; None without one.
        zero_stage: What replicas share instead of each keeping all of it (ZeRO, SC 2020): 1
            optimizer states, 2 gradients too, 3 parameters too; 0 for nothing.
        activation_checkpointing: Whether a block's activations are computed again for the backward
            pass instead of kept.
        offload: Whether parameters, gradients and optimizer states live in host memory and the
            optimizer runs on the CPU (ZeRO-Offload).
    """

    data_parallel: int = 1
    accumulation_steps: int = 1
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    schedule: PipelineSchedule | None = None
    zero_stage: int = 0
    activation_checkpointing: bool = False
    offload: bool = False

    def __post_init__(self) -> None:
        for name in (
            "data_parallel",
            "accumulation_steps",
            "tensor_parallel",
            "pipeline_parallel",
        ):
            value = getattr(self, name)
            if not 1 <= value <= SIZE_MAX:
                raise ValueError(f"{name}: wanted 1 to {SIZE_MAX}, got {value}")
        if self.zero_stage not in range(4):
            raise ValueError(f"zero_stage: wanted 0, 1, 2 or 3, got {self.zero_stage}")
        if (self.schedule is None) != (self.pipeline_parallel == 1):
            raise ValueError(
                f"schedule: wanted one of {', '.join(PipelineSchedule)} for a pipeline of 2 ranks "
                f"or more and none without one, got {self.schedule} for pipeline_parallel="
                f"{self.pipeline_parallel}"
            )

    @property
    def ranks(self) -> int:
        """Accelerators that the plan occupies."""
        return self.data_parallel * self.tensor_parallel * self.pipeline_parallel

    @property
    def stages(self) -> int:
        """Parts into which the layers are divided."""
        per_rank = self.schedule.stages_per_rank if self.schedule is not None else 1
        return self.pipeline_parallel * per_rank

    def __str__(self) -> str:
        """The canonical short form, e.g. ``dp2-tp2-pp2.1f1b-z2-ga4-gc-offload``.

        Sizes of one are left out, but for the ``dp1`` of a plan for a single rank.
        """
        return "-".join(self._parts())

    def _parts(self) -> Iterable[str]:
        if self.data_parallel > 1 or self.ranks == 1:
            yield f"dp{self.data_parallel}"
        if self.tensor_parallel > 1:
            yield f"tp{self.tensor_parallel}"
        if self.pipeline_parallel > 1:
            yield f"pp{self.pipeline_parallel}.{self.schedule}"
        if self.zero_stage:
            yield f"z{self.zero_stage}"
        if self.accumulation_steps > 1:
            yield f"ga{self.accumulation_steps}"
        if self.activation_checkpointing:
            yield "gc"
        if self.offload:
            yield "offload"

    @classmethod
    def from_parts(cls, parts: Mapping[str, Any]) -> "ExecutionPlan":
        """Read a plan stored by the names of its attributes; what is missing has its default.

        Raises:
            ValueError: The values are not those of a plan.
        """
        known = {item.name: parts[item.name] for item in fields(cls) if item.name in parts}
        if known.get("schedule") is not None:
            known["schedule"] = PipelineSchedule(known["schedule"])
        return cls(**known)

    @classmethod
    def parse(cls, text: str) -> "ExecutionPlan":
        """Read the short form.

        Raises:
            ValueError: The text is not a plan in canonical form.
        """
        found = _SHORT_FORM.fullmatch(text)
        if found is None or not text:
            raise ValueError(f"wanted a plan such as {_EXAMPLES}, got {text!r}{_hint(text)}")
        try:
            plan = cls(
                data_parallel=int(found["dp"] or 1),
                accumulation_steps=int(found["ga"] or 1),
                tensor_parallel=int(found["tp"] or 1),
                pipeline_parallel=int(found["pp"] or 1),
                schedule=PipelineSchedule(found["schedule"]) if found["schedule"] else None,
                zero_stage=int(found["zero"] or 0),
                activation_checkpointing=found["gc"] is not None,
                offload=found["offload"] is not None,
            )
        except ValueError as error:
            raise ValueError(f"{text!r} is no plan: {error}") from error
        if str(plan) != text:
            raise ValueError(f"wanted the canonical form {plan}, got {text!r}")
        return plan


@lru_cache(maxsize=4096)  # a cycle asks for every job
def data_parallel_plan(
    ranks: int, global_batch_size: int, micro_batch_size_max: int
) -> ExecutionPlan:
    """Data parallel with as few micro-batches as their size allows: the plan of who names none.

    Args:
        ranks: Number of ranks.
        global_batch_size: Samples of a step; 0 where unknown.
        micro_batch_size_max: Most samples of a rank's micro-batch; 0 for any number.
    """
    each = global_batch_size // ranks
    if not each or not micro_batch_size_max:
        return ExecutionPlan(ranks)
    accumulation = -(-each // micro_batch_size_max)
    while each % accumulation:
        accumulation += 1
    return ExecutionPlan(ranks, accumulation)


def _hint(text: str) -> str:
    """What helps someone who wrote a plan almost right; empty if that is not to be seen."""
    parts: dict[str, str] = {}
    for part in re.split(r"[-_ ]+", text.lower()):
        found = _PART.fullmatch(part)
        if found is None:
            return f"; {part!r} is no part of a plan" if parts else ""
        name, size, schedule = found.groups()
        problem = _problem_of_part(part, name, size, schedule)
        if problem:
            return f"; {problem}"
        if name in parts:
            return f"; {name} stands twice in it"
        parts[name] = part
    right = "-".join(parts[name] for name in _ORDER if name in parts)
    return f"; it is written {right}" if _SHORT_FORM.fullmatch(right) else ""


def _problem_of_part(part: str, name: str, size: str, schedule: str | None) -> str:
    """What is wrong with a part of which the name is right."""
    if bool(size) != (name in _SIZED):
        return f"{name} needs a number, such as {name}2" if not size else f"{name} has no number"
    if name == "pp" and schedule not in tuple(PipelineSchedule):
        *others, last = PipelineSchedule
        several = f"{', '.join(others)} or {last}"
        return f"pp needs a schedule ({several}), such as pp{size}.{PipelineSchedule.ONE_F_ONE_B}"
    if name != "pp" and schedule is not None:
        return f"only pp has a schedule, not {part}"
    if name == "z" and size not in ("1", "2", "3"):
        return f"ZeRO is z1, z2 or z3, not {part}"
    return ""
