"""What people may ask of a job: withdraw, purge, suspend, update, and the limits in its spec."""

from dataclasses import replace

import pytest

from controlplane.domain.action import EndAttempt, FailJob, ForgetJob, StopAttempt
from controlplane.domain.clock import after, seconds
from controlplane.domain.event import JobSubmitted, JobUpdated, UnitExited
from controlplane.domain.ids import NodeId
from controlplane.domain.job import Owner
from controlplane.domain.launch import Launch
from controlplane.domain.lifecycle import Stage
from controlplane.domain.reason import ReasonCode
from controlplane.domain.record import Intent, Outcome, UnitExit
from controlplane.engine import duties
from controlplane.engine.duties import next_due
from controlplane.engine.remembered_uids import UIDS_REMEMBERED
from tests.builders import (
    POLICIES,
    JobBuilder,
    World,
    a_cluster,
    a_job,
    a_node,
    a_unit,
    launches_for,
    started,
)

EITHER_POLICY = pytest.mark.parametrize("policy", sorted(POLICIES))


def at_stage(stage: Stage) -> World:
    """A world whose only job stands at ``stage``."""
    world = a_cluster().with_nodes(1, 1).submit(a_job().retrying(0 if stage is Stage.FAILED else 3))
    if stage is Stage.QUEUED:
        return world
    if stage is Stage.SUSPENDED:
        return world.update(a_job().suspended())
    world.cycle()
    if stage is Stage.STARTING:
        return world
    world.runs("job")
    if stage is Stage.RUNNING:
        return world
    if stage is Stage.STOPPING:
        world.update(a_job().suspended()).cycle()
    elif stage is Stage.SUCCEEDED:
        world.exits("job")
    else:
        world.fails("job")
    assert world.stage("job") is stage
    return world


@pytest.mark.parametrize("stage", list(Stage))
def test_a_job_can_be_withdrawn_at_every_stage(stage: Stage) -> None:
    world = at_stage(stage).withdraw("job")
    world.cycle()
    world.stopped_ones_leave().cycle()
    assert world.state.jobs == {}
    assert world.state.snapshot(world.now).holders == {}
    assert world.replayed() == world.state


def the_purge(world: World, node: str) -> Launch:
    (purge,) = [launch for launch in launches_for(world.state, NodeId(node)) if launch.purge]
    return purge


def test_a_purge_is_ordered_from_a_node_until_it_reports_it_done() -> None:
    world = at_stage(Stage.RUNNING).withdraw("job", purge=True)
    world.cycle()
    world.exits("job", Outcome.LOST).cycle()
    purge = the_purge(world, "n1")
    late = UnitExited(
        purge.uid, world.state.attempts_seen[purge.uid], UnitExit(0, Outcome.LOST), NodeId("n1")
    )
    last_attempt = UnitExited(late.uid, type(late.attempt)(1), late.exit, late.node)
    world.tell(last_attempt)
    assert the_purge(world, "n1") == purge
    done = UnitExit(0, Outcome.NEVER_STARTED)
    world.tell(UnitExited(purge.uid, purge.attempt, done, NodeId("n1")))
    assert world.state.purges == {}


def test_a_purge_goes_to_another_node_when_its_node_is_lost_and_waits_if_there_is_none() -> None:
    world = at_stage(Stage.SUCCEEDED).with_node(a_node("n2", 1)).withdraw("job", purge=True)
    world.cycle()
    world.lose("n1")
    assert the_purge(world, "n2").uid == "job"
    world.lose("n2")
    assert [purge.node for purge in world.state.purges.values()] == [""]
    world.register(a_node("n1", 1))
    assert the_purge(world, "n1").uid == "job"


def test_a_job_that_comes_back_under_its_uid_keeps_its_checkpoints() -> None:
    world = at_stage(Stage.SUCCEEDED).withdraw("job", purge=True)
    world.cycle()
    assert the_purge(world, "n1").uid == "job"
    world.submit(a_job()).cycle()
    assert world.state.purges == {}
    (launch,) = launches_for(world.state, NodeId("n1"))
    assert (launch.intent, launch.purge) == (Intent.RUN, False)


def test_checkpoints_stay_unless_a_purge_was_asked_for() -> None:
    world = at_stage(Stage.SUCCEEDED).withdraw("job")
    world.cycle()
    assert world.state.purges == {}


def test_strays_of_a_job_that_was_forgotten_are_ended() -> None:
    world = at_stage(Stage.RUNNING)
    alive = a_unit(world, "job")
    world.lose("n1").withdraw("job").cycle()
    world.register(a_node("n1", 1), alive)
    (end,) = launches_for(world.state, NodeId("n1"))
    assert (end.uid, end.intent) == ("job", Intent.END)


