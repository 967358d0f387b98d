"""What plans take, as running jobs told in passing, and how little of it is kept."""

from dataclasses import replace

import pytest

from controlplane.domain.clock import Instant
from controlplane.domain.codec import dump, load
from controlplane.domain.event import MeasurementsImported, PlanObserved
from controlplane.domain.ids import Attempt, JobUid, NodeId
from controlplane.domain.observation import Observation, subject
from controlplane.engine import observations
from controlplane.engine.hearsay import is_worth_storing
from controlplane.engine.state import ClusterState
from headrace.api.profile_rows import Asked, Machine, PlanRow, Status
from tests.builders import World, a_cluster, a_job

JOB = a_job("a").wanting(2, 4).with_batch(8).under("dp2", "dp4")
MACHINE = Machine("NVIDIA H200", 4, "2.11.0", "13.0", "2.29", "590.48", "0.1.0")
GPT2 = '{"spec": {"model": {"name": "gpt2", "preset": "small"}}}'


def said(step: int, plan: str = "dp2", iteration: float = 0.5, node: str = "n1") -> PlanObserved:
    ranks = int(plan[2])
    row = PlanRow(
        Asked("", ranks, 8, 64, "bf16"),
        plan,
        Status.MEASURED,
        steps=8,
        iteration=iteration,
        machine=MACHINE,
    )
    return PlanObserved(JobUid("a"), Attempt(1), step, row, NodeId(node))


def a_world() -> World:
    """A job of two ranks on two nodes that trains."""
    job = replace(JOB, job=replace(JOB.job, spec=replace(JOB.job.spec, manifest_json=GPT2)))
    world = a_cluster().with_nodes(2, 1).submit(job).settle()
    return world.trains("a", 10)


def kept(world: World) -> list[Observation]:
    return list(world.state.snapshot(world.now).observations.values())


def test_it_is_kept_with_the_models_name_and_where_it_was() -> None:
    world = a_world().passes(3).tell(said(10))
    (found,) = kept(world)
    assert (found.uid, found.attempt, found.step, found.at) == ("a", 1, 10, world.now)
    assert (found.row.asked.model, found.row.placement) == ("gpt2-small", "1+1")
    assert (found.row.plan, found.row.iteration, found.row.machine) == ("dp2", 0.5, MACHINE)
    assert world.replayed() == world.state
    assert load(dump(world.state, ClusterState), ClusterState) == world.state


def test_the_newest_about_a_plan_in_a_place_counts_and_outlives_the_job() -> None:
    world = a_world().tell(said(10), said(20, iteration=0.75)).withdraw("a").settle()
    assert JobUid("a") not in world.state.jobs
    assert [(each.step, each.row.iteration) for each in kept(world)] == [(20, 0.75)]


def test_told_twice_or_by_another_node_it_is_not_stored() -> None:
    world = a_world().tell(said(10))
    for report in (said(10), said(9), said(20, node="n2"), replace(said(20), attempt=Attempt(2))):
        assert not is_worth_storing(world.state.jobs, report), report
        assert kept(world.tell(report)) == kept(world)
    assert is_worth_storing(world.state.jobs, said(20))


def test_what_comes_late_after_a_change_of_size_is_not_placed() -> None:
    world = a_cluster().with_nodes(1, 4).submit(JOB.under("dp2")).settle().trains("a", 10)
    world.update(JOB.under("dp4")).cycle()
    world.tell(said(20))
    assert [(each.row.plan, each.row.placement) for each in kept(world)] == [("dp2", "2")]
    world.takes_up("a", step=21).tell(said(30, "dp2", iteration=9.0))
    assert [(each.row.plan, each.row.iteration) for each in kept(world)] == [("dp2", 0.5)]
    world.tell(said(40, "dp4"))
    assert [each.row.placement for each in kept(world)] == ["2", "4"]


def test_an_attempt_may_tell_only_so_much() -> None:
    world = a_world()
    for step in range(observations.MOST_OF_AN_ATTEMPT):
        assert is_worth_storing(world.state.jobs, said(step))
        world.tell(said(step))
    assert not is_worth_storing(world.state.jobs, said(1000))


def test_only_so_many_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observations, "OBSERVATIONS_KEPT", 2)
    world = a_world()
    for step, plan in ((1, "dp2"), (2, "dp2-z1"), (3, "dp2"), (4, "dp2-z3")):
        world.tell(said(step, plan))
    assert [each.row.plan for each in kept(world)] == ["dp2", "dp2-z3"]


def test_what_is_imported_is_kept_beside_what_jobs_told_with_who_and_when() -> None:
    asked = Asked("gpt2-tiny", 2, 8, 64, "fp32")
    machine = Machine("cpu", 1, "2.11.0", "", "", "", "0.1.0")
    row = PlanRow(asked, "dp2", Status.MEASURED, "2", steps=7, iteration=0.5, machine=machine)
    job_told = Observation(JobUid("a"), Attempt(1), 9, Instant(1), replace(row, iteration=0.25))
    there = {subject(row): job_told}
    for at, seconds in ((3, 0.75), (4, 0.5)):
        event = MeasurementsImported((replace(row, iteration=seconds),), "ann", Instant(at))
        observations.imported(there, event)
    newest = Observation(JobUid(""), Attempt(0), 7, Instant(4), row, "ann")
    assert list(there.values()) == [job_told, newest]


def test_an_import_survives_the_log_and_the_checkpoint() -> None:
    row = PlanRow(Asked("m", 1, 8, 64, "fp32"), "dp1", Status.MEASURED, "1", iteration=0.5)
    event = MeasurementsImported((row,), "ann")
    world = a_cluster().tell(event)
    (known,) = world.state.observations.values()
    assert (known.who, known.row) == ("ann", row)
    assert world.replayed() == world.state
    assert load(dump(world.state, ClusterState), ClusterState) == world.state
