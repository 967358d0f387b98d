"""The memory model: what it is made of, what divides it, and which way it moves."""

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from headrace.api import memory
from headrace.api.feasible_plans import feasible_plans, infeasible
from headrace.api.memory import BF16, FP32, GIB, PeakMemory, estimated_peak_bytes
from headrace.api.models import PRESETS, resized
from headrace.api.plan import ExecutionPlan

GPT2 = PRESETS["gpt2-1.26b"]
LLAMA = PRESETS["llama-2-7b"]


def peak(plan: str, batch: int = 16, name: str = "gpt2-1.26b", precision: str = BF16) -> PeakMemory:
    return estimated_peak_bytes(
        PRESETS[name], ExecutionPlan.parse(plan), batch, precision=precision
    )


def test_the_parts_are_all_of_it() -> None:
    found = peak("dp2-z2")
    assert found.accelerator_bytes == sum(size for _, size in found.parts())
    assert "host_bytes" not in dict(found.parts())


def test_the_larger_parts_are_told_in_gibibytes_largest_first() -> None:
    found = replace(
        peak("dp1"),
        states=3 * GIB,
        gradients=0,
        copies=GIB // 100,
        activations=5 * GIB,
        temporaries=GIB // 2,
        reserved=0,
        context=GIB,
    )
    assert str(found) == "activations 5.0, states 3.0, context 1.0, temporaries 0.5"


@pytest.mark.parametrize(
    ("plan", "bytes_each"),
    [
        ("dp1", 12),
        ("dp2", 12),
        ("dp2-z1", 4 + 8 / 2),
        ("dp2-z2", 12 / 2),
        ("dp4-z3", 12 / 4),
        ("dp1-z3-offload", 0),
    ],
)
def test_states_are_weights_and_two_moments_as_far_as_they_are_not_shared(
    plan: str, bytes_each: float
) -> None:
    assert peak(plan).states == round(bytes_each * GPT2.parameters)


def test_offloaded_states_and_gradients_are_in_host_memory() -> None:
    alone, shared = peak("dp1-z2-offload"), peak("dp2-z2-offload")
    pinned = memory.PINNED_PER_BYTE * 8 + 8
    assert alone.host_bytes == round(memory.HOST_BYTES_PER_RANK + pinned * GPT2.parameters)
    assert shared.host_bytes == round(memory.HOST_BYTES_PER_RANK + pinned * GPT2.parameters / 2)


@pytest.mark.parametrize(
    ("plan", "replicas"), [("dp1", 1), ("dp2", 2), ("dp2-z1", 2), ("dp4-z2", 4), ("dp2-z3", 2)]
)
def test_each_replica_copies_its_share_of_what_is_saved_to_host_memory(
    plan: str, replicas: int
) -> None:
    copied = memory.PINNED_PER_BYTE * 12 * GPT2.parameters / replicas
    assert peak(plan).host_bytes == round(memory.HOST_BYTES_PER_RANK + copied)


def test_tensor_parallelism_divides_all_but_normalisations_positions_and_some_biases() -> None:
    counts = GPT2.counts
    positions = counts.embedding - counts.table
    whole = GPT2.layers * counts.block_whole + positions + (counts.head - counts.output)
    expected = whole + (GPT2.parameters - whole) / 4
    assert peak("tp4").states == round(12 * expected)


def test_a_pipeline_rank_holds_its_stages_and_its_end_of_the_model() -> None:
    # The first rank has the table, the positions and one micro-batch more on its way.
    expected = 12 * GPT2.counts.block + GPT2.counts.embedding
    assert peak("pp2.1f1b-ga4").states == 12 * expected


def test_the_rank_of_a_v_has_both_ends_and_no_second_table() -> None:
    tied = replace(GPT2, tied=True)
    found = estimated_peak_bytes(tied, ExecutionPlan.parse("pp2.zb-ga2"), 4, precision=BF16)
    blocks = 12 * tied.counts.block
    assert found.states == 12 * (blocks + tied.counts.embedding + tied.counts.head)


