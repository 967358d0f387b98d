"""What is predicted of jobs, and what came true, becomes part of the state."""

import json
from dataclasses import replace

import pytest

from controlplane.domain.clock import SECOND, Instant, after, seconds
from controlplane.domain.codec import dump, load
from controlplane.domain.event import JobsForecast
from controlplane.domain.forecast import ForecastOutcome, Forecasts, JobForecast, Span
from controlplane.domain.ids import JobUid, SequenceNumber
from controlplane.domain.lifecycle import Stage
from controlplane.domain.reason import ReasonCode
from controlplane.engine import forecasts
from controlplane.engine.state import ClusterState
from tests.builders import World, a_cluster, a_job, a_node

HOUR = 3600 * SECOND


def span(at: Instant, low: float, high: float) -> Span:
    return Span(
        after(at, seconds(low)), after(at, seconds((low + high) / 2)), after(at, seconds(high))
    )


def predicted(
    world: World, name: str = "a", low: float = 0.0, high: float = 3600.0, *, generation: int = 1
) -> JobsForecast:
    """What would be said of a job now: that it ends in so many seconds."""
    uid, now = JobUid(name), world.now
    record = world.state.jobs.get(uid)
    started = record is not None and record.first_started_at is not None
    end = span(now, low, high)
    said = JobForecast(uid, generation, now, started, 0.9, end, played_end=end)
    return JobsForecast(Forecasts(SequenceNumber(1), now, 3, 0.1, (said,)))


def waiting(*names: str) -> World:
    world = a_cluster().with_node(a_node("n", 4))
    return world.submit(*(a_job(name).wanting(1) for name in names or ("a",)))


def only(world: World) -> ForecastOutcome:
    (outcome,) = world.state.forecast_outcomes
    return outcome


def test_the_first_after_submission_and_the_first_after_start_are_counted() -> None:
    world = waiting()
    world.tell(predicted(world, high=100)).passes(5)
    world.tell(predicted(world, high=200))
    world.settle()
    world.runs("a")
    world.tell(predicted(world, high=300)).passes(5)
    world.tell(predicted(world, high=400)).passes(50)
    known = world.state.forecasts[JobUid("a")]
    assert known.at_submission is not None
    assert known.at_start is not None
    widths = [
        round((each.end.high - each.made_at) / SECOND)
        for each in (known.at_submission, known.at_start, known.newest)
        if each.end is not None
    ]
    assert widths == [100, 300, 400]
    world.exits("a")
    at_submission, at_start = world.state.forecast_outcomes
    assert (at_submission.forecast, at_start.forecast) == (known.at_submission, known.at_start)
    assert at_submission.job == "default/a"
    assert at_submission.accelerator_type
    assert at_submission.ended_at == world.job("a").finished_at
    assert not at_submission.forecast.started
    assert at_start.forecast.started
    assert [each.is_counted for each in world.state.forecast_outcomes] == [True, True]
    assert not world.state.forecasts
    assert world.replayed() == world.state
    assert load(dump(world.state, ClusterState), ClusterState) == world.state


@pytest.mark.parametrize(
    ("low", "high", "inside"), [(0, 100, True), (40, 100, False), (0, 20, False)]
)
def test_it_came_true_where_the_end_lies_within(low: float, high: float, inside: bool) -> None:
    world = waiting().settle()
    world.runs("a")
    world.tell(predicted(world, low=low, high=high)).passes(30)
    world.exits("a")
    assert only(world).inside is inside


def test_one_that_comes_long_after_its_instant_is_shown_and_not_counted() -> None:
    world = waiting().settle()
    world.runs("a")
    world.passes(601)
    world.tell(predicted(world))
    assert JobUid("a") in world.state.forecasts
    world.exits("a")
    assert world.state.forecast_outcomes == ()


