"""A running job gets more ranks, or fewer, without a restart."""

from dataclasses import replace

import pytest

from controlplane.domain.action import ChangePlan, StopAttempt
from controlplane.domain.codec import dump, load
from controlplane.domain.event import (
    AcceleratorHealthChanged,
    PlanChanged,
    UnitExited,
    UnitStarted,
)
from controlplane.domain.ids import AcceleratorId, JobUid, NodeId
from controlplane.domain.lifecycle import Stage
from controlplane.domain.placement import LaunchUnit, Placement
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import Intent, Outcome, UnitExit
from controlplane.domain.suspicion import FIRST_SECONDS
from controlplane.domain.switch import SwitchKind
from controlplane.engine.assignment import launches_of
from controlplane.engine.invariants import violations
from controlplane.engine.resizing import suiting, units_for
from controlplane.engine.state import ClusterState
from headrace.api.plan import ExecutionPlan
from tests.builders import World, a_cluster, a_job, a_node

UID = JobUid("a")
ELASTIC = a_job("a").wanting(1, 4).with_batch(8)


def trains_on(count: int, nodes: int = 4) -> World:
    """A job that trains on so many of the cluster's accelerators; others have the rest."""
    world = a_cluster().with_nodes(nodes, 1)
    for other in range(nodes - count):
        world.submit(a_job(f"b{other}"))
    return world.submit(ELASTIC).settle().trains("a", 7)


def grows() -> World:
    """A job on two accelerators that was just asked to take a third and a fourth one too."""
    world = trains_on(2)
    world.exits("b0").exits("b1").cycle()
    return world


def shrinks() -> World:
    """A job on four accelerators that was just asked to leave two."""
    world = trains_on(4)
    world.submit(a_job("b0"), a_job("b1")).cycle()
    return world


def intents(world: World) -> dict[int, Intent]:
    return {
        unit.index: launch.intent
        for launches in launches_of(world.job("a")).values()
        for launch in launches
        for unit in launch.units
    }


def held_by_a(world: World) -> int:
    return sum(uid == UID for uid in world.state.holders.values())


def unit_ends(world: World, unit: int, outcome: Outcome, code: ReasonCode | None = None) -> World:
    attempt = world.attempt("a")
    known = attempt.unit(unit)
    assert known is not None
    why = Reason(code, f"said {code}") if code is not None else None
    return world.tell(UnitExited(UID, attempt.number, UnitExit(unit, outcome, 9, why), known.node))


def unit_starts(world: World, unit: int) -> World:
    known = world.attempt("a").unit(unit)
    assert known is not None
    return world.tell(UnitStarted(UID, world.attempt("a").number, unit, node=known.node))


# -- growing ----------------------------------------------------------------------------------


def test_new_units_are_started_while_the_others_train_on() -> None:
    world = grows()
    attempt = world.attempt("a")
    assert (attempt.number, attempt.intent, world.stage("a")) == (1, Intent.RUN, Stage.RUNNING)
    assert (str(attempt.plan_in_force), str(attempt.placement.plan)) == ("dp2", "dp4")
    told = [unit for part in launches_of(world.job("a")).values() for unit in part[0].units]
    assert [(u.index, u.first_rank, u.joins) for u in sorted(told, key=lambda u: u.index)] == [
        (0, 0, False),
        (1, 1, False),
        (2, 2, True),
        (3, 3, True),
    ]
    assert held_by_a(world) == 4
    assert world.attempt("a").is_up
    assert world.passes(30).trains("a", 8).cycle().changes_nothing


def test_once_told_all_of_them_train_and_the_price_is_known() -> None:
    world = grows()
    unit_starts(unit_starts(world, 2), 3).passes(5).takes_up("a", step=9)
    (switch,) = world.job("a").switches
    assert (switch.kind, switch.reason) == (SwitchKind.MEMORY, ReasonCode.GROWN_INTO_FREE)
    assert (switch.accelerators_before, switch.accelerators_after) == (2, 4)
    assert world.attempt("a").is_up
    assert not world.cycle().decided.actions
    assert world.replayed() == world.state
    assert load(dump(world.state, ClusterState), ClusterState) == world.state


def test_it_grows_only_into_what_others_have_left() -> None:
    world = trains_on(2)
    world.withdraw("b0").withdraw("b1").cycle()
    assert world.stage("b0") is Stage.STOPPING
    assert world.cycle().changes_nothing
    world.exits("b0")
    assert not any(isinstance(a, ChangePlan) for a in world.cycle().decided.actions)
    world.exits("b1")
    (order,) = (a for a in world.cycle().decided.actions if isinstance(a, ChangePlan))
    assert (order.plan.ranks, len(order.units)) == (4, 4)


