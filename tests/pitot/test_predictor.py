"""A predictor is a value: asked by name, written and read back, and not lightly replaced."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.pitot.adopting import LEAST_RUNS, adopt, loaded, score
from controlplane.pitot.calibration import Calibration, TooFewRunsError
from controlplane.pitot.encoding import CorruptParametersError, decode, encode
from controlplane.pitot.predictor import Predictor, Question, UnknownNameError
from controlplane.pitot.run_times import NOBODY, RunTimes
from tests.pitot.worlds import PLATFORM_NAMES, WORKLOAD_NAMES, a_predictor

ENCODED = encode(a_predictor(1)[0])


def named(runs: RunTimes) -> Question:
    return Question(
        [WORKLOAD_NAMES[row] for row in runs.workload],
        [PLATFORM_NAMES[row] for row in runs.platform],
        [[WORKLOAD_NAMES[k] for k in row if k != NOBODY] for row in runs.beside],
    )


def test_names_are_answered_as_indices_are() -> None:
    predictor, runs = a_predictor(1)
    question = named(runs)
    workload, platform, beside = predictor.indices(question)
    assert np.array_equal(workload, runs.workload)
    assert np.array_equal(platform, runs.platform)
    assert np.array_equal(np.sort(beside), np.sort(runs.beside))
    again = predictor.observed(question, runs.seconds.tolist())
    assert np.array_equal(again.degree, runs.degree)
    alone = predictor.bounds(Question(question.workload, question.platform), (0.1, 0.1))
    assert alone.estimate == pytest.approx(predictor.alone(question), rel=1e-3)


def test_unknown_names_are_told_with_what_they_are_like() -> None:
    predictor, _ = a_predictor(1)
    asked = Question(["sort-3", "srot-4"], ["board-1", "moon"], [["sort-1"], ["sort-9x"]])
    with pytest.raises(UnknownNameError) as found:
        predictor.bounds(asked, (0.1, 0.1))
    told = str(found.value)
    assert "row 1: no workload 'srot-4' among the 24 that were learnt, did you mean" in told
    assert "row 1: no platform 'moon' among the 16 that were learnt;" in told
    assert "no co-runner 'sort-9x'" in told
    assert "side information" in told
    assert predictor.knows(asked).tolist() == [True, False]
    many = Question(["x"] * 9, ["board-1"] * 9)
    with pytest.raises(UnknownNameError, match=r"; and 6 more; "):
        predictor.indices(many)


def test_questions_that_do_not_fit_together_are_refused() -> None:
    predictor, _ = a_predictor(1)
    with pytest.raises(ValueError, match=r"wanted as many platforms .* found 2 and 1 for 1"):
        predictor.indices(Question(["sort-1"], ["board-1", "board-2"]))
    with pytest.raises(ValueError, match="wanted at most 3 co-runners of a run, found 4"):
        predictor.indices(Question(["sort-1"], ["board-1"], [["sort-2"] * 4]))


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000))
def test_what_was_written_is_read_back_to_the_last_digit(seed: int) -> None:
    predictor, runs = a_predictor(seed)
    data = encode(predictor)
    again = decode(data)
    assert encode(again) == data
    assert again.workloads == predictor.workloads
    assert again.calibration.upper_heads == predictor.calibration.upper_heads
    for name in ("lower", "estimate", "upper"):
        first, second = (each.bounds(named(runs), (0.05, 0.1)) for each in (predictor, again))
        assert np.array_equal(getattr(first, name), getattr(second, name))


@settings(max_examples=150, deadline=None)
@given(place=st.integers(0, len(ENCODED) - 1), bit=st.integers(0, 7))
def test_any_bit_that_changed_is_noticed(place: int, bit: int) -> None:
    changed = bytearray(ENCODED)
    changed[place] ^= 1 << bit
    with pytest.raises(CorruptParametersError, match=r"wanted .*found .*learn again"):
        decode(bytes(changed))


@settings(max_examples=60, deadline=None)
@given(length=st.integers(0, len(ENCODED) - 1))
def test_what_was_cut_off_is_noticed(length: int) -> None:
    with pytest.raises(CorruptParametersError, match=r"wanted .*found .*learn again"):
        decode(ENCODED[:length])


def test_what_cannot_be_used_is_refused_though_its_checksum_is_right() -> None:
    predictor, _ = a_predictor(1)
    broken = predictor.at.workload.copy()
    broken[3, 0, 1] = np.nan
    for wrong, sentence in (
        (replace(predictor, at=replace(predictor.at, workload=broken)), "wanted finite numbers"),
        (replace(predictor, workloads=predictor.workloads[:-1]), r"wanted workload of shape \(23"),
        (
            replace(
                predictor, calibration=replace(predictor.calibration, upper_heads={(1, 0.1): 7})
            ),
            "wanted heads 0 to 2, found 7",
        ),
    ):
        with pytest.raises(CorruptParametersError, match=sentence):
            decode(encode(wrong))
    newer = ENCODED[:5] + b"\x09" + ENCODED[6:]
    with pytest.raises(CorruptParametersError, match="version 1, found version 9; read them with"):
        decode(newer)


def test_the_last_good_parameters_stay_in_use() -> None:
    kept = decode(ENCODED)
    found = loaded(kept, ENCODED[:-9])
    assert found.predictor is kept
    assert not found.adopted
    assert "the last good ones stay in use" in found.why
    assert loaded(None, b"").why.endswith("nothing is predicted")
    assert loaded(None, ENCODED).adopted


def slower(predictor: Predictor, log_factor: float) -> Predictor:
    """The same, but for its estimates."""
    scale = predictor.at.workload_scale + np.float32(log_factor)
    return replace(predictor, at=replace(predictor.at, workload_scale=scale))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 100), log_factor=st.floats(-2.0, 2.0))
def test_a_fit_that_is_worse_is_never_adopted(seed: int, log_factor: float) -> None:
    kept, runs = a_predictor(seed)
    question, seconds = named(runs), runs.seconds.tolist()
    fresh = slower(kept, log_factor)
    found = adopt(kept, fresh, question, seconds)
    old, new = score(kept, question, seconds), score(fresh, question, seconds)
    assert found.adopted == (new.loss <= old.loss)
    assert found.predictor is (fresh if found.adopted else kept)
    assert f"loss {new.loss:.4g}" in found.why
    assert f"loss {old.loss:.4g}" in found.why


def test_a_fit_is_worse_when_off_by_much_and_when_its_bounds_are_too_wide() -> None:
    kept, runs = a_predictor(4)
    question, seconds = named(runs), runs.seconds.tolist()
    assert not adopt(kept, slower(kept, 3.0), question, seconds).adopted
    pools = {
        degree: replace(pool, residuals=pool.residuals * 4.0)
        for degree, pool in kept.calibration.pools.items()
    }
    wide = replace(kept, calibration=replace(kept.calibration, pools=pools))
    found = adopt(kept, wide, question, seconds)
    assert "it does worse" in found.why
    assert adopt(wide, kept, question, seconds).predictor is kept
    assert adopt(None, kept, question, seconds).why.startswith("adopted as the first")


def test_what_cannot_be_compared_is_not_adopted() -> None:
    kept, runs = a_predictor(4)
    few = runs.rows(np.arange(LEAST_RUNS - 1))
    found = adopt(kept, slower(kept, 0.0), named(few), few.seconds.tolist())
    assert found.predictor is kept
    assert "wanted 20 recent runs" in found.why
    assert "found 19 of 19" in found.why
    for wrong in (0.0, -1.0, float("inf"), float("nan")):
        measured = [*runs.seconds[:-1].tolist(), wrong]
        found = adopt(kept, kept, named(runs), measured)
        assert not found.adopted
        assert f"found {wrong:g} s in row 1199, and 1 such in all" in found.why
    strangers = Question(["who"] * 30, ["board-1"] * 30)
    assert "found 0 of 30" in adopt(kept, kept, strangers, [1.0] * 30).why
    empty = replace(kept, calibration=Calibration((0.1, 0.5, 0.9), {}, {}, {}))
    question, seconds = named(runs), runs.seconds.tolist()
    with pytest.raises(TooFewRunsError):
        score(empty, question, seconds)
    found = adopt(kept, empty, question, seconds)
    assert found.predictor is kept
    assert "observations to calibrate" in found.why
    assert adopt(empty, kept, question, seconds).adopted
