"""The execution plan's short form is read and printed without loss."""

from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.api.plan import ExecutionPlan, PipelineSchedule, data_parallel_plan

sizes = st.integers(min_value=1, max_value=4096)


@st.composite
def plans(draw: st.DrawFn) -> ExecutionPlan:
    """Any plan at all, sensible or not."""
    stages = draw(st.one_of(st.just(1), sizes))
    return ExecutionPlan(
        data_parallel=draw(sizes),
        accumulation_steps=draw(sizes),
        tensor_parallel=draw(sizes),
        pipeline_parallel=stages,
        schedule=draw(st.sampled_from(PipelineSchedule)) if stages > 1 else None,
        zero_stage=draw(st.integers(0, 3)),
        activation_checkpointing=draw(st.booleans()),
        offload=draw(st.booleans()),
    )


@given(plans())
def test_short_form_round_trips(plan: ExecutionPlan) -> None:
    text = str(plan)
    assert ExecutionPlan.parse(text) == plan
    assert text.isascii()
    assert " " not in text


@given(plans())
def test_stored_plans_come_back(plan: ExecutionPlan) -> None:
    assert ExecutionPlan.from_parts(asdict(plan)) == plan


def test_a_plan_stored_before_there_were_other_kinds_is_data_parallel() -> None:
    assert str(ExecutionPlan.from_parts({"data_parallel": 4, "accumulation_steps": 2})) == "dp4-ga2"


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        ("dp1", ExecutionPlan()),
        ("tp2", ExecutionPlan(tensor_parallel=2)),
        (
            "dp2-tp2-pp2.1f1b-z2-ga4-gc-offload",
            ExecutionPlan(2, 4, 2, 2, PipelineSchedule.ONE_F_ONE_B, 2, True, True),
        ),
        ("pp4.zb-ga8", ExecutionPlan(1, 8, 1, 4, PipelineSchedule.ZERO_BUBBLE)),
    ],
)
def test_the_form_people_read(text: str, plan: ExecutionPlan) -> None:
    assert str(plan) == text
    assert ExecutionPlan.parse(text) == plan


def test_ranks_and_stages() -> None:
    plan = ExecutionPlan.parse("dp2-tp2-pp2.interleaved-ga4")
    assert (plan.ranks, plan.stages) == (8, 4)
    assert ExecutionPlan.parse("dp8").stages == 1


@pytest.mark.parametrize(
    "text",
    ["", "dp0", "dp4-ga0", "dp 4", "DP4", "dp4\n", "pp2", "pp2.2f2b", "z4", "dp2-z0", "dp2.1f1b"],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="wanted a plan such as"):
        ExecutionPlan.parse(text)


@pytest.mark.parametrize(
    ("text", "helps"),
    [
        ("pp2", "pp needs a schedule (gpipe, 1f1b, interleaved or zb), such as pp2.1f1b"),
        ("dp2-pp2.zbv", "pp needs a schedule (gpipe, 1f1b, interleaved or zb), such as pp2.1f1b"),
        ("z2-dp2", "it is written dp2-z2"),
        ("DP2", "it is written dp2"),
        ("offload_z3_dp2", "it is written dp2-z3-offload"),
        ("dp2-z4", "ZeRO is z1, z2 or z3, not z4"),
        ("dp2-zero", "'zero' is no part of a plan"),
        ("dp-tp2", "dp needs a number, such as dp2"),
        ("dp2-gc2", "gc has no number"),
        ("tp2-tp4", "tp stands twice in it"),
        ("dp2.1f1b", "only pp has a schedule, not dp2.1f1b"),
    ],
)
def test_a_plan_that_is_almost_right_is_put_right(text: str, helps: str) -> None:
    with pytest.raises(ValueError, match="wanted a plan such as") as caught:
        ExecutionPlan.parse(text)
    assert str(caught.value).endswith(f", got {text!r}; {helps}")


@pytest.mark.parametrize("text", ["", "fsdp", "dp4,tp2", "dp0", "dp4\n"])
def test_what_resembles_no_plan_gets_examples_only(text: str) -> None:
    with pytest.raises(ValueError, match="wanted a plan such as") as caught:
        ExecutionPlan.parse(text)
    assert str(caught.value).endswith(f", got {text!r}")


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("dp4-ga1", "dp4"),
        ("dp4-", "dp4"),
        ("ga2", "dp1-ga2"),
        ("dp1-tp2", "tp2"),
        ("dp2-tp1", "dp2"),
    ],
)
def test_a_form_that_is_not_canonical_is_answered_with_the_one_that_is(
    text: str, canonical: str
) -> None:
    with pytest.raises(ValueError, match=f"wanted the canonical form {canonical}, got"):
        ExecutionPlan.parse(text)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"data_parallel": 0}, "data_parallel: wanted 1 to 65536, got 0"),
        ({"zero_stage": 4}, "zero_stage: wanted 0, 1, 2 or 3, got 4"),
        ({"pipeline_parallel": 2}, "schedule: wanted one of gpipe, 1f1b"),
        ({"schedule": PipelineSchedule.GPIPE}, "got gpipe for pipeline_parallel=1"),
    ],
)
def test_values_that_are_no_plan_are_refused(wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ExecutionPlan.from_parts(wrong)


@pytest.mark.parametrize(
    ("ranks", "most", "plan"),
    [(1, 0, "dp1"), (1, 4, "dp1-ga4"), (2, 4, "dp2-ga2"), (4, 4, "dp4"), (4, 3, "dp4-ga2")],
)
def test_data_parallel_accumulates_as_little_as_the_micro_batch_allows(
    ranks: int, most: int, plan: str
) -> None:
    assert str(data_parallel_plan(ranks, 16, most)) == plan


def test_data_parallel_of_an_unknown_batch_accumulates_nothing() -> None:
    assert str(data_parallel_plan(4, 0, 2)) == "dp4"
