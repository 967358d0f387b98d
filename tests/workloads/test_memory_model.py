"""What the trainer really lays out and keeps, beside what the memory model says."""

from dataclasses import replace

import pytest
import torch

from headrace.api import memory
from headrace.api.feasible_plans import feasible_plans
from headrace.api.memory import BF16, FP32, estimated_peak_bytes
from headrace.api.models import PRESETS, Family, ModelShape, resized
from headrace.api.plan import ExecutionPlan
from headrace.workloads.training.families.build import part_of
from headrace.workloads.training.grid import stages_of
from headrace.workloads.training.sharding import is_fully_sharded, shards_of

SAMPLES = 2


def kept_bytes(shape: ModelShape, precision: str, *, recompute: bool) -> int:
    """Bytes of all tensors that wait for the backward pass, once each, without parameters."""
    part = part_of(shape, 0, shape.layers)
    number = torch.bfloat16 if precision == BF16 else torch.float32
    for module in part.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            # As FSDP2 casts them: everything computes in one precision.
            setattr(module, name, torch.nn.Parameter(torch.zeros_like(parameter, dtype=number)))
    part.recompute = recompute
    own = {parameter.untyped_storage().data_ptr() for parameter in part.parameters()}
    found: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own:
            found[place] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = part(given_to(shape, number))
    assert outputs.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in found.values())


def given_to(shape: ModelShape, number: torch.dtype) -> torch.Tensor:
    if shape.family is Family.VIT:
        side = shape.image_size
        return torch.zeros(SAMPLES, shape.channels, side, side, dtype=number)
    return torch.zeros(SAMPLES, shape.sequence_length, dtype=torch.long)


def of_another_layer(shape: ModelShape, precision: str, *, recompute: bool) -> tuple[int, int]:
    """What one more block keeps: measured, and by the model."""
    plan = ExecutionPlan(zero_stage=2, offload=True, activation_checkpointing=recompute)
    measured, estimated = [], []
    for layers in (1, 2):
        deeper = resized(shape, layers=layers)
        measured.append(kept_bytes(deeper, precision, recompute=recompute))
        many = estimated_peak_bytes(
            # So many samples that activations, of which we ask, are the fullest moment.
            deeper,
            plan,
            SAMPLES * 1024,
            precision=precision,
        )
        estimated.append(many.activations // 1024)
    return measured[1] - measured[0], estimated[1] - estimated[0]


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("precision", [FP32, BF16])
@pytest.mark.parametrize("name", ["gpt2-tiny", "bert-tiny", "vit-tiny"])
def test_blocks_keep_what_the_memory_model_says(name: str, precision: str, recompute: bool) -> None:
    # Normalisations' means are left out, so blocks are wide enough for them not to matter.
    shape = resized(PRESETS[name], hidden=128)
    measured, estimated = of_another_layer(shape, precision, recompute=recompute)
    assert measured == pytest.approx(estimated, rel=0.01)


def test_llamas_blocks_keep_it_too_save_for_what_a_cpu_puts_together() -> None:
    shape = replace(resized(PRESETS["llama-tiny"], hidden=128), key_value_heads=0)
    measured, estimated = of_another_layer(shape, FP32, recompute=False)
    # The CPU has no fused root-mean-square normalisation: it keeps what it scales, too.
    scaled = 2 * SAMPLES * shape.sequence_length * shape.hidden * 4
    assert measured - scaled == pytest.approx(estimated, rel=0.02)


def test_the_memory_model_lays_plans_out_as_the_trainer_does() -> None:
    shape = resized(PRESETS["gpt2-tiny"], layers=11)
    plans = feasible_plans(shape, 4, 8)
    assert len(plans) > 50
    for plan in plans:
        step = memory._Step(shape, plan, samples=1, positions=1, is_bf16=True)
        assert (step.is_fully_sharded, step.shards) == (is_fully_sharded(plan), shards_of(plan))
        for rank in range(plan.pipeline_parallel):
            stages = stages_of(plan, shape.layers, rank)
            held = memory._holding(step, rank)
            assert held.layers == tuple(stage.last - stage.first for stage in stages)
            assert held.begins == any(stage.first == 0 for stage in stages)
            assert held.ends == any(stage.last == shape.layers for stage in stages)
