"""Floors are what they say, on workloads whose best schedule is plain."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.domain.clock import Instant, seconds
from controlplane.rubick.policy import Rubick
from controlplane.rubick.settings import RubickSettings
from simulator.results.floors import floors_of
from simulator.run import simulate_to_the_end
from simulator.scenario import Arrival, Costs, Scenario
from tests.builders import a_node
from tests.rubick.worlds import Scaling, a_known_job


def scenario(*jobs: tuple[float, int], exponent: float = 1.0) -> Scenario:
    """Jobs (submission in seconds, steps of one second on one accelerator) on eight."""
    times = Scaling(exponent=exponent, layouts=((1,), (2,), (4,), (8,)))
    arrivals = tuple(
        Arrival(Instant(seconds(at)), a_known_job(f"j{i}", steps=steps).job, 1.0)
        for i, (at, steps) in enumerate(jobs)
    )
    return Scenario(1, (a_node("n", 8, "gpu"),), arrivals, times=times)


def test_one_job_takes_its_fastest_way() -> None:
    found = floors_of(scenario((5.0, 800)), 10.0)
    assert found.alone_mean_seconds == pytest.approx(110.0)
    assert found.jct_mean_seconds == pytest.approx(110.0)
    assert found.makespan_seconds == pytest.approx(110.0)


def test_two_equal_jobs_cannot_both_have_the_machine() -> None:
    found = floors_of(scenario((0.0, 800), (0.0, 800)), 0.0)
    assert found.squashed_mean_seconds == pytest.approx((100 + 200) / 2)
    assert found.jct_mean_seconds == pytest.approx(150.0)
    assert found.makespan_seconds == pytest.approx(200.0)


def test_a_shorter_job_interrupts_a_longer_one() -> None:
    found = floors_of(scenario((0.0, 800), (10.0, 80)), 0.0)
    assert found.squashed_mean_seconds == pytest.approx((110 + 10) / 2)


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 300), st.integers(10, 4000)), min_size=1, max_size=6),
    st.sampled_from([0.5, 0.8, 1.0]),
)
def test_no_run_is_below_the_floor(jobs: list[tuple[float, int]], exponent: float) -> None:
    played = scenario(*jobs, exponent=exponent)
    played = replace(played, costs=Costs.of_a_switch(5.0))
    policy = Rubick(lambda _: played.step_times, RubickSettings(switch_seconds=5.0))
    result = simulate_to_the_end(played, policy, name="rubick")
    found = floors_of(played, 5.0)
    taken = result.completion_seconds()
    assert len(taken) == len(jobs)
    # Step times of the scenario's jobs are exact; instants are whole nanoseconds.
    assert sum(taken) / len(taken) >= found.jct_mean_seconds - 1e-3
