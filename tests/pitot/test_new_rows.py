"""Workloads and platforms that came after learning: wide bounds first, a few runs are enough."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.pitot.network import Embeddings, Tables, embedded
from controlplane.pitot.new_rows import (
    Newcomers,
    NewRow,
    NewRowMargins,
    Side,
    TooFewRowsError,
    calibrate_new_rows,
    joined,
)
from controlplane.pitot.run_times import RunTimes
from controlplane.pitot.side_information import Belief, SideInformation
from controlplane.pitot.training import Recipe, learn
from tests.pitot.worlds import PLATFORMS, WORKLOADS, World, a_world

NEW_WORKLOADS, NEW_PLATFORMS = range(20, WORKLOADS), range(12, PLATFORMS)


@dataclass(frozen=True)
class Met:
    """A world of which some rows were never learnt, and all it takes to meet them."""

    world: World
    at: Embeddings
    newcomers: dict[Side, Newcomers]
    margins: dict[Side, NewRowMargins]
    held_out: RunTimes

    def runs_of(self, side: Side, row: int) -> RunTimes:
        """With company and on platforms that are known."""
        runs = self.world.runs
        known = (runs.beside < NEW_WORKLOADS[0]).all(axis=1)
        if side == "workload":
            return runs.rows(known & (runs.workload == row) & (runs.platform < NEW_PLATFORMS[0]))
        return runs.rows(known & (runs.platform == row) & (runs.workload < NEW_WORKLOADS[0]))

    def begin(self, side: Side, row: int) -> NewRow:
        tables = self.world.tables
        features = tables.workloads if side == "workload" else tables.platforms
        return self.newcomers[side].begin(features[row])

    def rows(self) -> list[tuple[Side, int]]:
        return [("workload", row) for row in NEW_WORKLOADS] + [
            ("platform", row) for row in NEW_PLATFORMS
        ]


@pytest.fixture(scope="module")
def met() -> Met:
    made = a_world(8, runs=9000)
    # Their first trait, which makes the most difference, is not part of what is known of rows.
    tables = Tables(made.tables.workloads[:, 1:], made.tables.platforms[:, 1:])
    world = World(tables, made.runs)
    old = (world.runs.workload < NEW_WORKLOADS[0]) & (world.runs.platform < NEW_PLATFORMS[0])
    old &= (world.runs.beside < NEW_WORKLOADS[0]).all(axis=1)
    sound = world.runs.rows(old)
    half = len(sound) // 2
    model = learn(sound.rows(np.arange(half)), world.tables, recipe=Recipe(steps=600, rows=256))
    at, _ = embedded(model.shape, model.parameters, world.tables)
    held_out = sound.rows(np.arange(half, len(sound)))
    newcomers: dict[Side, Newcomers] = {
        "workload": Newcomers.of(
            at,
            "workload",
            world.tables.workloads,
            np.arange(NEW_WORKLOADS[0]),
            [f"suite {row // 2}" for row in range(WORKLOADS)],
        ),
        "platform": Newcomers.of(
            at,
            "platform",
            world.tables.platforms,
            np.arange(NEW_PLATFORMS[0]),
            [f"device {row // 2}" for row in range(PLATFORMS)],
        ),
    }
    margins = {side: calibrate_new_rows(at, each, held_out) for side, each in newcomers.items()}
    return Met(world, at, newcomers, margins, held_out)


def test_a_handful_of_runs_makes_a_new_row_known(met: Met) -> None:
    errors: dict[int, list[float]] = {0: [], 4: [], 16: []}
    widths: dict[int, list[float]] = {0: [], 4: [], 16: []}
    held: list[float] = []
    for side, index in met.rows():
        runs = met.runs_of(side, index)
        later = runs.rows(np.arange(16, len(runs)))
        for count, found in errors.items():
            row = met.begin(side, index).after(met.at, runs.rows(np.arange(count)))
            assert row.belief.runs == count
            lower, estimate, upper = met.margins[side].bounds(met.at, row, later, (0.2, 0.2))
            assert (lower > 0).all()
            assert (lower <= estimate).all()
            assert (estimate <= upper).all()
            assert np.isfinite(upper).all()
            found.append(float(np.mean(np.abs(np.log(estimate) - later.log_seconds))))
            widths[count].append(float(np.median(upper / lower)))
            held.append(float(np.mean(later.seconds <= upper)))
    # Wide before, and then ever less so, as the estimate gets better.
    assert np.mean(errors[16]) < 0.2 * np.mean(errors[0])
    assert np.mean(errors[16]) < 0.2
    assert np.mean(widths[0]) > np.mean(widths[4]) > np.mean(widths[16])
    assert np.mean(held) > 0.75  # promised are 0.8 over new rows, of which these are 8


def test_what_joined_the_table_is_predicted_as_it_was_told(met: Met) -> None:
    for side, index in (met.rows()[1], met.rows()[-1]):
        runs = met.runs_of(side, index)
        row = met.begin(side, index).after(met.at, runs.rows(np.arange(8)))
        more = joined(met.at, row)
        last = np.full(len(runs), (WORKLOADS if side == "workload" else PLATFORMS))
        workload = last if side == "workload" else runs.workload
        platform = last if side == "platform" else runs.platform
        found = more.log_seconds(workload, platform, runs.beside)[:, 0]
        assert found == pytest.approx(row.told(met.at, runs)[0], abs=1e-4)
        # Those that were there before are as they were, and may meet it.
        old = met.held_out
        before = met.at.log_seconds(old.workload, old.platform, old.beside)
        assert np.array_equal(more.log_seconds(old.workload, old.platform, old.beside), before)


def test_the_order_of_company_and_of_runs_means_nothing_to_a_new_row(met: Met) -> None:
    runs = met.runs_of("platform", 14)
    turned = RunTimes(runs.workload, runs.platform, runs.beside[:, ::-1], runs.seconds)
    first = met.begin("platform", 14).after(met.at, runs.rows(np.arange(9)))
    second = met.begin("platform", 14).after(met.at, turned.rows(np.arange(9)[::-1]))
    assert second.told(met.at, runs)[0] == pytest.approx(first.told(met.at, runs)[0], abs=1e-4)


def test_too_few_known_rows_for_such_coverage_are_counted(met: Met) -> None:
    runs = met.runs_of("platform", 12)
    with pytest.raises(TooFewRowsError, match=r"0\.95 .* takes 19 known platforms .* 7 more than"):
        met.margins["platform"].bounds(met.at, met.begin("platform", 12), runs, (0.05, 0.05))
    runs = met.runs_of("workload", 20)
    with pytest.raises(TooFewRowsError, match=r"takes 99 known workloads .* 79 more than the 20"):
        met.margins["workload"].bounds(met.at, met.begin("workload", 20), runs, (0.01, 0.01))
    with pytest.raises(ValueError, match="wanted rows of two groups or more"):
        SideInformation.of(np.eye(3), np.eye(3), ["one"] * 3, np.eye(3))


def test_calibration_weighs_each_known_row_alike(met: Met) -> None:
    for side, margins in met.margins.items():
        for key, pool in margins.pools.items():
            assert pool.weights.sum() == pytest.approx(margins.rows[key])
            assert margins.rows[key] <= len(met.newcomers[side].known)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), first=st.integers(0, 6), second=st.integers(0, 6))
def test_fitting_in_two_parts_is_fitting_at_once_and_never_less_sure(
    seed: int, first: int, second: int
) -> None:
    chance = np.random.default_rng(seed)
    size, runs = 5, first + second
    spread = chance.normal(size=(size, size))
    belief = Belief(chance.normal(size=size), spread @ spread.T)
    factors, logs = chance.normal(size=(runs, size)), chance.normal(size=runs)
    at_once = belief.after(factors, logs, 0.1)
    parts = belief.after(factors[:first], logs[:first], 0.1)
    parts = parts.after(factors[first:], logs[first:], 0.1)
    assert parts.runs == at_once.runs == runs
    assert parts.mean == pytest.approx(at_once.mean, rel=1e-5, abs=1e-5)
    asked = chance.normal(size=(20, size))
    before, after = belief.told(asked, 0.1)[1], at_once.told(asked, 0.1)[1]
    assert (after <= before + 1e-7).all()
    assert (after >= 0.1 - 1e-12).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_what_is_told_of_a_row_comes_from_other_groups_alone(seed: int) -> None:
    chance = np.random.default_rng(seed)
    known, states = chance.normal(size=(12, 3)), chance.normal(size=(12, 2))
    groups = [f"group {row // 3}" for row in range(12)]
    found = SideInformation.of(known, states, groups, np.eye(2))
    changed = states.copy()
    changed[3:6] += 100.0  # the second group learnt something else
    other = SideInformation(known, changed, found.without, found.width, found.ridge)
    others = np.r_[0:3, 6:12]
    alone = SideInformation(
        known[others], states[others], found.without[others], found.width, found.ridge
    )
    for row in range(3, 6):
        assert found.without[row] == pytest.approx(alone.begin(known[row]).mean, abs=1e-5)
        as_new = other.begin_as_new(row, groups)
        assert as_new.mean == pytest.approx(found.without[row])
        assert np.array_equal(as_new.covariance, found.begin_as_new(row, groups).covariance)