def growths(world: World) -> list[ChangePlan]:
    """What the next cycle asks the job for."""
    return [action for action in world.cycle().decided.actions if isinstance(action, ChangePlan)]


def test_a_unit_that_cannot_join_costs_those_that_train_nothing() -> None:
    world = grows()
    unit_starts(world, 2)
    unit_ends(world, 3, Outcome.FAILED, ReasonCode.START_REFUSED)
    assert (world.attempt("a").intent, world.stage("a")) == (Intent.RUN, Stage.RUNNING)
    (order,) = growths(world)
    assert (str(order.plan), [unit.index for unit in order.units]) == ("dp2", [0, 1])
    assert order.reason.code is ReasonCode.PLAN_REFUSED
    assert "dp2 does not become dp4: unit 3 could not join: said" in order.reason.message
    # Unit 2 may have been taken in, for all that is known: that is for rank 0 to say.
    assert intents(world) == {0: Intent.RUN, 1: Intent.RUN, 2: Intent.STOP}
    assert (world.attempt("a").is_up, held_by_a(world)) == (True, 3)
    assert world.cycle().changes_nothing
    unit_ends(world, 2, Outcome.STOPPED)
    world.takes_up("a")
    assert (held_by_a(world), world.attempt("a").is_up) == (2, True)
    job = world.job("a")
    assert (job.attempts_made, job.failures, job.reconfigurations, job.switches) == (1, 0, 0, ())
    assert world.replayed() == world.state
    assert load(dump(world.state, ClusterState), ClusterState) == world.state


def test_it_does_not_grow_again_at_once_where_nobody_could_join_it_from() -> None:
    world = grows()
    failed = world.attempt("a").unit(3)
    assert failed is not None
    for times in (1, 2):
        unit_ends(world, max(u.index for u in world.attempt("a").units), Outcome.FAILED)
        world.settle()
        assert world.job("a").avoids(world.now) == {failed.node}
        assert growths(world.passes(FIRST_SECONDS * times - 60)) == []
        assert len(growths(world.passes(61))) == 1
    assert world.attempt("a").number == 1


def test_nor_onto_a_node_that_it_cannot_do_without() -> None:
    world = a_cluster().with_nodes(1, 4).submit(a_job("b"), a_job("c"), ELASTIC.wanting(1, 4))
    world.settle().trains("a", 7).exits("b").exits("c").cycle()
    assert len(world.attempt("a").joining) == 2
    unit_ends(world, 2, Outcome.FAILED, ReasonCode.START_REFUSED)
    world.settle()
    assert (world.attempt("a").placement.accelerator_count, world.attempt("a").number) == (2, 1)
    assert growths(world.passes(FIRST_SECONDS - 60)) == []
    # It is no reason to stay small when all ranks start together.
    world.fails("a").passes(30).settle()
    assert (world.attempt("a").placement.accelerator_count, world.attempt("a").number) == (4, 2)


def test_where_ranks_refuse_and_no_unit_has_failed_all_that_were_to_join_are_to_blame() -> None:
    world = grows()
    nodes = {unit.node for unit in world.attempt("a").placement.units if unit.index > 1}
    world.takes_up("a", refused="rank 2 cannot join: as played").settle()
    assert (world.attempt("a").number, str(world.attempt("a").placement.plan)) == (1, "dp2")
    assert world.job("a").avoids(world.now) == nodes


@pytest.mark.parametrize(
    ("answer", "seconds", "code"),
    [("no", 0, ReasonCode.PLAN_REFUSED), ("", 120, ReasonCode.PLAN_NOT_TAKEN_UP)],
)
def test_ranks_that_do_not_say_that_they_train_on_restart(
    answer: str, seconds: int, code: ReasonCode
) -> None:
    world = grows()
    unit_ends(world, 3, Outcome.FAILED)
    world.cycle()
    if answer:
        world.takes_up("a", refused=answer)
    else:
        assert world.passes(seconds - 1).cycle().changes_nothing
    (order,) = world.passes(1).cycle().decided.actions
    assert isinstance(order, StopAttempt)
    assert order.reason.code is code
    assert order.then is not None
    assert order.then.accelerator_count == 2


