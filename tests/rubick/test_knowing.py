"""What measuring a way is worth: nothing where it changes no choice, else what a trial run says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.domain.model_type import type_named
from controlplane.domain.step_times import Way
from controlplane.rubick.fits import prior_of
from controlplane.rubick.knowing import Beliefs
from headrace.api.plan import ExecutionPlan

COUNTS = (1, 2, 4)


def beliefs(
    seconds: list[float], spreads: list[list[float]], noise: float = 0.0, counts: object = COUNTS
) -> Beliefs:
    """Ways of such medians on 1, 2, 4, ... accelerators, with these independent doubts."""
    sizes = list(counts)[: len(seconds)]  # type: ignore[call-overload]
    ways = tuple(
        Way(ExecutionPlan(count), (count,), taken, taken)
        for count, taken in zip(sizes, seconds, strict=True)
    )
    return Beliefs(
        ways, np.log(seconds), np.array(spreads), noise, 0, np.array(sizes, dtype=np.float64)
    )


def test_what_is_known_teaches_nothing() -> None:
    known = beliefs([1.0, 0.6], [[0.5, 0.0], [0.0, 0.0]], noise=0.1)
    assert known.saved_by_knowing(1, 0.1) == 0.0
    assert known.saved_by_knowing(0, 0.0) > 0.0


def test_what_is_uncertain_of_all_alike_changes_no_choice() -> None:
    alike = beliefs([1.0, 0.6, 0.5], [[0.8], [0.8], [0.8]])
    assert [alike.saved_by_knowing(place, 0.2) for place in range(3)] == pytest.approx([0, 0, 0])


def test_a_way_that_is_surely_slower_is_not_worth_measuring() -> None:
    slower = beliefs([1.0, 20.0], [[0.01, 0.0], [0.0, 0.3]])
    assert slower.saved_by_knowing(1, 0.0) == pytest.approx(0.0, abs=1e-9)


def test_more_doubt_about_a_rival_is_worth_more_and_noise_less() -> None:
    def worth(doubt: float, noise: float = 0.05) -> float:
        return beliefs([1.0, 1.1], [[0.0], [doubt]], noise).saved_by_knowing(1, 0.0)

    assert 0 < worth(0.1) < worth(0.3) < worth(0.6)
    assert worth(0.3, noise=0.5) < worth(0.3, noise=0.05)


def test_competition_counts_accelerators() -> None:
    # Four are a third faster; where many wait, one is the choice, and little can change that.
    known = beliefs([1.0, 0.8, 0.75], [[0.0], [0.0], [0.2]])
    assert known.saved_by_knowing(2, 0.0) > 0.02
    assert known.saved_by_knowing(2, 2.0) < 1e-3


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seconds=st.lists(st.floats(0.1, 2.0), min_size=3, max_size=3),
    spreads=st.lists(
        st.lists(st.floats(-0.5, 0.5), min_size=2, max_size=2), min_size=3, max_size=3
    ),
    competition=st.floats(0.0, 0.5),
)
def test_it_is_what_a_hundred_thousand_trial_runs_say(
    seconds: list[float], spreads: list[list[float]], competition: float
) -> None:
    noise, candidate = 0.1, 1
    known = beliefs(seconds, spreads, noise)
    random = np.random.default_rng(5)
    truths = np.log(seconds) + random.standard_normal((100_000, 2)) @ np.array(spreads).T
    told = truths[:, candidate] + noise * random.standard_normal(len(truths))
    own = np.array(spreads[candidate])
    weight = np.array(spreads) @ own / (own @ own + noise**2)
    after = np.log(seconds) + np.outer(told - np.log(seconds[candidate]), weight)
    harm = 1 + competition * np.array(COUNTS)
    chosen = np.argmin(after + np.log(harm), axis=1)
    before = int(np.argmin(np.log(seconds) + np.log(harm)))
    costs = harm * np.exp(truths)
    saved = costs[:, before] - costs[np.arange(len(costs)), chosen]
    error = 4 * float(saved.std()) / len(saved) ** 0.5
    allowed = error + 0.01 * float(costs[:, before].mean())
    assert known.saved_by_knowing(candidate, competition) == pytest.approx(
        max(0.0, float(saved.mean())), abs=allowed
    )


def test_the_way_that_is_held_comes_first_and_few_of_each_place_are_kept() -> None:
    named = type_named("gpt2-small fp32 batch 16x128")
    assert named is not None
    plans = [ExecutionPlan.parse(t) for t in ("dp2", "dp2-z2", "dp2-z3", "tp2", "dp2-gc", "dp2-z1")]
    held = (ExecutionPlan.parse("dp2-z3-gc-offload"), (2,))
    pairs = [(plan, (2,)) for plan in plans] + [(ExecutionPlan(1), (1,))]
    found = Beliefs.of(prior_of(named, "cpu", None), pairs, held, 16, 1.0)
    assert (found.ways[0].plan, found.ways[0].shares) == held
    assert [way.shares for way in found.ways[1:]].count((2,)) == 3
    assert ExecutionPlan(2) in {way.plan for way in found.ways}
    assert all(way.seconds < way.seconds_upper for way in found.ways)
    assert (found.expected_seconds > np.exp(found.logs)).all()
