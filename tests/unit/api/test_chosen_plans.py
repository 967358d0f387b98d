"""Which plans are measured."""

import pytest

from headrace.api.chosen_plans import MOST, chosen_plans
from headrace.api.feasible_plans import feasible_plans
from headrace.api.models import PRESETS

MODELS = {"gpt2-1.26b": 16, "bert-336m": 32, "llama-2-7b": 8}


@pytest.mark.parametrize("accelerators", [1, 2, 4, 8])
@pytest.mark.parametrize("model", MODELS)
def test_chosen_plans_are_feasible_different_and_no_more_than_wanted(
    model: str, accelerators: int
) -> None:
    shape, batch = PRESETS[model], MODELS[model]
    chosen = chosen_plans(shape, accelerators, batch)
    possible = feasible_plans(shape, accelerators, batch)
    assert set(chosen) <= set(possible)
    assert len(set(chosen)) == len(chosen) == min(MOST, len(possible))
    assert chosen == chosen_plans(shape, accelerators, batch)


def test_the_first_plans_stay_the_same_when_more_are_wanted() -> None:
    shape = PRESETS["gpt2-1.26b"]
    assert chosen_plans(shape, 2, 16, 7) == chosen_plans(shape, 2, 16)[:7]


@pytest.mark.parametrize("accelerators", [2, 4])
def test_the_first_seven_are_of_seven_kinds(accelerators: int) -> None:
    plans = chosen_plans(PRESETS["gpt2-1.26b"], accelerators, 16, 7)
    assert any(plan.data_parallel == plan.ranks and plan.zero_stage == 0 for plan in plans)
    assert any(plan.tensor_parallel > 1 for plan in plans)
    assert any(plan.pipeline_parallel > 1 for plan in plans)
    assert any(plan.zero_stage == 3 for plan in plans)
    assert any(plan.offload for plan in plans)
    assert any(plan.activation_checkpointing for plan in plans)
    assert any(plan.accumulation_steps > 1 and plan.pipeline_parallel == 1 for plan in plans)


def test_two_accelerators_see_every_schedule_and_every_zero_stage() -> None:
    plans = chosen_plans(PRESETS["gpt2-1.26b"], 2, 16)
    assert {plan.schedule for plan in plans} == {None, "gpipe", "1f1b", "interleaved", "zb"}
    assert {plan.zero_stage for plan in plans} == {0, 1, 2, 3}


def test_simple_plans_stand_for_their_kind() -> None:
    plans = chosen_plans(PRESETS["gpt2-1.26b"], 2, 16, 7)
    assert [str(plan) for plan in plans] == [
        "dp2",
        "pp2.1f1b-ga2",
        "tp2",
        "dp2-z3",
        "dp2-z2-offload",
        "dp2-gc",
        "dp2-ga2",
    ]