def test_who_had_been_taken_in_before_it_failed_is_told_as_the_cause() -> None:
    world = grows()
    unit_ends(world, 3, Outcome.FAILED, ReasonCode.RAY_LOST)
    world.cycle()
    for unit in (0, 1, 2):
        unit_ends(world, unit, Outcome.FAILED, ReasonCode.RANK_LOST)
    assert (world.stage("a"), world.why("a").code) == (Stage.BACKING_OFF, ReasonCode.RAY_LOST)
    assert held_by_a(world) == 0


def test_who_failed_after_it_was_taken_in_fails_the_attempt_though_that_is_told_later() -> None:
    world = grows()
    attempt = world.attempt("a")
    unit_ends(world, 3, Outcome.FAILED, ReasonCode.RAY_LOST)
    told = (str(attempt.plan_in_force), str(attempt.placement.plan))
    world.tell(PlanChanged(UID, attempt.number, *told, 9, 0.5, (), attempt.units[0].node))
    attempt = world.attempt("a")
    assert (str(attempt.plan_in_force), attempt.intent) == ("dp4", Intent.END)
    assert attempt.intent_reason is not None
    assert attempt.intent_reason.code is ReasonCode.RAY_LOST
    world.stopped_ones_leave()
    assert (world.stage("a"), world.why("a").code) == (Stage.BACKING_OFF, ReasonCode.RAY_LOST)


def test_a_newcomer_that_fails_while_all_stop_does_not_keep_them_from_saving() -> None:
    world = grows()
    world.update(ELASTIC.suspended()).cycle()
    unit_ends(world, 3, Outcome.FAILED, ReasonCode.RANK_FAILED)
    assert world.attempt("a").intent is Intent.STOP


def test_who_has_left_is_gone_before_others_are_asked_to_come() -> None:
    world = trains_on(4, nodes=6).submit(a_job("c0"), a_job("c1"))
    world.cycle()
    attempt = world.attempt("a")
    plans = (str(attempt.plan_in_force), str(attempt.placement.plan))
    node = attempt.placement.units[0].node
    world.tell(PlanChanged(UID, attempt.number, *plans, 9, 0.5, (), node))
    for unit in attempt.leaving:
        world.drain(unit.node)
    world.withdraw("c0").withdraw("c1").exits("b0").exits("b1").cycle()
    assert growths(world) == []
    unit_ends(world, 3, Outcome.LOST)
    assert growths(world) == []
    unit_ends(world, 2, Outcome.LOST)
    assert len(growths(world)) == 1


def test_a_lost_node_of_a_newcomer_leaves_the_others_training() -> None:
    world = grows()
    known = world.attempt("a").unit(3)
    assert known is not None
    world.lose(known.node)
    assert (world.attempt("a").intent, world.job("a").setbacks) == (Intent.RUN, 0)


def test_a_training_that_is_done_first_succeeds() -> None:
    world = grows()
    unit_starts(unit_starts(world, 2), 3)
    for unit in (2, 3):
        unit_ends(world, unit, Outcome.STOPPED)
    for unit in (0, 1):
        unit_ends(world, unit, Outcome.SUCCEEDED)
    assert world.stage("a") is Stage.SUCCEEDED


def test_a_stop_in_the_middle_stops_all_of_them() -> None:
    world = grows()
    world.update(ELASTIC.suspended()).cycle()
    assert set(intents(world).values()) == {Intent.STOP}
    world.stopped_ones_leave()
    assert world.stage("a") is Stage.SUSPENDED
    assert held_by_a(world) == 0


def test_who_does_not_come_within_its_time_costs_a_restart() -> None:
    world = grows()
    assert world.passes(719).cycle().changes_nothing
    (order,) = world.passes(1).cycle().decided.actions
    assert isinstance(order, StopAttempt)
    assert order.reason.code is ReasonCode.PLAN_NOT_TAKEN_UP


# -- shrinking --------------------------------------------------------------------------------


def test_those_that_leave_hold_what_they_have_until_they_are_gone() -> None:
    world = shrinks()
    attempt = world.attempt("a")
    assert (attempt.number, str(attempt.placement.plan), held_by_a(world)) == (1, "dp2", 4)
    assert set(intents(world).values()) == {Intent.RUN}
    assert world.cycle().changes_nothing
    unit_ends(world, 3, Outcome.STOPPED)
    unit_ends(world, 2, Outcome.STOPPED)
    assert held_by_a(world) == 2
    assert world.attempt("a").is_up
    assert {a.uid for a in world.cycle().decided.actions} == {"b0", "b1"}