def test_forgotten_uids_are_kept_in_mind_up_to_a_bound() -> None:
    world = a_cluster()
    for number in range(UIDS_REMEMBERED + 1):
        world.withdraw(f"ghost-{number}")
    assert len(world.state.unwanted) == UIDS_REMEMBERED
    assert "ghost-0" not in world.state.unwanted


def test_the_same_uid_submitted_after_it_was_forgotten_gets_higher_attempts() -> None:
    world = at_stage(Stage.SUCCEEDED).withdraw("job")
    world.cycle()
    world.submit(a_job()).cycle()
    assert world.attempt("job").number == 2


def test_a_submission_twice_changes_nothing() -> None:
    world = at_stage(Stage.RUNNING)
    before = world.state.jobs
    world.submit(a_job()).tell(JobUpdated(a_job().wanting(7).job))
    assert world.state.jobs == before


@EITHER_POLICY
def test_suspending_stops_at_a_checkpoint_and_resuming_starts_again(policy: str) -> None:
    world = a_cluster(policy).with_nodes(1, 1).submit(a_job()).settle()
    world.update(a_job().suspended())
    (stop,) = world.cycle().decided.actions
    assert isinstance(stop, StopAttempt)
    world.exits("job", Outcome.STOPPED).cycle()
    assert world.stage("job") is Stage.SUSPENDED
    assert world.code("job") is ReasonCode.SUSPENDED
    assert not world.passes(9).cycle().decided.reasons
    world.update(a_job()).settle()
    assert world.stage("job") is Stage.RUNNING
    assert world.job("job").reconfigurations == 0


@EITHER_POLICY
def test_what_a_suspended_job_leaves_goes_to_others(policy: str) -> None:
    world = a_cluster(policy).with_nodes(1, 1).submit(a_job("a"), a_job("b")).settle()
    world.update(a_job("a").suspended()).settle()
    assert world.stage("b") is Stage.RUNNING
    world.update(a_job("a")).settle()
    assert (world.stage("a"), world.stage("b")) == (Stage.QUEUED, Stage.RUNNING)


@EITHER_POLICY
def test_a_change_of_what_is_trained_restarts_the_job(policy: str) -> None:
    world = a_cluster(policy).with_nodes(1, 1).submit(a_job().training(0.1)).settle()
    world.update(a_job().training(0.2))
    (stop,) = world.cycle().decided.actions
    assert isinstance(stop, StopAttempt)
    assert stop == StopAttempt(stop.uid, world.attempt("job").number, stop.reason)
    assert world.code("job") is ReasonCode.SPEC_CHANGED
    (launch,) = launches_for(world.state, NodeId("n1"))
    assert "0.1" in launch.manifest_json, "an attempt keeps the manifest that it began with"
    world.stopped_ones_leave().settle()
    (launch,) = launches_for(world.state, NodeId("n1"))
    assert ("0.2" in launch.manifest_json, launch.generation) == (True, 2)


@EITHER_POLICY
def test_a_change_of_anything_else_does_not(policy: str) -> None:
    world = a_cluster(policy).with_nodes(1, 1).submit(a_job().training(0.1)).settle()
    world.update(a_job().training(0.1).with_priority(3).within(deadline=999))
    assert world.cycle().decided.actions == ()
    assert world.attempt("job").generation == 2


@EITHER_POLICY
def test_a_running_job_moves_when_its_new_spec_does_not_allow_where_it_is(policy: str) -> None:
    world = a_cluster(policy).with_node(a_node("n1", 1, "old"), a_node("n2", 1, "new"))
    world.submit(a_job()).settle()
    (home,) = world.nodes_of("job")
    other = {"n1": "new", "n2": "old"}[home]
    world.update(a_job().of_type(other)).settle()
    assert world.nodes_of("job") == {"n1", "n2"} - {home}


def test_an_update_gives_a_failing_job_a_new_chance_at_once() -> None:
    world = at_stage(Stage.BACKING_OFF).update(a_job().training(0.5))
    assert started(world.cycle().decided.actions) == {"job": 1}
    assert world.job("job").failures == 0


def test_a_finished_job_takes_a_new_time_to_live_but_does_not_run_again() -> None:
    world = at_stage(Stage.SUCCEEDED).update(a_job().within(ttl=60))
    assert world.cycle().decided.actions == ()
    world.passes(60)
    (forget,) = world.cycle().decided.actions
    assert isinstance(forget, ForgetJob)
    assert forget.reason is not None
    assert forget.reason.code is ReasonCode.SUCCEEDED
    assert forget.cause is not None
    assert forget.cause.code is ReasonCode.TIME_TO_LIVE_OVER


