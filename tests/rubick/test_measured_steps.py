"""Steps of real clusters are predicted from placements that were measured (A800 tables)."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.rubick_accuracy import (
    placements_left_out,
    roberta_halves,
    rows_left_out,
    rows_of,
    seven_of_each,
)


@pytest.mark.parametrize(
    ("model", "within", "across"), [("bert", 0.045, 0.05), ("gpt2", 0.045, 0.03)]
)
def test_placements_that_the_fit_had_not_seen_are_predicted(
    model: str, within: float, across: float, rubick_data: Path
) -> None:
    found = list(placements_left_out("", model, rows_of(rubick_data, model), rubick_data))
    assert np.mean([p.error for p in found if not p.crosses]) < within
    assert np.mean([p.error for p in found if p.crosses]) < across
    assert np.mean([p.published_error for p in found if p.crosses]) > 2 * across
    assert np.mean([p.is_covered for p in found]) > 0.85


def test_doubtful_rows_are_those_of_half_a_batch(rubick_data: Path) -> None:
    found = list(roberta_halves(rubick_data))
    doubtful = [p for p in found if p.doubt]
    assert len(doubtful) == 3
    assert max(p.error for p in doubtful) < 0.15
    assert np.mean([p.error for p in found if not p.crosses]) < 0.045


def test_tensor_and_pipeline_parallelism_are_predicted(rubick_data: Path) -> None:
    found = list(rows_left_out(rubick_data, "t5"))
    assert len(found) == 20
    assert np.mean([p.error for p in found]) < 0.03


def test_our_own_tables_are_predicted_from_seven_rows() -> None:
    of_sizes, of_others = (found for _, found in seven_of_each())
    assert len(of_sizes) == len(of_others) > 70
    assert np.mean([p.error for p in of_sizes]) < 0.11
    assert np.mean([p.error for p in of_others]) < 0.10
    assert np.mean([p.is_covered for p in of_others]) > 0.85