def test_what_they_saved_is_not_taken_for_a_checkpoint() -> None:
    world = shrinks()
    unit_ends(world, 3, Outcome.STOPPED)
    assert world.job("a").progress.checkpoint_step == 0


def test_whoever_still_runs_once_it_is_over_is_ended() -> None:
    world = shrinks()
    attempt = world.attempt("a")
    unit_ends(world, 3, Outcome.STOPPED)
    told = (str(attempt.plan_in_force), str(attempt.placement.plan))
    node = attempt.placement.units[0].node
    world.tell(PlanChanged(UID, attempt.number, *told, 9, 0.5, (), node))
    assert intents(world) == {0: Intent.RUN, 1: Intent.RUN, 2: Intent.END}
    unit_ends(world, 2, Outcome.LOST)
    assert (world.stage("a"), held_by_a(world)) == (Stage.RUNNING, 2)
    (switch,) = world.job("a").switches
    assert (switch.accelerators_before, switch.accelerators_after) == (4, 2)


def test_one_that_fails_before_it_may_leave_fails_the_attempt() -> None:
    world = shrinks()
    unit_ends(world, 3, Outcome.FAILED, ReasonCode.RANK_FAILED)
    assert world.attempt("a").intent is Intent.END
    world.stopped_ones_leave()
    assert (world.stage("a"), world.job("a").failures) == (Stage.BACKING_OFF, 1)
    assert held_by_a(world) == 0


def test_a_refusal_is_a_restart_of_all_of_them() -> None:
    world = shrinks().takes_up("a", refused="as played")
    (order,) = world.cycle().decided.actions
    assert isinstance(order, StopAttempt)
    assert set(intents(world).values()) == {Intent.STOP}
    world.settle()
    assert (world.attempt("a").number, str(world.attempt("a").placement.plan)) == (2, "dp2")


def test_nobody_waits_for_ranks_that_have_not_trained() -> None:
    world = a_cluster().with_nodes(2, 1).submit(a_job("a").wanting(1, 2).with_batch(8))
    world.cycle()
    world.submit(a_job("b"))
    (order,) = world.cycle().decided.actions
    assert isinstance(order, StopAttempt)


def test_time_held_is_counted_for_each_unit_as_long_as_it_was_there() -> None:
    world = trains_on(4)
    world.passes(100).submit(a_job("b0"), a_job("b1")).cycle()
    world.takes_up("a")
    world.passes(50).exits("a")
    seconds = world.job("a").held_accelerator_ns / 1e9
    assert seconds == 4 * 100 + 2 * 50


# -- both -------------------------------------------------------------------------------------


def test_indices_are_never_used_again() -> None:
    world = shrinks().settle()
    for name in ("b0", "b1"):
        world.exits(name)
    world.settle()
    attempt = world.attempt("a")
    assert attempt.number == 1
    assert [unit.index for unit in attempt.placement.units] == [0, 1, 4, 5]
    assert [unit.first_rank for unit in attempt.placement.units] == [0, 1, 2, 3]
    assert len(world.job("a").switches) == 2
    assert world.replayed() == world.state


def test_a_failure_afterwards_is_one_like_any_other() -> None:
    world = shrinks().settle()
    world.fails("a").passes(60).settle()
    assert world.job("a").failures == 1
    assert [unit.index for unit in world.attempt("a").placement.units] == [0, 1]


def test_a_drained_node_of_the_last_rank_takes_no_restart() -> None:
    world = trains_on(4)
    last = world.attempt("a").placement.units[3].node
    world.drain(last).settle()
    assert (world.attempt("a").number, str(world.attempt("a").placement.plan)) == (1, "dp2")
    assert last not in world.nodes_of("a")


def test_a_drained_node_of_the_first_rank_does() -> None:
    world = trains_on(4)
    world.drain(world.attempt("a").placement.units[0].node).settle()
    assert world.attempt("a").number == 2


def placed(*places: tuple[str, int], plan: str = "dp2") -> Placement:
    units = (
        LaunchUnit(i, NodeId(node), (AcceleratorId(str(slot)),), i)
        for i, (node, slot) in enumerate(places)
    )
    return Placement(ExecutionPlan.parse(plan), tuple(units))


