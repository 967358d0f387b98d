"""Jobs of a virtual cluster tell what their plans take, and what is learnt of that pays."""

from dataclasses import replace

import pytest

from benchmarks.cold_start import COSTS, TrueTimes, spec_for, truth, type_of, world
from controlplane.domain.reason import ReasonCode
from controlplane.rubick.fitted import FittedTimes
from controlplane.rubick.policy import Rubick
from headrace.api.plan import ExecutionPlan
from simulator.run import Result, simulate_to_the_end
from simulator.telling import learnt
from simulator.workloads.trace_jobs import TraceJob

MODEL = "llama30"
"""What the trace calls so trains a GPT-2 here, which differs from what was measured of another one.
"""

MODELS = {type_of(MODEL): truth(MODEL, 2)}


def played(tries: int, costs: str = "live", jobs: int = 3) -> Result:
    """Long jobs of one model come one after the other; nothing is known of it before."""
    arriving = [
        TraceJob(f"job-{i}", 1200.0 * i, MODEL, 8, ExecutionPlan(8), 1, 3600.0) for i in range(jobs)
    ]
    priced, settings = COSTS[costs]
    policy = Rubick(FittedTimes(), replace(settings, try_plans_at_most=tries))
    scenario = world(arriving, MODELS, 1, priced)
    return simulate_to_the_end(scenario, policy, name="rubick", learns=learnt)


def tries_in(result: Result) -> int:
    records = result.jobs.values()
    return sum(s.reason is ReasonCode.TRIES_PLAN for record in records for s in record.switches)


@pytest.fixture(scope="module")
def with_tries() -> Result:
    return played(4)


def test_trying_plans_ends_jobs_sooner_where_changes_are_cheap(with_tries: Result) -> None:
    without = played(0)
    assert (with_tries.refused, without.refused) == ((), ())
    assert tries_in(without) == 0 < tries_in(with_tries)
    saved = sum(without.completion_seconds()) - sum(with_tries.completion_seconds())
    assert saved > 300 * len(without.jobs)


def test_the_same_world_is_decided_alike_every_time(with_tries: Result) -> None:
    assert played(4).decisions_hash == with_tries.decisions_hash


def test_what_jobs_tell_is_what_their_steps_take_and_is_fitted_to(with_tries: Result) -> None:
    state = with_tries.state
    told = list(state.observations.values())
    assert len({each.row.plan for each in told}) > 1
    times = TrueTimes(MODELS)
    for each in told:
        shares = tuple(map(int, each.row.placement.split("+")))
        plan = ExecutionPlan.parse(each.row.plan)
        true = times.way(spec_for(MODEL, 20), "", plan, shares)
        assert true is not None
        assert each.row.iteration == pytest.approx(true.seconds, rel=0.05)
    (fit,) = state.fits.values()
    assert fit.model_type == type_of(MODEL)
    assert fit.rows == len(told)


def test_nothing_is_tried_where_a_change_costs_a_restart() -> None:
    assert tries_in(played(4, "restart", jobs=1)) == 0