def test_one_that_comes_long_after_a_submission_is_not_counted_either() -> None:
    world = waiting().passes(601)
    world.tell(predicted(world)).passes(5)
    world.tell(predicted(world))
    known = world.state.forecasts[JobUid("a")]
    assert (known.at_submission, known.at_start) == (None, None)


def test_a_failure_is_kept_and_not_counted() -> None:
    world = a_cluster().with_node(a_node("n", 4)).submit(a_job("a").wanting(1).retrying(0))
    world.settle()
    world.runs("a")
    world.tell(predicted(world))
    world.fails("a").settle()
    assert world.stage("a") is Stage.FAILED
    assert only(world).stage is Stage.FAILED
    assert not only(world).is_counted


def test_what_somebody_changed_or_withdrew_makes_no_outcome() -> None:
    world = waiting("a", "b").settle()
    world.runs("a", "b")
    world.tell(predicted(world, "a"), predicted(world, "b"))
    world.update(a_job("a").wanting(1).training(0.5).generation(2)).withdraw("b")
    assert not world.state.forecasts
    world.tell(predicted(world, "a"), predicted(world, "b"))
    assert not world.state.forecasts, "the old generation and the withdrawn are not taken in"
    world.tell(predicted(world, "a", generation=2))
    assert set(world.state.forecasts) == {JobUid("a")}


def test_what_came_late_does_not_take_the_place_of_what_is_newer() -> None:
    world = waiting()
    older = predicted(world, high=10)
    world.passes(5)
    newer = predicted(world, high=20)
    world.tell(newer, older)
    assert world.state.forecasts[JobUid("a")].newest == newer.forecasts.jobs[0]


def test_only_so_many_outcomes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecasts, "OUTCOMES_KEPT", 2)
    names = ("a", "b", "c")
    world = waiting(*names).settle()
    world.runs(*names)
    for name in names:
        world.tell(predicted(world, name))
    for name in names:
        world.exits(name)
    assert [each.job for each in world.state.forecast_outcomes] == ["default/b", "default/c"]


def test_a_state_that_was_stored_before_there_were_forecasts_is_read() -> None:
    stored = json.loads(dump(waiting().state, ClusterState))
    for field in ("forecasts", "forecast_outcomes"):
        del stored[field]
    loaded = load(json.dumps(stored), ClusterState)
    assert loaded == replace(loaded, forecasts={}, forecast_outcomes=())
    assert JobUid("a") in loaded.jobs


def test_a_job_that_trains_on_past_its_promise_is_told_once_with_the_evidence() -> None:
    world = waiting("a", "b").settle()
    world.runs("a", "b")
    world.trains("a", 40, step_seconds=2.0).trains("b", 40, step_seconds=0.5)
    world.tell(predicted(world, "a", high=50), predicted(world, "b", high=500)).passes(60)
    (late,) = forecasts.overdue(world.state.forecasts, world.state.jobs, world.now)
    assert late.uid == "a"
    assert late.reason.code is ReasonCode.OVERDUE_FORECAST
    assert set(late.nodes) == world.nodes_of("a")
    for told in ("within 50 s (90%)", "10 s past that", "step 40 of 100", "a step takes 2 s"):
        assert told in late.reason.message
    assert "0.5 s in 1 jobs of its model and size" in late.reason.message
    world.tell(late)
    assert not list(forecasts.overdue(world.state.forecasts, world.state.jobs, world.now))
    assert world.replayed() == world.state


def test_without_a_calibration_or_before_it_trains_nobody_is_overdue() -> None:
    world = waiting("a").settle().submit(a_job("b").wanting(4)).settle()
    world.runs("a")
    said = predicted(world, "a", high=50).forecasts
    loose = replace(said.jobs[0], missing=3)
    world.tell(JobsForecast(replace(said, jobs=(loose,))), predicted(world, "b", high=50))
    world.passes(60)
    assert world.job("b").attempt is None
    assert not list(forecasts.overdue(world.state.forecasts, world.state.jobs, world.now))
