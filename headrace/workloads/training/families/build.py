"""The built-in models, by their shape."""

from dataclasses import dataclass

import torch
from torch import Tensor

from headrace.api.feasible_plans import infeasible
from headrace.api.models import SPLITTABLE, Family, ModelShape
from headrace.api.plan import ExecutionPlan
from headrace.workloads.training.families.part import Part
from headrace.workloads.training.initial import initial


@dataclass(frozen=True, slots=True)
class FamilyBlueprint:
    """The blueprint of a model of our families."""

    shape: ModelShape

    @property
    def layers(self) -> int:
        return self.shape.layers

    @property
    def tied(self) -> bool:
        return self.shape.tied

    def part(self, first: int, last: int) -> Part:
        return part_of(self.shape, first, last)

    def initial(
        self, name: str, shape: tuple[int, ...], *, seed: int, device: torch.device
    ) -> Tensor:
        return initial(
            name,
            shape,
            seed=seed,
            layers=self.layers,
            head_width=self.shape.width_of_head,
            device=device,
        )

    def problem_with(self, plan: ExecutionPlan, global_batch_size: int) -> str:
        found = infeasible(self.shape, plan, global_batch_size=global_batch_size)
        return found.message if found is not None else ""


def part_of(shape: ModelShape, first: int, last: int) -> Part:
    """The layers ``first`` to ``last`` (not included), without initial weights.

    Only the family that is asked for is imported: the transformers library takes seconds.

    Raises:
        ValueError: These are no layers of this model, or its family stays whole.
    """
    if not 0 <= first < last <= shape.layers:
        raise ValueError(f"wanted layers of {shape.layers}, got {first} to {last}")
    if shape.family not in SPLITTABLE and (first, last) != (0, shape.layers):
        raise ValueError(
            f"{shape.family} stays whole: wanted layers 0 to {shape.layers}, got {first} to {last}"
        )
    match shape.family:
        case Family.GPT2:
            from headrace.workloads.training.families.gpt2 import Gpt2

            return Gpt2(shape, first, last)
        case Family.LLAMA:
            from headrace.workloads.training.families.llama import Llama

            return Llama(shape, first, last)
        case Family.BERT:
            from headrace.workloads.training.families.bert import Bert

            return Bert(shape)
        case Family.ROBERTA:
            from headrace.workloads.training.families.bert import Roberta

            return Roberta(shape)
        case Family.T5:
            from headrace.workloads.training.families.t5 import T5

            return T5(shape)
        case Family.VIT:
            from headrace.workloads.training.families.vit import Vit

            return Vit(shape)
