"""An accelerator enters a new placement only after its release is known, or its node is fenced."""

import pytest

from controlplane.domain.action import StartAttempt, StopAttempt
from controlplane.domain.changing import changed
from controlplane.domain.event import (
    JobProgressed,
    JobSubmitted,
    NodeRegistered,
    NodeRemoved,
    RendezvousBound,
    UnitExited,
    UnitStarted,
)
from controlplane.domain.ids import Attempt, JobUid, NodeId
from controlplane.domain.job import Owner
from controlplane.domain.lifecycle import Stage
from controlplane.domain.reason import ReasonCode
from controlplane.domain.record import Intent, Outcome, Progress, RunningUnit, UnitExit
from controlplane.engine.hearsay import is_worth_storing
from controlplane.engine.invariants import violations
from tests.builders import POLICIES, World, a_cluster, a_job, a_node, a_unit, launches_for, started

EITHER_POLICY = pytest.mark.parametrize("policy", sorted(POLICIES))


def two_elastic_jobs() -> World:
    world = a_cluster().with_nodes(2, 2).submit(a_job("first").wanting(1, 4)).settle()
    return world.submit(a_job("second").wanting(1, 4))


def test_the_newcomer_waits_until_the_last_accelerator_is_released() -> None:
    world = two_elastic_jobs()
    world.cycle()
    assert world.attempt("first").intent is Intent.STOP
    assert world.code("second") is ReasonCode.WAITING_FOR_RELEASE
    assert "first" in world.why("second").holders
    world.exits("first", Outcome.STOPPED, units=[0])
    released_one = started(world.cycle().decided.actions)
    assert sum(released_one.values()) <= 1
    world.exits("first", Outcome.STOPPED)
    world.settle()
    assert (world.held("first"), world.held("second")) == (2, 2)


def test_a_stopped_gang_restarts_only_when_all_of_it_is_gone() -> None:
    world = two_elastic_jobs()
    world.cycle()
    world.exits("first", Outcome.STOPPED, units=[1, 2, 3])
    assert "first" not in started(world.cycle().decided.actions)
    world.exits("first", Outcome.STOPPED)
    assert started(world.cycle().decided.actions)["first"] == 2
    assert world.attempt("first").number == 2


@EITHER_POLICY
def test_what_runs_on_a_lost_node_is_fenced_and_moves(policy: str) -> None:
    world = a_cluster(policy).with_nodes(2, 2).submit(a_job().wanting(2).on_one_node())
    world.settle()
    (home,) = world.nodes_of("job")
    world.lose(home).cycle()
    assert world.stage("job") is Stage.BACKING_OFF
    assert world.code("job") is ReasonCode.NODE_LOST
    world.passes(6).settle()
    assert world.nodes_of("job") == {"n1", "n2"} - {home}
    assert world.job("job").failures == 0


@EITHER_POLICY
def test_units_that_come_back_with_a_lost_node_are_strays_and_hold_their_accelerators(
    policy: str,
) -> None:
    world = a_cluster(policy).with_nodes(1, 2).submit(a_job().wanting(2)).settle()
    alive = [a_unit(world, "job", 0), a_unit(world, "job", 1)]
    world.lose("n1").passes(6).register(a_node("n1", 2), *alive)
    assert not started(world.cycle().decided.actions)
    ends = launches_for(world.state, NodeId("n1"))
    assert [launch.intent for launch in ends] == [Intent.END, Intent.END]
    for unit in alive:
        gone = UnitExit(unit.unit, Outcome.LOST)
        world.tell(UnitExited(unit.uid, unit.attempt, gone, NodeId("n1")))
    assert started(world.cycle().decided.actions) == {"job": 2}
    assert world.attempt("job").number == 2


