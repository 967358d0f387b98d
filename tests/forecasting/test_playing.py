"""A cluster is played forward, and its jobs are told when they start and end."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from controlplane.baselines import BASELINES
from controlplane.domain.clock import SECOND, after, seconds
from controlplane.domain.codec import dump, load
from controlplane.domain.event import JobsForecast
from controlplane.domain.forecast import Forecasts, JobForecast
from controlplane.domain.ids import JobUid, SequenceNumber
from controlplane.edges.grpc_server.export import pieces
from controlplane.engine.state import ClusterState
from simulator.forecasting.answering import Asked, answered
from simulator.forecasting.playing import BudgetSpentError, play, quantile
from tests.builders import JobBuilder, World, a_cluster, a_job, a_node

MANIFEST = json.dumps({"spec": {"model": {"name": "gpt2", "preset": "small"}}})


def job(name: str, count: int, steps: int) -> JobBuilder:
    """A rigid one of a model that all train."""
    rigid = a_job(name).wanting(count).job
    return JobBuilder(replace(rigid, spec=replace(rigid.spec, steps=steps, manifest_json=MANIFEST)))


def cluster() -> World:
    """``runs`` has the node for 500 s more, ``waits`` comes next, and of ``command`` nobody knows
    an end.
    """
    world = a_cluster("fifo").with_node(a_node("n", 4, "nvidia-h100"))
    world.submit(job("runs", 4, 1000)).settle()
    world.trains("runs", 500, step_seconds=1.0, checkpoint_step=400)
    return world.submit(job("waits", 4, 100), a_job("command").wanting(4).running_a_command())


def said_of(world: World) -> dict[str, JobForecast]:
    found = play(world.state, world.now, BASELINES, plays=8)
    assert found.plays == 8
    return {said.uid: said for said in found.jobs}


def left(said: JobForecast, at: str = "end") -> tuple[float, float, float]:
    span = getattr(said, at)
    every = (span.low, span.median, span.high)
    return tuple((each - said.made_at) / SECOND for each in every)


def test_who_runs_ends_about_when_its_steps_are_done_and_who_waits_starts_then() -> None:
    said = said_of(cluster())
    assert said["runs"].started
    assert not said["waits"].started
    low, middle, high = left(said["runs"])
    assert low < middle < high
    assert middle == pytest.approx(500, rel=0.1)
    assert said["runs"].start is None
    assert left(said["waits"], "start")[1] == pytest.approx(500, rel=0.15)
    assert said["waits"].start.high < said["waits"].end.high  # type: ignore[union-attr]
    assert said["runs"].accelerator_type == "nvidia-h100"


def test_of_what_has_no_known_end_nothing_is_said() -> None:
    assert set(said_of(cluster())) == {"runs", "waits"}


def test_one_state_is_told_the_same_twice() -> None:
    world = cluster()
    assert said_of(world) == said_of(world)


def test_where_time_is_short_what_was_played_by_then_counts() -> None:
    world, looks = cluster(), iter([False] * 6 + [True] * 100)
    found = play(world.state, world.now, BASELINES, plays=50, spent=lambda: next(looks))
    assert 1 <= found.plays < 50
    with pytest.raises(BudgetSpentError, match="one play takes longer"):
        play(world.state, world.now, BASELINES, spent=lambda: True)


def test_a_policy_of_another_release_is_told() -> None:
    world = cluster()
    state = replace(world.state, settings=replace(world.state.settings, policy="clairvoyant"))
    with pytest.raises(ValueError, match="clairvoyant, which is none of these"):
        play(state, world.now, BASELINES)


def test_new_jobs_are_told_of_first_where_not_all_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulator.forecasting.answering.JOBS_TOLD", 1)
    world = cluster()
    asked = Asked(SequenceNumber(1), world.now, plays=2)
    first = answered(asked, world.state, BASELINES, lambda: 0.0)
    world.tell(JobsForecast(first))
    second = answered(asked, world.state, BASELINES, lambda: 0.0)
    assert [said.uid for said in (*first.jobs, *second.jobs)] == ["runs", "waits"]


@pytest.mark.parametrize(
    ("values", "share", "found"), [([3.0], 0.05, 3.0), ([0.0, 10.0], 0.25, 2.5), ([2, 1], 1.0, 2)]
)
def test_quantiles_are_between_neighbours(values: list[float], share: float, found: float) -> None:
    assert quantile(values, share) == found


def test_the_process_answers_about_exported_states_until_nothing_more_is_asked() -> None:
    world = cluster()
    stored = b"".join(pieces(world.state)).decode()
    asked = dump(Asked(SequenceNumber(7), world.now, plays=3), Asked)
    late = dump(Asked(SequenceNumber(8), after(world.now, seconds(60)), plays=3), Asked)
    lines = "\n".join([asked, stored, asked, '{"jobs": 3}', late, stored, ""])
    done = subprocess.run(
        [sys.executable, "-m", "simulator.forecasting"],
        input=lines,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    first, wrong, second = done.stdout.splitlines()
    told: Forecasts = load(first, Forecasts)
    assert (told.made_of, told.made_at, told.plays) == (7, world.now, 3)
    assert {said.uid for said in told.jobs} == {JobUid("runs"), JobUid("waits")}
    assert all(said.missing == 19 for said in told.jobs)
    assert "jobs" in json.loads(wrong)["error"]
    assert load(second, Forecasts).made_of == 8
    assert load(stored, ClusterState).jobs.keys() == world.state.jobs.keys()