def test_a_tied_table_is_in_the_last_stage_too() -> None:
    tied = replace(GPT2, tied=True)
    found = estimated_peak_bytes(tied, ExecutionPlan.parse("pp2.gpipe-ga2"), 8, precision=BF16)
    assert found.states == 12 * (12 * tied.counts.block + tied.counts.head + tied.counts.table)


def test_layers_that_stages_do_not_divide_go_to_the_fuller_rank() -> None:
    odd = resized(GPT2, layers=5, vocabulary=2)
    found = estimated_peak_bytes(odd, ExecutionPlan.parse("pp2.gpipe-ga2"), 4, precision=FP32)
    assert found.states == 12 * (3 * odd.counts.block + odd.counts.head)


def test_gpt2_keeps_sixteen_numbers_a_position_and_hidden_unit() -> None:
    # Korthikanti et al., MLSys 2023, have 34 bytes with dropout's masks; without them, fused
    # attention and no second copy leave 16 numbers of two bytes, and one of four for each head.
    shape = replace(GPT2, vocabulary=2)
    step = (shape, ExecutionPlan.parse("dp1-z2-offload"), 8)
    few = estimated_peak_bytes(*step, precision=BF16).activations
    more = estimated_peak_bytes(resized(shape, layers=25), *step[1:], precision=BF16).activations
    positions = 8 * shape.sequence_length
    assert more - few == positions * (16 * 2 * shape.hidden + 4 * shape.heads)


def test_checkpointing_keeps_a_blocks_input() -> None:
    shape = replace(GPT2, vocabulary=2)
    step = (shape, ExecutionPlan.parse("dp1-z2-gc-offload"), 8)
    few = estimated_peak_bytes(*step, precision=BF16).activations
    more = estimated_peak_bytes(resized(shape, layers=25), *step[1:], precision=BF16).activations
    assert more - few == 8 * shape.sequence_length * 2 * shape.hidden


@pytest.mark.parametrize(
    ("plan", "ranks"),
    [
        # Counted in the orders that torch's schedules give.
        ("pp4.gpipe-ga8", [(8,), (8,), (8,), (8,)]),
        ("pp4.1f1b-ga8", [(4,), (3,), (2,), (1,)]),
        ("pp4.interleaved-ga4", [(4, 4), (4, 4), (4, 3), (4, 1)]),
        ("pp4.interleaved-ga16", [(7, 4), (5, 4), (4, 3), (4, 1)]),
        ("pp2.interleaved-ga4", [(3, 2), (2, 1)]),
        ("pp4.zb-ga4", [(4, 1), (4, 2), (4, 3), (4, 4)]),
        ("pp4.zb-ga16", [(7, 1), (6, 2), (5, 3), (4, 4)]),
    ],
)
def test_micro_batches_on_their_way_are_those_of_the_schedule(
    plan: str, ranks: list[tuple[int, ...]]
) -> None:
    found = [memory._in_flight(ExecutionPlan.parse(plan), rank) for rank in range(len(ranks))]
    assert found == ranks


def test_1f1b_holds_fewer_activations_than_gpipe() -> None:
    assert peak("pp2.1f1b-ga8").activations < peak("pp2.gpipe-ga8").activations / 2


def test_large_vocabularies_make_the_loss_the_fullest_moment() -> None:
    found = peak("dp1-gc", 16, "t5-1.2b")
    logits = 16 * 512 * 250112
    assert found.temporaries == memory.LOSS_BYTES_PER_LOGIT * logits


def test_an_image_has_one_row_of_logits() -> None:
    wide = replace(PRESETS["vit-86m"], vocabulary=1_000_000)
    found = estimated_peak_bytes(wide, ExecutionPlan.parse("dp1"), 64, precision=BF16)
    assert found.temporaries == memory.LOSS_BYTES_PER_LOGIT * 64 * 1_000_000


def test_gradients_of_replicas_are_there_from_the_start_and_others_come_with_the_backward() -> None:
    whole = 4 * GPT2.parameters
    assert peak("dp2").gradients == whole  # in the buckets of DDP
    assert peak("dp1").gradients == 0  # at the loss, of the only micro-batch
    assert peak("dp1-ga2").gradients == whole
    assert peak("dp2-z2").gradients == 0
    # Where activations are few, the end of the backward pass is the fullest moment.
    assert peak("dp2-z2-gc", 2, "llama-2-7b").gradients == round(4 * LLAMA.parameters / 2)