@EITHER_POLICY
def test_a_stray_of_an_unknown_job_is_kept_until_its_end_is_ordered(policy: str) -> None:
    ghost = RunningUnit(JobUid("ghost"), Attempt(3), 0, (a_node("n1", 1).accelerators[0].id,))
    world = a_cluster(policy).register(a_node("n1", 1), ghost).submit(a_job())
    world.cycle()
    assert world.stage("job") is Stage.QUEUED
    assert world.why("job").holders == ("ghost",)
    assert launches_for(world.state, NodeId("n1")) == ()
    world.withdraw("ghost")
    (end,) = launches_for(world.state, NodeId("n1"))
    assert (end.uid, end.attempt, end.intent) == ("ghost", 3, Intent.END)
    world.tell(UnitExited(ghost.uid, ghost.attempt, UnitExit(0, Outcome.LOST), NodeId("n1")))
    assert started(world.cycle().decided.actions) == {"job": 1}


def goes(world: World, stray: RunningUnit, node: str) -> World:
    exited = UnitExit(stray.unit, Outcome.LOST)
    return world.tell(UnitExited(stray.uid, stray.attempt, exited, NodeId(node)))


def test_a_job_that_is_submitted_to_a_restored_store_goes_on_above_the_attempts_agents_saw() -> (
    None
):
    ghost = RunningUnit(JobUid("job"), Attempt(7), 0, (a_node("n1", 2).accelerators[0].id,))
    world = a_cluster().register(a_node("n1", 2), ghost).submit(a_job())
    world.cycle()
    goes(world, ghost, "n1").cycle()
    assert world.attempt("job").number == 8


def restored(world: World, floor: int = 1000) -> World:
    world.state = world.state.with_attempts_above(Attempt(floor))
    return world


def test_a_restored_job_goes_on_above_the_attempts_of_the_lost_future() -> None:
    """And one of an operator, who brings the uid that it had there. Others count from 1."""
    world = restored(a_cluster().with_nodes(3, 1).submit(a_job("old")))
    for name, owner in (("operators", Owner.KUBERNETES), ("new", Owner.CONTROL_PLANE)):
        world.tell(JobSubmitted(changed(a_job(name).job, owner=owner)))
    restored(world).cycle()
    numbers = {name: world.attempt(name).number for name in ("old", "operators", "new")}
    assert numbers == {"old": 1001, "operators": 1001, "new": 1}


def test_a_finished_job_has_no_lost_future() -> None:
    world = a_cluster().with_nodes(1, 1).submit(a_job()).settle()
    world.exits("job", Outcome.SUCCEEDED).cycle()
    assert world.stage("job") is Stage.SUCCEEDED
    assert restored(world).job("job").attempt_floor == 0


def test_a_restored_job_that_never_started_may_have_checkpoints_to_purge() -> None:
    world = restored(a_cluster().submit(a_job()))
    world.withdraw("job", purge=True).cycle()
    assert world.state.purges[JobUid("job")].attempt == 1001


def test_a_known_job_learns_of_higher_attempts_than_the_store_remembers() -> None:
    world = a_cluster().submit(a_job())
    unit = RunningUnit(JobUid("job"), Attempt(4), 0, (a_node("n1", 2).accelerators[0].id,))
    world.register(a_node("n1", 2), unit)
    world.cycle()
    goes(world, unit, "n1").cycle()
    assert world.attempt("job").number == 5


@EITHER_POLICY
def test_no_attempt_begins_while_ranks_of_an_older_one_live_anywhere(policy: str) -> None:
    """Two attempts at once could write the same files, whatever accelerators are free."""
    world = a_cluster(policy).with_nodes(2, 1).submit(a_job()).settle()
    (home,) = world.nodes_of("job")
    old, elsewhere = a_unit(world, "job"), world.attempt("job").placement
    world.lose(home).passes(6).register(a_node(home, 1), old)
    assert not started(world.cycle().decided.actions)
    assert world.code("job") is ReasonCode.WAITING_FOR_RELEASE
    assert f"being ended on {home}" in world.why("job").message
    assert [launch.intent for launch in launches_for(world.state, NodeId(home))] == [Intent.END]
    order = StartAttempt(old.uid, Attempt(2), elsewhere, world.why("job"))
    broken = violations(world.state.snapshot(world.now), (order,))
    assert f"job would start while its attempt 1 is on {home}" in [each.text for each in broken]
    goes(world, old, home)
    assert started(world.cycle().decided.actions) == {"job": 1}