@pytest.mark.parametrize("stage", [Stage.QUEUED, Stage.RUNNING, Stage.STOPPING])
def test_a_deadline_ends_the_job_wherever_it_stands(stage: Stage) -> None:
    world = at_stage(stage).update(a_job().within(deadline=100))
    world.passes(100).cycle()
    world.stopped_ones_leave()
    assert world.stage("job") is Stage.FAILED
    assert world.code("job") is ReasonCode.DEADLINE_EXCEEDED


def test_the_maximum_run_time_counts_over_all_attempts() -> None:
    world = a_cluster().with_nodes(1, 1).submit(a_job().within(run=100)).settle()
    world.passes(60).fails("job").passes(600).settle()
    world.passes(39)
    assert world.cycle().decided.actions == ()
    (end,) = world.passes(1).cycle().decided.actions
    assert isinstance(end, EndAttempt)
    world.exits("job", Outcome.LOST)
    assert world.code("job") is ReasonCode.MAX_RUN_TIME_EXCEEDED


def test_a_job_without_run_time_left_is_not_started_again() -> None:
    world = a_cluster().with_nodes(1, 1).submit(a_job().within(run=100)).settle()
    world.passes(99).drain("n1").cycle()
    world.passes(5).exits("job", Outcome.STOPPED).drain("n1", drained=False)
    (fail,) = world.cycle().decided.actions
    assert isinstance(fail, FailJob)
    assert world.code("job") is ReasonCode.MAX_RUN_TIME_EXCEEDED


def test_a_job_whose_time_to_live_is_over_is_forgotten_with_its_checkpoints_kept() -> None:
    world = a_cluster().with_nodes(1, 1).submit(a_job().within(ttl=10)).settle()
    world.exits("job").passes(9)
    assert world.cycle().decided.actions == ()
    world.passes(1).cycle()
    assert world.state.jobs == {}
    assert world.state.purges == {}


def forgotten(world: World) -> list[str]:
    """The jobs that the next cycle forgets, in its order."""
    return [a.uid for a in world.cycle().decided.actions if isinstance(a, ForgetJob)]


def a_world_of_finished(*names: str, **settings: float) -> World:
    """One after the other, a second each."""
    world = a_cluster().with_nodes(1, 1).with_settings(**settings)
    for name in names:
        world.submit(a_job(name)).settle()
        world.passes(1).exits(name)
    return world


def test_the_jobs_that_finished_first_make_room_for_those_that_finished_later() -> None:
    world = a_world_of_finished("c", "a", "b", finished_jobs_kept=2).submit(a_job("next"))
    assert forgotten(world) == ["c"]
    assert forgotten(world) == []
    world.runs("next").exits("next")
    assert forgotten(world) == ["a"]
    assert list(world.state.jobs) == ["b", "next"]
    assert world.state.purges == {}
    assert world.replayed() == world.state


def test_a_finished_job_is_remembered_for_a_time_unless_its_manifest_says_how_long() -> None:
    world = a_world_of_finished("a", finished_kept_seconds=100)
    world.submit(a_job("longer").within(ttl=300)).settle()
    world.exits("longer")
    assert next_due(world.state, world.now) == after(world.now, seconds(100))
    assert forgotten(world.passes(99)) == []
    assert forgotten(world.passes(1)) == ["a"]
    assert forgotten(world.passes(199)) == []
    assert forgotten(world.passes(1)) == ["longer"]


def test_a_finished_object_of_kubernetes_is_forgotten_only_when_its_owner_says_so() -> None:
    world = a_world_of_finished("b", finished_jobs_kept=0, finished_kept_seconds=10)
    theirs = JobBuilder(replace(a_job("a").within(ttl=5).job, owner=Owner.KUBERNETES))
    world.submit(theirs).settle().exits("a").passes(1000)
    assert forgotten(world) == []
    assert list(world.state.jobs) == ["a"]
    world.withdraw("a")
    assert forgotten(world) == ["a"]


def test_a_store_in_which_all_were_kept_is_brought_down_in_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(duties, "FORGOTTEN_AT_ONCE", 2)
    world = a_world_of_finished(*"abcd").with_settings(finished_jobs_kept=1)
    assert forgotten(world) == ["a", "b"]
    assert forgotten(world) == ["c"]
    assert forgotten(world) == []


def test_a_late_submission_of_a_withdrawn_job_does_not_bring_it_back() -> None:
    world = at_stage(Stage.RUNNING).withdraw("job")
    world.tell(JobSubmitted(a_job().generation(2).job)).cycle()
    assert world.job("job").withdrawn