def test_gradients_of_each_micro_batch_are_shared_out() -> None:
    assert peak("dp2-z3-ga2-gc", 4, "llama-2-7b").gradients == 4 * LLAMA.parameters / 2


def test_copies_are_all_matrices_under_autocast_and_a_few_blocks_under_zero3() -> None:
    rest = GPT2.counts.embedding + GPT2.counts.head
    assert peak("dp2-z3").copies == 2 * rest  # at the loss no block is at work
    few = replace(GPT2, vocabulary=2)
    found = estimated_peak_bytes(few, ExecutionPlan.parse("dp2-z3"), 16, precision=BF16)
    gathered = memory.GATHERED_BLOCKS * few.counts.block
    assert found.copies == 2 * (gathered + few.counts.embedding + few.counts.head)
    assert peak("dp2-z2").copies == 2 * GPT2.parameters
    assert peak("dp1").copies == 2 * (GPT2.layers * GPT2.counts.block + GPT2.counts.output)
    assert peak("dp1", precision=FP32).copies == 0


def test_computing_blocks_again_leaves_no_copies_at_the_end_of_the_backward_pass() -> None:
    # With few samples that is the fullest moment.
    kept, again = peak("tp2", 2, "llama-2-7b"), peak("tp2-gc", 2, "llama-2-7b")
    block = LLAMA.counts.block_split / 2 + LLAMA.counts.block_whole
    assert again.copies == round(2 * block)
    assert kept.copies > 10 * again.copies


def test_tensor_parallelism_divides_the_logits() -> None:
    found = peak("tp2-gc", 16, "gpt2-1.26b")
    logits = 16 * GPT2.sequence_length * GPT2.vocabulary
    assert found.temporaries == memory.DIVIDED_LOSS_BYTES_PER_LOGIT * logits / 2


def test_what_the_allocator_cannot_give_out_grows_with_blocks_and_table_and_not_with_use() -> None:
    few = replace(GPT2, vocabulary=2)

    def reserved(plan: str, batch: int, layers: int = 24) -> int:
        shape = resized(few, layers=layers)
        return estimated_peak_bytes(
            shape, ExecutionPlan.parse(plan), batch, precision=BF16
        ).reserved

    unit = 4 * (few.counts.block + few.counts.table)
    assert reserved("dp1", 4) == pytest.approx(memory.UNUSABLE_UNITS * unit, rel=1e-3)
    assert reserved("dp1", 16) == pytest.approx(reserved("dp1", 4), rel=1e-3)
    assert reserved("dp1", 4, 48) == reserved("dp1", 4)
    exchanging = memory.UNUSABLE_UNITS + memory.UNUSABLE_SHARDED_UNITS
    assert reserved("dp2-z2", 4) == pytest.approx(exchanging * unit, rel=1e-3)


def test_activations_settle_where_gathered_weights_were() -> None:
    holes = 2 * GPT2.layers * GPT2.counts.block
    assert peak("dp2-z3").reserved - peak("dp2-z2").reserved == holes
    kept_little = peak("dp2-z3-gc")
    assert kept_little.reserved - peak("dp2-z2-gc").reserved == kept_little.activations
    assert peak("dp2-z3-offload").reserved == peak("dp2-z2-offload").reserved


def test_only_shared_keys_in_fp32_keep_scores() -> None:
    shape = resized(PRESETS["llama-tiny"], sequence_length=2048)
    plain = ExecutionPlan.parse("dp1")
    shared = estimated_peak_bytes(shape, plain, 8, precision=FP32)
    whole = estimated_peak_bytes(resized(shape, key_value_heads=4), plain, 8, precision=FP32)
    scores = shape.layers * 8 * shape.heads * 2048**2 * 4
    keys_and_values = shape.layers * 8 * 2048 * 2 * (2 * shape.width_of_head) * 4
    assert shared.activations - whole.activations == scores - keys_and_values
    halved = estimated_peak_bytes(shape, plain, 8, precision=BF16)
    assert halved.activations < shared.activations / 10