@EITHER_POLICY
def test_late_and_doubled_messages_of_an_older_attempt_change_nothing(policy: str) -> None:
    world = a_cluster(policy).with_nodes(1, 2).submit(a_job().wanting(2)).settle()
    world.fails("job").passes(6).settle()
    assert world.attempt("job").number == 2
    before = world.job("job")
    uid, first = JobUid("job"), Attempt(1)
    world.tell(
        UnitStarted(uid, first, 0),
        JobProgressed(uid, first, Progress(step=99, loss=0.1)),
        UnitExited(uid, first, UnitExit(0, Outcome.SUCCEEDED), NodeId("n1")),
        UnitExited(uid, first, UnitExit(1, Outcome.SUCCEEDED), NodeId("n1")),
    )
    assert world.job("job") == before


def test_what_a_node_tells_of_units_elsewhere_is_not_believed() -> None:
    world = a_cluster().with_nodes(2, 1).submit(a_job().wanting(2)).settle()
    before, attempt, uid = world.job("job"), world.attempt("job"), JobUid("job")
    first, second = (unit.node for unit in attempt.placement.units)
    assert first != second
    held = dict(world.state.holders)
    told = Progress(step=99, checkpoint_step=99, loss=0.1)
    world.tell(
        RendezvousBound(uid, attempt.number, "evil:1", node=second),
        UnitStarted(uid, attempt.number, 0, node=second),
        JobProgressed(uid, attempt.number, told, node=second),
        UnitExited(uid, attempt.number, UnitExit(1, Outcome.SUCCEEDED), first),
        UnitExited(uid, attempt.number, UnitExit(7, Outcome.SUCCEEDED), first),
        RendezvousBound(uid, attempt.number, "evil:1", node=NodeId("n9")),
    )
    assert world.job("job") == before
    assert world.state.holders == held


def test_a_node_that_was_out_of_touch_tells_what_was_trained_there() -> None:
    world = a_cluster().with_nodes(2, 1).submit(a_job().wanting(1)).settle()
    first, attempt, uid = world.attempt("job").placement.units[0].node, Attempt(1), JobUid("job")
    other = next(node for node in world.state.nodes if node != first)
    world.lose(first).cycle()
    world.passes(6).settle()
    assert world.attempt("job").number == 2
    told = JobProgressed(uid, attempt, Progress(step=9), ((9, 0.5),), node=first)
    assert is_worth_storing(world.state.jobs, told)
    assert not is_worth_storing(world.state.jobs, changed(told, node=other))
    assert not is_worth_storing(world.state.jobs, changed(told, attempt=Attempt(7)))


def test_reports_that_an_older_version_stored_without_their_node_still_count() -> None:
    world = a_cluster().with_nodes(1, 1).submit(a_job())
    world.cycle()
    uid, number = JobUid("job"), world.attempt("job").number
    world.tell(RendezvousBound(uid, number, "host:1"), UnitStarted(uid, number, 0))
    assert world.attempt("job").rendezvous == "host:1"
    assert world.attempt("job").units_up == {0}


def test_a_planned_stop_of_an_attempt_that_still_assembles_stays_a_stop() -> None:
    world = a_cluster().with_nodes(2, 1).submit(a_job("first").wanting(1, 2))
    world.cycle()
    attempt = world.attempt("first")
    home = attempt.placement.units[0].node
    world.tell(UnitStarted(JobUid("first"), attempt.number, 0, node=home))
    world.submit(a_job("second").wanting(1, 2)).cycle()
    assert world.attempt("first").intent is Intent.STOP
    wish = world.attempt("first").intent_reason
    world.exits("first", Outcome.NEVER_STARTED, units=[1])
    assert world.attempt("first").intent is Intent.STOP
    world.exits("first", Outcome.STOPPED, units=[0])
    assert (world.stage("first"), world.job("first").failures) == (Stage.QUEUED, 0)
    assert world.why("first") == wish