@pytest.mark.parametrize(
    ("target", "ranks"),
    [
        (placed(("n1", 0)), [0]),
        (placed(("n1", 1)), None),
        (placed(("n2", 7), ("n1", 1), ("n1", 0)), [0, 1, 2]),
        (placed(("n2", 7), ("n1", 0)), None),
        (placed(("n1", 0), ("n1", 1), ("n2", 0), ("n2", 1), plan="dp2-tp2"), [0, 1, 2, 3]),
        (placed(("n1", 0), ("n1", 1), ("n2", 0), ("n3", 1), plan="dp2-tp2"), None),
        (placed(("n5", 0), ("n6", 1)), None),
    ],
)
def test_who_stays_keeps_its_rank_or_all_restart(
    target: Placement, ranks: list[int] | None
) -> None:
    attempt = trains_on(2).attempt("a")
    here = placed(("n1", 0), ("n1", 1))
    units = units_for(replace(attempt, placement=here), target)
    assert (None if units is None else [unit.first_rank for unit in units]) == ranks


@pytest.mark.parametrize(
    ("index", "joins", "node", "sentence"),
    [
        (1, True, "n3", "unit 1 of attempt 1 is not a new one"),
        (2, False, "n3", "unit 2 of attempt 1 is not a new one"),
        (2, True, "n4", "is held by b1"),
        (2, True, "n9", "is unknown"),
    ],
)
def test_an_order_that_cannot_be_followed_is_not_carried_out(
    index: int, joins: bool, node: str, sentence: str
) -> None:
    world = a_cluster().with_node(*(a_node(f"n{i}", 1) for i in range(1, 5)))
    world.submit(ELASTIC.wanting(2, 2), a_job("b0"), a_job("b1")).settle().trains("a", 7)
    world.exits("b0")
    attempt = world.attempt("a")
    slot = world.attempt("b1").placement.units[0].accelerators
    free = next(n for n in world.state.nodes if (n, slot[0]) not in world.state.holders)
    there = {"n3": free, "n4": world.attempt("b1").placement.units[0].node}.get(node, NodeId(node))
    units = (*attempt.placement.units, LaunchUnit(index, NodeId(there), slot, 2, joins=joins))
    plan = ExecutionPlan.parse("dp3")
    order = ChangePlan(UID, attempt.number, plan, Reason(ReasonCode.PLAN_CHANGED), units)
    found = list(violations(world.state.snapshot(world.now), (order,)))
    assert any(sentence in each.text for each in found), found


def test_a_smaller_quota_is_reached_by_all_who_give_back_at_once() -> None:
    world = a_cluster().with_nodes(8, 1).with_queue("narrow", quota=8)
    for name in "ab":
        world.submit(a_job(name).wanting(1, 4).with_batch(8).in_queue("narrow"))
    world.settle().with_queue("narrow", quota=4)
    assert {type(action) for action in world.cycle().decided.actions} == {ChangePlan}
    world.settle()
    assert [world.attempt(name).placement.accelerator_count for name in "ab"] == [2, 2]


def test_ranks_that_lie_crosswise_restart_for_tensor_parallel_plans() -> None:
    crosswise = placed(("n1", 0), ("n2", 0), ("n1", 1), ("n2", 1), plan="dp4")
    plan = ExecutionPlan.parse("dp2-tp2")
    assert suiting(plan, crosswise.units) is None
    assert crosswise.anew == crosswise, "as it began"
    joined = replace(crosswise.units[3], index=7, joins=True)
    anew = Placement(plan, (*crosswise.units[:3], joined)).anew
    assert [unit.node for unit in anew.units] == ["n1", "n1", "n2", "n2"]
    assert [(unit.index, unit.first_rank, unit.joins) for unit in anew.units] == [
        (i, i, False) for i in range(4)
    ]
    assert suiting(plan, anew.units) == anew.units


def test_who_has_left_and_is_heard_of_again_is_not_up() -> None:
    world = shrinks()
    attempt = world.attempt("a")
    plans = (str(attempt.plan_in_force), str(attempt.placement.plan))
    first = attempt.placement.units[0].node
    world.tell(PlanChanged(UID, attempt.number, *plans, 9, 0.5, (), first))
    unit_starts(world, 3)
    unit_ends(world, 3, Outcome.STOPPED)
    unit_ends(world, 2, Outcome.STOPPED)
    assert world.attempt("a").units_up == {0, 1}


def test_an_unhealthy_accelerator_of_a_newcomer_ends_nobody() -> None:
    world = grows()
    unit = world.attempt("a").unit(3)
    assert unit is not None
    world.tell(AcceleratorHealthChanged(unit.node, unit.accelerators[0], "Xid 79"))
    world.cycle()
    assert world.attempt("a").intent is not Intent.END
