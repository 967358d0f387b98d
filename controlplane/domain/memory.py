"""What a rank of a built-in model needs of memory under a plan, by the model in `headrace.api`.

It depends on model, plan and batch alone, so it is computed once for all jobs that have them.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from controlplane.domain.node import Accelerator
from headrace.api.feasible_plans import Hardware, Infeasible, infeasible
from headrace.api.memory import GIB, estimated_peak_bytes
from headrace.api.model_choice import chosen_shape
from headrace.api.models import ModelShape
from headrace.api.plan import ExecutionPlan


@dataclass(frozen=True, slots=True)
class Memory:
    """What one rank needs, or one accelerator has.

    Attributes:
        accelerator_bytes: Memory of the accelerator.
        host_bytes: Memory of its node: a need of the rank, or the accelerator's share.
    """

    accelerator_bytes: int
    host_bytes: int

    def within(self, there: "Memory") -> bool:
        """Whether no part of it is more than what is there."""
        return (
            self.accelerator_bytes <= there.accelerator_bytes
            and self.host_bytes <= there.host_bytes
        )

    def fits(self, there: "Memory | None") -> bool:
        """Whether a rank that needs this has room there, as far as that is known."""
        return there is None or self.within(there)


_ENOUGH = 2**63
"""Bytes that stand for an unknown amount of host memory."""


def memory_of(accelerator: Accelerator) -> Memory | None:
    """What it tells of its memory; None if nothing, as a CPU slot: what is estimated is how a GPU's
    memory and that of its host are used.

    Of the host's in whole GiB: nodes that are alike differ by what their firmware takes.
    """
    if not accelerator.memory_bytes:
        return None
    host = accelerator.host_memory_bytes
    return Memory(accelerator.memory_bytes, host - host % GIB if host else _ENOUGH)


def memories(accelerators: Iterable[Accelerator]) -> set[Memory | None]:
    """What they tell, those that are alike once."""
    told = {(each.memory_bytes, each.host_memory_bytes): each for each in accelerators}
    return set(map(memory_of, told.values()))


def least(told: Iterable[Memory | None]) -> Memory | None:
    """The least of either kind; None if nothing is told."""
    known = [each for each in told if each is not None]
    if not known:
        return None
    return Memory(
        min(each.accelerator_bytes for each in known), min(each.host_bytes for each in known)
    )


def model_text(
    family: str, preset: str, config: Mapping[str, int], sequence_length: int, precision: str
) -> str:
    """A model as a job keeps it. Text, because that is quickly compared and looked up: thousands
    of jobs are, in every cycle.

    Args:
        family: As in the manifest.
        preset: Which of its presets.
        config: Sizes of its own, by the manifest's names.
        sequence_length: Tokens of a sample; 0 for the preset's.
        precision: Of the computation.
    """
    return json.dumps([family, preset, config, sequence_length, precision], sort_keys=True)


@lru_cache(maxsize=1024)
def _read(model: str) -> tuple[ModelShape, str]:
    family, preset, config, sequence_length, precision = json.loads(model)
    return chosen_shape(family, preset, config, sequence_length), precision


@lru_cache(maxsize=2**16)
def estimated(model: str, plan: ExecutionPlan, batch: int) -> Memory | None:
    """What the fullest rank needs.

    Args:
        model: As `model_text` writes it.
        plan: The plan.
        batch: Samples of a step.

    Returns:
        None if that cannot be said: the model is one of another release.
    """
    try:
        shape, precision = _read(model)
        peak = estimated_peak_bytes(shape, plan, batch, precision=precision)
    except ValueError:
        return None
    return Memory(peak.accelerator_bytes, peak.host_bytes)


@lru_cache(maxsize=1024)
def misfit(model: str, plan: ExecutionPlan, batch: int, there: Memory) -> Infeasible | None:
    """Why such accelerators have no room for the plan, for people; None if they have.

    Args:
        model: As `model_text` writes it.
        plan: The plan.
        batch: Samples of a step.
        there: What each of the accelerators has.
    """
    try:
        shape, precision = _read(model)
        return infeasible(
            shape,
            plan,
            global_batch_size=batch,
            precision=precision,
            # All ranks on one node, which has a share for each.
            hardware=Hardware(there.accelerator_bytes, there.host_bytes * plan.ranks),
        )
    except ValueError:
        return None