def test_a_doubled_exit_releases_once() -> None:
    world = a_cluster().with_nodes(1, 2).submit(a_job().wanting(2)).settle()
    world.exits("job", units=[0])
    before = world.state.jobs
    again = UnitExit(0, Outcome.FAILED)
    world.tell(UnitExited(JobUid("job"), Attempt(1), again, NodeId("n1")))
    assert world.state.jobs == before


def test_progress_that_comes_late_takes_no_step_back_but_a_new_attempt_may() -> None:
    world = a_cluster().with_nodes(1, 1).submit(a_job()).settle()
    world.trains("job", 40, checkpoint_step=30).trains("job", 10)
    assert world.job("job").progress.step == 40
    assert world.job("job").progress.checkpoint_step == 30
    world.fails("job").passes(6).cycle()
    world.all_up("job").trains("job", 31)
    assert world.job("job").progress.step == 31


def test_a_launch_stays_in_the_assignment_until_its_exit_is_folded() -> None:
    world = two_elastic_jobs()
    world.cycle()
    world.exits("first", Outcome.STOPPED, units=[0])
    left = [
        unit.index
        for node in ("n1", "n2")
        for launch in launches_for(world.state, NodeId(node))
        for unit in launch.units
    ]
    assert sorted(left) == [1, 2, 3]


@EITHER_POLICY
def test_a_drained_node_is_left_with_a_planned_stop(policy: str) -> None:
    world = a_cluster(policy).with_nodes(2, 2).submit(a_job().wanting(2).on_one_node()).settle()
    (home,) = world.nodes_of("job")
    world.drain(home)
    (stop,) = world.cycle().decided.actions
    assert isinstance(stop, StopAttempt)
    assert stop.reason.code is ReasonCode.MOVED_OFF_NODE
    world.stopped_ones_leave().settle()
    assert world.nodes_of("job") == {"n1", "n2"} - {home}
    assert world.job("job").failures == 0


@EITHER_POLICY
def test_a_job_on_the_only_node_waits_while_it_is_drained(policy: str) -> None:
    world = a_cluster(policy).with_nodes(1, 1).submit(a_job()).settle()
    world.drain("n1").settle()
    assert world.code("job") is ReasonCode.NO_MATCHING_ACCELERATOR
    world.drain("n1", drained=False).settle()
    assert world.stage("job") is Stage.RUNNING


@EITHER_POLICY
def test_nodes_not_heard_of_since_a_restart_keep_what_they_run(policy: str) -> None:
    world = a_cluster(policy).with_nodes(2, 1).submit(a_job("a"), a_job("b")).settle()
    world.state = world.state.after_restart()
    world.register(a_node("n1", 1), *[a_unit(world, n) for n in "ab" if "n1" in world.nodes_of(n)])
    assert world.cycle().decided.actions == ()
    assert {world.stage("a"), world.stage("b")} == {Stage.RUNNING}


def test_only_a_lost_node_can_be_removed_and_then_nothing_is_held_there() -> None:
    world = a_cluster().with_nodes(2, 1).submit(a_job().wanting(2)).settle()
    world.tell(NodeRemoved(NodeId("n1")))
    assert "n1" in world.state.nodes
    world.lose("n1").tell(NodeRemoved(NodeId("n1")))
    assert "n1" not in world.state.nodes
    assert "job" not in {launch.uid for launch in launches_for(world.state, NodeId("n1"))}
    world.exits("job", Outcome.LOST)
    world.cycle()
    assert world.state.snapshot(world.now).holders == {}


@pytest.mark.parametrize("running", [True, False])
def test_an_absurd_number_of_attempts_is_not_believed(running: bool) -> None:
    world = a_cluster().with_nodes(1, 1).submit(a_job())
    uid, most = JobUid("job"), Attempt(2**63 - 1)
    ghost = RunningUnit(uid, most, 0, ())
    node = a_node("n2", 0)
    world.tell(NodeRegistered(node, (ghost,) if running else (), ((uid, most),)))
    world.tell(UnitExited(uid, most, UnitExit(0, Outcome.LOST), node.id)).cycle()
    assert world.attempt("job").number == 1