def test_every_process_group_costs_its_buffers() -> None:
    alone = peak("dp1").context
    joined = alone + memory.NCCL_BYTES
    assert peak("dp2").context == joined + memory.NCCL_BYTES_PER_GROUP
    assert peak("dp2-tp2").context == joined + 2 * memory.NCCL_BYTES_PER_GROUP


def test_a_shorter_sample_takes_less() -> None:
    plan = ExecutionPlan.parse("dp1")
    short = estimated_peak_bytes(LLAMA, plan, 8, sequence_length=2048, precision=BF16)
    assert short.activations < peak("dp1", 8, "llama-2-7b").activations / 1.9


@pytest.mark.parametrize(
    ("plan", "batch", "precision", "told"),
    [
        ("dp3", 16, BF16, "dp3 does not divide a batch of 16"),
        ("pp32.1f1b-ga32", 32, BF16, "more stages than the 24 layers"),
        ("dp1", 16, "fp16", "precision: wanted fp32 or bf16, got 'fp16'"),
    ],
)
def test_what_cannot_be_estimated_is_an_error(
    plan: str, batch: int, precision: str, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        peak(plan, batch, precision=precision)


LARGE = [name for name in PRESETS if not name.endswith(("-tiny", "-small"))]
names = st.sampled_from(LARGE)
precisions = st.sampled_from([FP32, BF16])


@settings(max_examples=60, deadline=None)
@given(
    name=names, stage=st.sampled_from([1, 2, 3]), ranks=st.sampled_from([2, 4, 8]), fp=precisions
)
def test_more_replicas_of_zero_never_take_more(name: str, stage: int, ranks: int, fp: str) -> None:
    few = peak(f"dp{ranks}-z{stage}", 64, name, fp)
    many = peak(f"dp{2 * ranks}-z{stage}", 64, name, fp)
    assert many.accelerator_bytes <= few.accelerator_bytes
    assert many.host_bytes <= few.host_bytes


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, ExecutionPlan, int, str]:
    name = draw(names)
    accelerators = draw(st.sampled_from([1, 2, 4, 8]))
    batch = 8 * draw(st.integers(1, 4))
    plans = feasible_plans(PRESETS[name], accelerators, batch)
    return name, draw(st.sampled_from(plans)), batch, draw(precisions)


@settings(max_examples=200, deadline=None)
@given(case=cases())
def test_of_several_micro_batches_smaller_ones_never_take_more(
    case: tuple[str, ExecutionPlan, int, str],
) -> None:
    name, plan, batch, precision = case
    assume(plan.accumulation_steps > 1)
    shape = PRESETS[name]
    found = estimated_peak_bytes(shape, plan, batch, precision=precision)
    smaller = replace(plan, accumulation_steps=2 * plan.accumulation_steps)
    assume(infeasible(shape, smaller, global_batch_size=batch) is None)
    other = estimated_peak_bytes(shape, smaller, batch, precision=precision)
    assert other.accelerator_bytes <= found.accelerator_bytes


@settings(max_examples=100, deadline=None)
@given(case=cases())
def test_more_samples_never_take_less_and_checkpointing_never_more(
    case: tuple[str, ExecutionPlan, int, str],
) -> None:
    name, plan, batch, precision = case
    shape = PRESETS[name]
    found = estimated_peak_bytes(shape, plan, batch, precision=precision)
    assert all(size >= 0 for _, size in found.parts())
    double = estimated_peak_bytes(shape, plan, 2 * batch, precision=precision)
    assert double.accelerator_bytes >= found.accelerator_bytes
    thrifty = replace(plan, activation_checkpointing=True)
    if infeasible(shape, thrifty, global_batch_size=batch) is None:
        kept = estimated_peak_bytes(shape, thrifty, batch, precision=precision)
        # A block that is computed again is there twice for a moment.
        assert kept.accelerator_bytes <= found.accelerator_bytes * 1.02
