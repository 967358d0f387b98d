"""The performance model behaves as machines do, whatever its parameters are."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.rubick.configurations import Configurations, Numbers, Shares
from controlplane.rubick.parameters import INDEX, NAMES, PARAMETERS
from controlplane.rubick.priors import prior_for
from controlplane.rubick.sizes import ModelSizes
from controlplane.rubick.step_time import log_seconds_with_jacobian, step_seconds
from headrace.api.models import PRESETS
from headrace.api.plan import ExecutionPlan
from tests.rubick.builders import PLACEMENTS, SAMPLES, SIZES, THREADS, configurations, truth

TYPICAL = np.log([parameter.typical for parameter in PARAMETERS])
SPREADS = np.array([parameter.spread for parameter in PARAMETERS])

DEVIATIONS = st.lists(st.floats(-1.5, 1.5), min_size=len(NAMES), max_size=len(NAMES)).map(
    lambda found: TYPICAL + SPREADS * np.array(found)
)
"""Parameters as they may be."""

SPLIT: Sequence[tuple[str, Shares]] = (
    ("tp2", (2,)),
    ("tp4-ga2-gc", (4,)),
    ("pp2.1f1b-ga4", (2,)),
    ("pp4.interleaved-ga4", (4, 4)[:1]),
    ("pp2.zb-ga4", (1, 1)),
    ("dp2-tp2-pp2.1f1b-ga2", (4, 4)),
    ("dp2-tp4-z3-ga2", (4, 4)),
    ("dp4-pp2.gpipe-z2-ga2", (3, 5)),
)


def _of(*pairs: tuple[str, Shares], samples: int = SAMPLES) -> Configurations:
    plans = [ExecutionPlan.parse(plan) for plan, _ in pairs]
    return Configurations.of(plans, [shares for _, shares in pairs], samples, cpu_threads=THREADS)


EVERYTHING = _of(*SPLIT)


def _all(log_parameters: Numbers) -> Numbers:
    return np.concatenate(
        [
            step_seconds(log_parameters, SIZES, configurations()),
            step_seconds(log_parameters, SIZES, EVERYTHING),
        ]
    )


@given(DEVIATIONS)
def test_all_steps_take_time(log_parameters: Numbers) -> None:
    found = _all(log_parameters)
    assert np.isfinite(found).all()
    assert (found > 0).all()


@pytest.mark.parametrize(
    "rate",
    [
        "flops_per_second",
        "intra_bytes_per_second",
        "inter_bytes_per_second",
        "pcie_bytes_per_second",
        "tensor_bandwidth_fraction",
    ],
)
@settings(max_examples=30)
@given(log_parameters=DEVIATIONS, more=st.floats(0.01, 3))
def test_a_faster_part_makes_no_step_slower(
    rate: str, log_parameters: Numbers, more: float
) -> None:
    faster = log_parameters.copy()
    faster[INDEX[rate]] += more
    assert (_all(faster) <= _all(log_parameters) * (1 + 1e-9)).all()


@pytest.mark.parametrize("name", [name for name in NAMES if "_seconds" in name])
def test_every_cost_makes_some_step_slower_and_none_faster(name: str) -> None:
    dearer = TYPICAL.copy()
    dearer[INDEX[name]] += 1.0
    ratio = _all(dearer) / _all(TYPICAL)
    assert (ratio >= 1 - 1e-9).all()
    assert ratio.max() > 1 + 1e-6


@settings(max_examples=15)
@given(DEVIATIONS)
def test_derivatives_are_those_of_the_equations(log_parameters: Numbers) -> None:
    for columns in (configurations(), EVERYTHING):
        _, jacobian = log_seconds_with_jacobian(log_parameters, SIZES, columns)
        step = 1e-6
        for index in range(len(NAMES)):
            move = np.zeros(len(NAMES))
            move[index] = step
            above = np.log(step_seconds(log_parameters + move, SIZES, columns))
            below = np.log(step_seconds(log_parameters - move, SIZES, columns))
            difference = (above - below) / (2 * step)
            assert jacobian[:, index] == pytest.approx(difference, abs=2e-6), NAMES[index]


@given(DEVIATIONS)
def test_more_offloaded_traffic_is_never_faster(log_parameters: Numbers) -> None:
    # On one accelerator nothing but what offload moves tells ZeRO-2 and 3 apart.
    once, again, twice = step_seconds(
        log_parameters,
        SIZES,
        _of(("dp1-z2-offload", (1,)), ("dp1-z3-offload", (1,)), ("dp1-z2-ga2-offload", (1,))),
    )
    assert once < again
    assert once < twice


@given(DEVIATIONS, st.sampled_from(PLACEMENTS))
def test_checkpointing_is_never_faster(log_parameters: Numbers, shares: Shares) -> None:
    n = sum(shares)
    plain, again = step_seconds(
        log_parameters, SIZES, _of((f"dp{n}", shares), (f"dp{n}-gc", shares))
    )
    assert again > plain


@given(DEVIATIONS, st.sampled_from(["dp8", "dp8-z2", "dp8-z3-gc"]))
def test_a_larger_smallest_share_is_never_slower(log_parameters: Numbers, plan: str) -> None:
    found = step_seconds(log_parameters, SIZES, _of((plan, (4, 4)), (plan, (2, 6)), (plan, (1, 7))))
    assert (np.diff(found) >= -1e-12).all()


@given(DEVIATIONS)
def test_schedules_are_as_idle_as_their_bubbles(log_parameters: Numbers) -> None:
    logs = log_parameters.copy()
    logs[INDEX["pipeline_seconds_per_stage"]] = -60.0
    for name in ("intra_bytes_per_second", "inter_bytes_per_second"):
        logs[INDEX[name]] = 90.0
    gpipe, one, interleaved = step_seconds(
        logs,
        SIZES,
        _of(*((f"pp4.{name}-ga8", (4,)) for name in ("gpipe", "1f1b", "interleaved"))),
    )
    assert gpipe == one
    assert interleaved < one


@given(DEVIATIONS)
def test_more_stages_a_rank_hand_on_more_often(log_parameters: Numbers) -> None:
    # With nothing but handing on: two stages a rank do it twice.
    logs = log_parameters.copy()
    for name in NAMES:
        if "_seconds" in name:
            logs[INDEX[name]] = -60.0
        if "per_second" in name:
            logs[INDEX[name]] = 90.0
    logs[INDEX["pipeline_seconds_per_stage"]] = 0.0
    one, interleaved = step_seconds(
        logs, SIZES, _of(("pp2.1f1b-ga8", (2,)), ("pp2.interleaved-ga8", (2,)))
    )
    # A second each: (8 + 1) micro-batches once, (8 + 0.5) twice.
    assert one == pytest.approx(9)
    assert interleaved == pytest.approx(17)


@given(DEVIATIONS)
def test_what_is_exchanged_is_never_hidden_for_nothing(log_parameters: Numbers) -> None:
    # A tenth of the exchange costs a tenth of what all of it does, not less by a power.
    costs = []
    for faster in (0.0, np.log(10)):
        logs = log_parameters.copy()
        logs[INDEX["flops_per_second"]] = np.log(1e9)  # the backward pass is longer by far
        logs[INDEX["intra_bytes_per_second"]] += faster
        with_exchange = step_seconds(logs, SIZES, _of(("dp2", (2,))))
        logs[INDEX["intra_bytes_per_second"]] = 90.0
        costs.append(float((with_exchange - step_seconds(logs, SIZES, _of(("dp2", (2,)))))[0]))
    assert costs[0] > 0
    assert costs[1] == pytest.approx(costs[0] / 10, rel=1e-3)


@given(DEVIATIONS)
def test_each_micro_batch_passes_over_the_weights(log_parameters: Numbers) -> None:
    # The same samples in two micro-batches: weights and gradients are read and written once more.
    logs = log_parameters.copy()
    logs[INDEX["launch_seconds_per_block"]] = -60.0
    once, twice = step_seconds(logs, SIZES, _of(("dp1", (1,)), ("dp1-ga2", (1,))))
    memory = np.exp(logs[INDEX["optimizer_seconds_per_parameter"]]) / 28
    expected = np.exp(logs[INDEX["touched_bytes_per_parameter"]]) * memory * SIZES.parameters
    assert twice - once == pytest.approx(expected, rel=1e-6)


@given(DEVIATIONS)
def test_what_shards_costs_a_block_the_same_whatever_it_computes(log_parameters: Numbers) -> None:
    # Waiting for the host alone.
    logs = log_parameters.copy()
    for name in NAMES:
        if "_seconds" in name and name != "launch_seconds_per_block":
            logs[INDEX[name]] = -60.0
        if "per_second" in name:
            logs[INDEX[name]] = 90.0
    pairs = _of(("dp2", (2,)), ("dp2-z3", (2,)), samples=2)
    few, many = (
        step_seconds(logs, replace(SIZES, relative_launches=kernels), pairs)
        for kernels in (1.0, 3.0)
    )
    assert many[1] - many[0] == pytest.approx(few[1] - few[0])
    each = SIZES.layers * np.exp(logs[INDEX["launch_seconds_per_block"]])
    assert many[0] - few[0] == pytest.approx(2 * each)


def test_activations_take_more_of_a_narrow_model() -> None:
    # As much arithmetic in all; of half the width and four times the layers.
    wide = ModelSizes.of_numbers(336e6, 24, 1024, 512)
    narrow = ModelSizes.of_numbers(336e6, 96, 512, 512)
    logs = TYPICAL.copy()
    logs[INDEX["launch_seconds_per_block"]] = -60.0
    one, other = (step_seconds(logs, sizes, _of(("dp1", (1,))))[0] for sizes in (wide, narrow))
    logs[INDEX["activation_bytes_per_number"]] = -60.0
    bare = [step_seconds(logs, sizes, _of(("dp1", (1,))))[0] for sizes in (wide, narrow)]
    assert (other - bare[1]) / (one - bare[0]) == pytest.approx(2, rel=1e-6)


def test_a_bubble_is_one_micro_batch_for_each_further_rank() -> None:
    # With nothing but computing: (m + p - 1) / m of the work of a rank.
    logs = TYPICAL.copy()
    for name in NAMES:
        if "_seconds" in name or name in (
            "launch_seconds_per_block",
            "touched_bytes_per_parameter",
        ):
            logs[INDEX[name]] = -60.0
    for name in ("intra_bytes_per_second", "inter_bytes_per_second"):
        logs[INDEX[name]] = 90.0
    alone, pipeline = step_seconds(logs, SIZES, _of(("dp1-ga8", (1,)), ("pp4.1f1b-ga8", (4,))))
    assert pipeline / alone == pytest.approx((8 + 4 - 1) / 8 / 4)


def test_a_step_does_not_shrink_below_what_no_accelerator_shares() -> None:
    seconds = truth().seconds(_of(("dp1", (1,)), ("dp8", (8,)), ("dp64", (8,) * 8), samples=64))
    assert seconds[0] / seconds[1] < 8
    assert seconds[2] > 24 * truth().parameters()["launch_seconds_per_block"]


def test_many_at_once_are_as_one_by_one() -> None:
    model, columns = truth(), configurations()
    together = model.predict(columns)
    for index in range(len(columns)):
        one = model.predict(columns.take(np.array([index])))
        assert one.seconds[0] == pytest.approx(together.seconds[index])
        assert one.upper[0] == pytest.approx(together.upper[index])


def test_intervals_hold_their_median_and_widen_with_what_is_unknown() -> None:
    columns = configurations()
    known, unknown = truth().predict(columns), prior_for(SIZES, precision="fp32").predict(columns)
    for found in (known, unknown):
        assert (found.lower < found.seconds).all()
        assert (found.seconds < found.upper).all()
    assert (unknown.upper / unknown.lower > 2 * known.upper / known.lower).all()


def test_sizes_of_a_shape_count_the_work_of_its_steps() -> None:
    sizes = ModelSizes.of_shape(PRESETS["gpt2-1.26b"])
    assert sizes.layers == 24
    assert sizes.positions == 1024
    assert sizes.flops_per_position == pytest.approx(6 * PRESETS["gpt2-1.26b"].parameters)
    # The output head: 1920 x 50304 of 1.26e9 weights, and some attention beside them.
    assert sizes.head_fraction == pytest.approx(0.073, abs=0.005)


def test_sizes_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="layers: wanted more than 0, got 0"):
        ModelSizes.of_numbers(1e6, 0, 64, 64)
    with pytest.raises(ValueError, match="wanted bf16 or fp32, got 'fp8'"):
        ModelSizes.of_shape(PRESETS["gpt2-tiny"], precision="fp8")
