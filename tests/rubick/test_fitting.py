"""A fit finds what made its rows, is not led astray by one of them, and says how sure it is."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.rubick.fitting import fit
from controlplane.rubick.informative import most_informative
from controlplane.rubick.measurements import Measurement, columns
from controlplane.rubick.priors import prior_for, transferred
from controlplane.rubick.sizes import ModelSizes
from headrace.api.plan import ExecutionPlan
from headrace.api.profile_rows import Asked, Machine, PlanRow, Status
from tests.rubick.builders import SIZES, configurations, measured, truth

PRIOR = prior_for(SIZES, precision="fp32")
TRUTH = truth(
    flops_per_second=0.6,
    launch_seconds_per_block=1.5,
    intra_bytes_per_second=0.5,
    inter_bytes_per_second=2.0,
    pcie_bytes_per_second=0.7,
    cpu_optimizer_seconds_per_parameter=1.6,
)


def test_what_made_the_rows_is_found_again() -> None:
    found = fit(measured(TRUTH), PRIOR).model
    everywhere = configurations()
    assert found.seconds(everywhere) == pytest.approx(TRUTH.seconds(everywhere), rel=0.01)


def test_placements_that_were_left_out_are_predicted() -> None:
    seen = ((1,), (2,), (4,), (2, 2), (1, 1, 2), (2, 6))
    found = fit(measured(TRUTH, seen, scatter=0.02), PRIOR).model
    unseen = configurations(((8,), (4, 4), (8, 8)))
    errors = np.abs(found.seconds(unseen) / TRUTH.seconds(unseen) - 1)
    assert errors.mean() < 0.06
    assert errors.max() < 0.2


@pytest.mark.parametrize("factor", [1000.0, 0.001])
@pytest.mark.parametrize("index", [0, 20, 40])
def test_one_absurd_row_does_not_move_the_fit_and_is_named(index: int, factor: float) -> None:
    rows = measured(TRUTH, scatter=0.02)
    without = fit(rows[:index] + rows[index + 1 :], PRIOR).model
    absurd = replace(rows[index], seconds=rows[index].seconds * factor)
    found = fit([*rows[:index], absurd, *rows[index + 1 :]], PRIOR)
    everywhere = configurations()
    assert found.model.seconds(everywhere) == pytest.approx(without.seconds(everywhere), rel=0.03)
    (worst, *_) = found.outliers
    assert (worst.index, worst.row) == (index, absurd)
    assert worst.ratio == pytest.approx(factor, rel=0.15)


def test_sound_rows_are_not_called_outlying() -> None:
    assert fit(measured(TRUTH, scatter=0.03), PRIOR).outliers == ()


def test_no_rows_leave_the_prior() -> None:
    assert fit([], PRIOR).model == PRIOR


def test_each_row_narrows_what_is_said_about_it() -> None:
    rows = measured(TRUTH)[:6]
    widths = []
    for count in range(7):
        found = fit(rows[:count], PRIOR).model.predict(columns(rows[:1]))
        widths.append(float(np.log(found.upper[0] / found.lower[0])))
    assert widths[0] > 2 * widths[1]
    assert widths[0] > 2 * widths[6]


def test_one_row_already_tells_something_about_the_others() -> None:
    (row, *_) = measured(TRUTH, ((8,),))
    everywhere = configurations()
    errors = [
        np.abs(np.log(model.seconds(everywhere) / TRUTH.seconds(everywhere))).mean()
        for model in (PRIOR, fit([row], PRIOR).model)
    ]
    assert errors[1] < errors[0]


@pytest.mark.parametrize("scatter", [0.02, 0.1])
def test_intervals_hold_as_many_unseen_steps_as_they_say(scatter: float) -> None:
    seen = ((1,), (2,), (4,), (8,), (2, 2), (1, 1, 2), (2, 6))
    held, asked = 0, 0
    for seed in range(10):
        model = fit(measured(TRUTH, seen, scatter, seed), PRIOR).model
        rows = measured(TRUTH, ((4, 4), (8, 8), (1, 1)), scatter, seed + 100)
        times = model.predict(columns(rows))
        seconds = np.array([row.seconds for row in rows])
        held += int(((times.lower <= seconds) & (seconds <= times.upper)).sum())
        asked += len(rows)
    assert 0.82 < held / asked <= 1.0


def test_intervals_are_as_wide_as_rows_scatter() -> None:
    widths = []
    for scatter in (0.01, 0.2):
        times = fit(measured(TRUTH, scatter=scatter), PRIOR).model.predict(configurations())
        widths.append(float(np.log(times.upper / times.lower).mean()))
    assert widths[1] > 3 * widths[0]


def test_the_same_rows_give_the_same_fit() -> None:
    rows = measured(TRUTH, scatter=0.05)
    one, other = fit(rows, PRIOR).model, fit(rows, PRIOR).model
    assert one.log_parameters.tolist() == other.log_parameters.tolist()
    assert one.interval_factor == other.interval_factor


@settings(max_examples=4)
@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(chance: Random) -> None:
    rows = measured(TRUTH, scatter=0.05)
    mixed = list(rows)
    chance.shuffle(mixed)
    everywhere = configurations()
    one, other = fit(rows, PRIOR).model.seconds(everywhere), fit(mixed, PRIOR).model
    assert other.seconds(everywhere) == pytest.approx(one, rel=2e-3)


def test_an_earlier_fit_as_start_gives_what_a_new_one_does() -> None:
    rows = measured(TRUTH, scatter=0.05)
    earlier = fit(rows[:-10], PRIOR).model
    everywhere = configurations()
    warm, cold = fit(rows, PRIOR, earlier).model, fit(rows, PRIOR).model
    assert warm.seconds(everywhere) == pytest.approx(cold.seconds(everywhere), rel=5e-3)
    assert warm.rows == len(rows)


def test_a_row_that_is_there_several_times_counts_as_often() -> None:
    rows = measured(TRUTH, ((1,), (2,), (4,)))
    slower = replace(rows[0], seconds=rows[0].seconds * 1.05)
    once = fit([*rows, slower], PRIOR).model.seconds(columns(rows[:1]))
    often = fit([*rows, *[slower] * 5], PRIOR).model.seconds(columns(rows[:1]))
    assert rows[0].seconds < once < often


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_what_no_clock_shows_is_refused_with_its_row(seconds: float) -> None:
    rows = measured(TRUTH, ((1,),))
    bad = [rows[0], replace(rows[1], seconds=seconds)]
    with pytest.raises(ValueError, match=r"row 1 \(dp1-gc on 1\): wanted a finite time above 0"):
        fit(bad, PRIOR)


def test_a_model_on_the_same_accelerators_is_a_better_prior() -> None:
    # Twice as many layers of twice the width: all of its parameters are those of the other.
    larger = ModelSizes.of_numbers(2.4e9, 48, 2048, 512)
    same = replace(TRUTH, sizes=larger)
    everywhere = configurations()
    expected = same.seconds(everywhere)
    known = transferred(fit(measured(TRUTH), PRIOR).model, larger)
    fresh = prior_for(larger, precision="fp32")
    errors = [np.abs(np.log(m.seconds(everywhere) / expected)).mean() for m in (known, fresh)]
    assert errors[0] < 0.3 * errors[1]
    widths = [
        np.log(m.predict(everywhere).upper / m.predict(everywhere).lower).mean()
        for m in (known, fresh)
    ]
    assert widths[0] < widths[1]


def test_known_hardware_narrows_a_prior() -> None:
    columns_ = configurations()
    known = prior_for(SIZES, "NVIDIA H100 80GB HBM3").predict(columns_)
    unknown = prior_for(SIZES, "of tomorrow").predict(columns_)
    assert np.log(known.upper / known.lower).mean() < np.log(unknown.upper / unknown.lower).mean()


def test_a_coverage_that_is_no_probability_is_refused() -> None:
    with pytest.raises(ValueError, match="wanted a probability between 0 and 1, got 90"):
        prior_for(SIZES, coverage=90)


def test_the_most_informative_rows_teach_more_than_the_first() -> None:
    rows = measured(TRUTH)
    everywhere = columns(rows)
    chosen = most_informative(PRIOR, everywhere, 7)
    assert len(set(chosen)) == 7
    expected = TRUTH.seconds(everywhere)
    errors = [
        np.abs(fit(some, PRIOR).model.seconds(everywhere) / expected - 1).mean()
        for some in ([rows[i] for i in chosen], rows[:7])
    ]
    assert errors[0] < 0.5 * errors[1]


def test_of_few_candidates_all_are_chosen() -> None:
    few = configurations(((1,),))
    assert sorted(most_informative(PRIOR, few, 100)) == list(range(len(few)))


ASKED = Asked("gpt2-tiny", 4, 32, 64, "bf16")
MACHINE = Machine("NVIDIA H100 80GB HBM3", 16, "2", "12", "2", "1", "0")


def test_a_row_of_a_profile_becomes_a_measurement() -> None:
    row = PlanRow(
        ASKED, "dp4-z2", Status.MEASURED, placement="1+3", iteration=0.25, machine=MACHINE
    )
    expected = Measurement(ExecutionPlan(4, zero_stage=2), (1, 3), 32, 0.25, 16.0, 64)
    assert Measurement.of_row(row) == expected


def test_a_row_without_a_time_is_refused() -> None:
    with pytest.raises(ValueError, match="dp4: wanted a measured row, got one that is infeasible"):
        Measurement.of_row(PlanRow(ASKED, "dp4", Status.INFEASIBLE, placement="4"))


def test_a_row_without_a_placement_is_refused() -> None:
    row = PlanRow(ASKED, "dp4", Status.MEASURED, placement="", iteration=0.25)
    with pytest.raises(ValueError, match=r"wanted a placement such as 4\+4, got ''"):
        Measurement.of_row(row)
