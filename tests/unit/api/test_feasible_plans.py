"""Which plans can train a model: the closed reasons, their sentences, and what is enumerated."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.api.feasible_plans import (
    Hardware,
    InfeasibleReason,
    feasible_plans,
    infeasible,
    judged_plans,
)
from headrace.api.memory import BF16, GIB
from headrace.api.models import PRESETS, SPLITTABLE, ModelShape, resized
from headrace.api.plan import ExecutionPlan, PipelineSchedule

GPT2 = resized(PRESETS["gpt2-tiny"], layers=8)
LLAMA = PRESETS["llama-tiny"]
LARGE = PRESETS["llama-2-7b"]
H100 = Hardware(accelerator_bytes=79 * GIB)

DIVIDE = InfeasibleReason.DOES_NOT_DIVIDE
COMBINED = InfeasibleReason.NOT_COMBINED


def problem(
    shape: ModelShape, plan: str, batch: int = 16, hardware: Hardware | None = None
) -> tuple[InfeasibleReason | None, str]:
    found = infeasible(
        shape,
        ExecutionPlan.parse(plan),
        global_batch_size=batch,
        precision=BF16,
        hardware=hardware,
    )
    return (found.reason, found.message) if found is not None else (None, "")


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_of_no_samples_is_divided_by_nothing(batch: int) -> None:
    reason, told = problem(GPT2, "dp2-ga2", batch)
    assert reason is DIVIDE
    assert told.endswith(f"got {batch} samples; 4 would do")


@pytest.mark.parametrize(
    ("plan", "reason", "told"),
    [
        (
            "dp3",
            DIVIDE,
            "that 3 divides (3 replicas times 1 micro-batch), got 16 samples; 15 or 18",
        ),
        ("dp1-ga3", DIVIDE, "(1 replica times 3 micro-batches), got 16 samples; 15 or 18"),
        ("dp8-ga4", DIVIDE, "got 16 samples; 32 would do"),
        ("tp3", DIVIDE, "wanted heads that 3 tensor-parallel ranks divide, got 4; 1, 2 would"),
        ("pp16.1f1b-ga16", DIVIDE, "wanted a layer for each of the 16 stages, got 8 layers"),
        ("pp2.gpipe", DIVIDE, "wanted 2 micro-batches or more for the gpipe schedule"),
        ("pp4.1f1b-ga2", DIVIDE, "wanted 4 micro-batches or more for the 1f1b schedule of 4"),
        ("pp4.interleaved-ga2", DIVIDE, "wanted a multiple of 4 micro-batches for the interleaved"),
        ("pp4.zb-ga2", DIVIDE, "got 2; take for example ga4"),
        ("tp2-z1", COMBINED, "wanted ZeRO-1 with replicas only, got tp2-z1; with tensor or pipe"),
        ("dp2-z1-offload", COMBINED, "with offload take z2 or z3"),
        ("dp2-offload", COMBINED, "wanted ZeRO-2 or 3 with offload, got dp2-offload"),
        ("dp2-tp2-z2-offload", COMBINED, "wanted offload with replicas only"),
        ("dp2-pp2.1f1b-z3-ga2-offload", COMBINED, "wanted offload with replicas only"),
        ("dp1-z2", COMBINED, "wanted two replicas or more, among which ZeRO shares"),
        ("dp1-z2", COMBINED, "take dp1, or dp1-z2-offload, which needs no other replica"),
        ("dp1-z1-gc", COMBINED, "take dp1-gc, or dp1-z2-gc-offload, which needs"),
        ("tp2-z2", COMBINED, "got tp2-z2; take tp2"),
        ("dp2-pp2.zb-z3-ga2", COMBINED, "wanted the zb schedule without ZeRO-3"),
        ("pp2.zb-ga2-gc", COMBINED, "wanted the zb schedule without activation checkpointing"),
    ],
)
def test_what_cannot_run_has_a_reason_and_a_sentence(
    plan: str, reason: InfeasibleReason, told: str
) -> None:
    found, sentence = problem(GPT2, plan)
    assert found is reason
    assert told in sentence


def test_shared_keys_must_be_divided_too() -> None:
    assert problem(LLAMA, "tp2") == (None, "")
    found, sentence = problem(LLAMA, "tp4")
    assert found is DIVIDE
    assert "wanted heads of keys and values that 4 tensor-parallel ranks divide, got 2" in sentence


@pytest.mark.parametrize("plan", ["tp2", "pp2.1f1b-ga2", "dp2-tp2-z2"])
@pytest.mark.parametrize("name", ["bert-tiny", "roberta-tiny", "t5-tiny", "vit-tiny"])
def test_families_that_stay_whole_are_not_split(name: str, plan: str) -> None:
    found, sentence = problem(PRESETS[name], plan)
    assert found is InfeasibleReason.NOT_SUPPORTED_BY_FAMILY
    assert "only gpt2 and llama are split" in sentence


@pytest.mark.parametrize("plan", ["dp4", "dp4-z1", "dp4-z2-ga2", "dp4-z3-gc", "dp1-z3-offload"])
@pytest.mark.parametrize("name", [name for name in PRESETS if name.endswith("-tiny")])
def test_every_family_is_data_parallel(name: str, plan: str) -> None:
    assert problem(PRESETS[name], plan) == (None, "")


@pytest.mark.parametrize(
    ("plan", "placement", "fits"),
    [
        ("dp2-tp2", (2, 2), True),
        ("tp4", (2, 2), False),
        ("tp4", (4,), True),
        ("tp4", (), True),
        ("dp2-tp2", (3, 1), False),
        ("dp2-tp2", (1, 2, 1), False),
        ("dp4", (1, 1, 1, 1), True),
        ("pp4.1f1b-ga4", (3, 1), True),
    ],
)
def test_tensor_parallel_neighbours_share_a_node(
    plan: str, placement: tuple[int, ...], fits: bool
) -> None:
    found, sentence = problem(GPT2, plan, hardware=Hardware(79 * GIB, placement=placement))
    assert (found is None) is fits
    if not fits:
        assert found is InfeasibleReason.TENSOR_PARALLEL_ACROSS_NODES
        assert f"on nodes with {' + '.join(map(str, placement))}" in sentence


def test_a_placement_of_other_accelerators_is_an_error() -> None:
    with pytest.raises(ValueError, match="wanted 4 accelerators in all, got 2 \\+ 1"):
        problem(GPT2, "dp4", hardware=Hardware(79 * GIB, placement=(2, 1)))


def test_what_does_not_fit_says_by_how_much_and_what_would_help() -> None:
    whole = infeasible(
        LARGE,
        ExecutionPlan.parse("dp1-ga8-gc"),
        global_batch_size=8,
        precision=BF16,
        hardware=H100,
    )
    assert whole is not None
    assert whole.reason is InfeasibleReason.DOES_NOT_FIT
    assert whole.message.startswith(f"does not fit by {whole.missing_bytes / GIB:.1f} GiB: wanted")
    assert "states 75.3" in whole.message
    assert "; dp1-z3-ga8-gc-offload " in whole.message
    assert whole.missing_bytes > 10 * GIB


@pytest.mark.parametrize(
    ("plan", "batch", "helps"),
    [
        ("dp2", 64, ["dp2-gc", "dp2-ga2", "dp2-z3"]),
        ("dp2-gc", 512, ["dp2-ga2-gc", "dp2-z3-gc"]),
        ("pp2.gpipe-ga4-gc", 512, ["pp2.1f1b-ga4-gc"]),
        ("dp4-ga16-gc", 64, ["dp4-z3-ga16-gc", "dp4-z3-ga16-gc-offload"]),
        ("tp2-ga64-gc", 64, ["more accelerators, or a smaller batch,"]),
    ],
)
def test_what_helps_are_plans_that_really_need_less(
    plan: str, batch: int, helps: list[str]
) -> None:
    found, sentence = problem(LARGE, plan, batch, Hardware(12 * GIB))
    assert found is InfeasibleReason.DOES_NOT_FIT
    before, _, help_told = sentence.partition("got 12.0 GiB; ")
    wanted = float(before.split("wanted ")[1].split(" GiB")[0])
    told = help_told.removesuffix(" would be less").removesuffix(" GiB").split(" or ")
    if "more accelerators" in helps[0]:
        assert help_told.startswith(helps[0])
        return
    for line in told:
        other, size = line.split(" ")
        assert float(size) <= wanted
        assert problem(LARGE, other, batch) == (None, "")
    assert set(helps) & {line.split(" ")[0] for line in told}


def test_smaller_micro_batches_are_offered_where_they_take_less() -> None:
    _, sentence = problem(LARGE, "dp2-z3-gc", 8, Hardware(40 * GIB))
    assert "dp2-z3-gc-offload" in sentence
    assert "dp2-z3-ga2-gc" in sentence


def test_offload_needs_the_memory_of_its_node() -> None:
    plan = "dp2-z3-gc-offload"
    roomy = Hardware(79 * GIB, host_bytes=256 * GIB)
    assert problem(LARGE, plan, hardware=roomy) == (None, "")
    found, sentence = problem(LARGE, plan, hardware=Hardware(79 * GIB, host_bytes=64 * GIB))
    assert found is InfeasibleReason.DOES_NOT_FIT
    assert "GiB of host memory" in sentence
    assert "for each of 2 ranks on a node" in sentence
    spread = Hardware(79 * GIB, host_bytes=80 * GIB, placement=(1, 1))
    assert problem(LARGE, plan, hardware=spread) == (None, "")


def test_the_papers_large_model_trains_on_one_accelerator_by_offload_alone() -> None:
    found = feasible_plans(LARGE, 1, 8, H100, sequence_length=2048, precision=BF16)
    assert found
    assert all(plan.offload for plan in found)


def test_all_plans_of_two_ranks() -> None:
    told = " ".join(map(str, feasible_plans(GPT2, 2, 2)))
    assert told == (
        "dp2 dp2-gc dp2-z1 dp2-z1-gc dp2-z2 dp2-z2-gc dp2-z3 dp2-z3-gc "
        "dp2-z2-offload dp2-z2-gc-offload dp2-z3-offload dp2-z3-gc-offload "
        "tp2 tp2-ga2 tp2-gc tp2-ga2-gc "
        "pp2.gpipe-ga2 pp2.gpipe-ga2-gc pp2.1f1b-ga2 pp2.1f1b-ga2-gc "
        "pp2.interleaved-ga2 pp2.interleaved-ga2-gc pp2.zb-ga2"
    )


def test_micro_batches_double_and_end_with_single_samples() -> None:
    found = feasible_plans(PRESETS["bert-tiny"], 1, 24)
    plain = [plan for plan in found if not plan.activation_checkpointing and not plan.offload]
    assert [plan.accumulation_steps for plan in plain] == [1, 2, 4, 8, 24]


def test_nothing_is_enumerated_for_nothing() -> None:
    with pytest.raises(ValueError, match="wanted at least one accelerator"):
        feasible_plans(GPT2, 0, 8)
    with pytest.raises(ValueError, match="a global batch of at least one sample, got 1 and 0"):
        feasible_plans(GPT2, 1, 0)


shapes = st.sampled_from([GPT2, LLAMA, PRESETS["t5-tiny"], PRESETS["vit-tiny"]])


def can_run(shape: ModelShape, plan: ExecutionPlan, batch: int) -> bool:
    """The rules once more, as one condition each."""
    split = plan.tensor_parallel > 1 or plan.pipeline_parallel > 1
    steps, length = plan.accumulation_steps, plan.pipeline_parallel
    zero, offload = plan.zero_stage, plan.offload
    rules = (
        not split or shape.family in SPLITTABLE,
        zero != 1 or (not split and not offload and plan.data_parallel > 1),
        zero in (0, 1) or plan.data_parallel > 1 or offload,
        not offload or (zero in (2, 3) and not split),
        batch % (plan.data_parallel * steps) == 0,
        shape.heads % plan.tensor_parallel == 0,
        shape.shared_heads % plan.tensor_parallel == 0,
        shape.intermediate % plan.tensor_parallel == 0,
        plan.stages <= shape.layers,
        plan.schedule is not PipelineSchedule.GPIPE or steps >= 2,
        plan.schedule is not PipelineSchedule.ONE_F_ONE_B or steps >= length,
        plan.schedule is not PipelineSchedule.INTERLEAVED or steps % length == 0,
        plan.schedule is not PipelineSchedule.ZERO_BUBBLE
        or (steps % length == 0 and zero != 3 and not plan.activation_checkpointing),
        plan.schedule is not PipelineSchedule.ZERO_BUBBLE
        or not (shape.tied and plan.data_parallel > 1),
    )
    return all(rules)


@settings(max_examples=40, deadline=None)
@given(shape=shapes, accelerators=st.integers(1, 8), batch=st.integers(1, 48))
def test_plans_are_judged_by_the_rules_and_each_is_named_once(
    shape: ModelShape, accelerators: int, batch: int
) -> None:
    judged = list(judged_plans(shape, accelerators, batch))
    for plan, found in judged:
        assert plan.ranks == accelerators
        assert ExecutionPlan.parse(str(plan)) == plan
        assert (found is None) is can_run(shape, plan, batch), plan
    assert len({plan for plan, _ in judged}) == len(judged)
    able = tuple(plan for plan, found in judged if found is None)
    assert feasible_plans(shape, accelerators, batch) == able


@settings(max_examples=20, deadline=None)
@given(
    accelerators=st.sampled_from([1, 2, 4, 8]),
    little=st.integers(1, 200),
    more=st.integers(0, 200),
)
def test_more_memory_takes_no_plan_away(accelerators: int, little: int, more: int) -> None:
    shape = PRESETS["gpt2-1.26b"]
    small, large = (
        set(feasible_plans(shape, accelerators, 16, Hardware(size * GIB), precision=BF16))
        for size in (little, little + more)
    )
    assert small <= large


def test_every_reason_is_given_to_some_plan() -> None:
    across = Hardware(40 * GIB, placement=(1, 2, 1))
    given_for = {
        found.reason
        for shape in (LARGE, PRESETS["bert-336m"])
        for _, found in itertools.chain(
            judged_plans(shape, 4, 8, across, precision=BF16), judged_plans(shape, 3, 8)
        )
        if found is not None
    }
    assert given_for == set(InfeasibleReason)
