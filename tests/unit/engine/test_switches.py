"""A running job goes over to another plan where it is; what each switch cost."""

import pytest

from controlplane.domain.action import ChangePlan, StopAttempt
from controlplane.domain.codec import dump, load
from controlplane.domain.event import PlanChanged
from controlplane.domain.ids import Attempt, JobUid, NodeId
from controlplane.domain.lifecycle import Stage
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import Intent, Outcome, RunningUnit
from controlplane.domain.switch import SwitchKind
from controlplane.engine.assignment import launches_of
from controlplane.engine.hearsay import is_worth_storing
from controlplane.engine.invariants import violations
from controlplane.engine.state import ClusterState
from controlplane.wire.status import job_to_wire
from headrace.api.plan import ExecutionPlan
from tests.builders import World, a_cluster, a_job, a_node

JOB = a_job("a").wanting(2).with_batch(8).under("dp2")
OTHER = "pp2.1f1b-ga4"


def asked() -> World:
    """A job that trains as dp2 and has just been asked to go on as a pipeline."""
    world = a_cluster().with_nodes(2, 1).submit(JOB).settle().trains("a", 7)
    world.update(JOB.under(OTHER)).cycle()
    return world


def condition(world: World, kind: str) -> tuple[str, str]:
    told = job_to_wire(world.job("a"), world.now).status.conditions
    return next((each.status, each.reason) for each in told if each.type == kind)


def test_ranks_are_asked_and_nothing_else_about_the_attempt_changes() -> None:
    world = asked()
    attempt = world.attempt("a")
    assert (attempt.number, attempt.intent, world.stage("a")) == (1, Intent.RUN, Stage.RUNNING)
    told = [launch for part in launches_of(world.job("a")).values() for launch in part]
    assert {str(launch.plan) for launch in told} == {OTHER}
    assert condition(world, "Reconfiguring") == ("True", "SpecChanged")
    status = job_to_wire(world.job("a"), world.now).status
    assert (status.plan, status.plan_asked_for, status.reconfigurations) == ("dp2", OTHER, 0)
    assert world.passes(30).cycle().changes_nothing


def test_once_told_it_is_over_and_its_price_is_known() -> None:
    world = asked().passes(3).takes_up("a", step=9)
    (switch,) = world.job("a").switches
    assert (switch.kind, str(switch.before), str(switch.after)) == (SwitchKind.MEMORY, "dp2", OTHER)
    assert (switch.step, switch.stood_still_seconds) == (9, 0.5)
    assert switch.phases == (("parameters", 0.25), ("first_step", 0.5))
    assert switch.done_at - switch.ordered_at == 3_000_000_000
    assert condition(world, "Reconfiguring")[0] == "False"
    assert (world.job("a").reconfigurations, world.attempt("a").plan_change) == (1, None)
    (told,) = job_to_wire(world.job("a"), world.now).status.switches
    assert (told.kind, told.before, told.after, told.reason) == (
        "Memory",
        "dp2",
        OTHER,
        "SpecChanged",
    )
    assert [(phase.name, phase.seconds) for phase in told.phases] == list(switch.phases)


def test_told_twice_or_by_another_node_it_counts_once() -> None:
    world = asked().takes_up("a")
    told = world.log[-1].event
    assert isinstance(told, PlanChanged)
    world.tell(told)
    assert len(world.job("a").switches) == 1
    other = asked()
    elsewhere = PlanChanged(
        told.uid, told.attempt, "dp2", OTHER, 9, 0.5, (), NodeId("n2"), kind=told.kind
    )
    assert not is_worth_storing(other.state.jobs, elsewhere)
    assert other.tell(elsewhere).job("a").switches == ()
    earlier = PlanChanged(JobUid("a"), Attempt(9), "dp2", OTHER, 9, 0.5, (), NodeId("n1"))
    assert not is_worth_storing(other.state.jobs, earlier)


def test_the_state_is_the_same_from_the_log_and_from_a_checkpoint() -> None:
    for world in (asked(), asked().takes_up("a"), asked().takes_up("a", refused="no")):
        assert world.replayed() == world.state
        assert load(dump(world.state, ClusterState), ClusterState) == world.state


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        (
            "plan pp2.1f1b-ga4: 3 heads",
            ReasonCode.PLAN_REFUSED,
            "by a restart: the ranks refused it, plan pp2.1f1b-ga4: 3 heads",
        ),
        ("", ReasonCode.PLAN_NOT_TAKEN_UP, "by a restart: no answer from the ranks in 120 s"),
    ],
)
def test_what_ranks_do_not_take_up_comes_by_a_restart(
    answer: str, code: ReasonCode, says: str
) -> None:
    world = asked()
    if answer:
        world.takes_up("a", refused=answer)
    else:
        assert world.passes(119).cycle().changes_nothing
        world.passes(1)
    (order,) = world.cycle().decided.actions
    assert isinstance(order, StopAttempt)
    assert order.reason == Reason(code, f"dp2 -> {OTHER} {says}")
    world.settle()
    attempt = world.attempt("a")
    assert (attempt.number, str(attempt.placement.plan), attempt.plan_change) == (2, OTHER, None)
    (switch,) = world.job("a").switches
    assert (switch.kind, str(switch.before), str(switch.after)) == (
        SwitchKind.RESTART,
        "dp2",
        OTHER,
    )
    assert world.job("a").reconfigurations == 1


def test_slow_steps_get_more_time_to_answer() -> None:
    world = a_cluster().with_nodes(2, 1).submit(JOB).settle()
    world.trains("a", 7, step_seconds=30.0).update(JOB.under(OTHER)).cycle()
    assert world.passes(599).cycle().changes_nothing
    world.passes(1).cycle()
    assert world.stage("a") is Stage.STOPPING


def test_an_agent_that_comes_back_late_has_time_to_tell_what_the_ranks_answered_meanwhile() -> None:
    world = asked().passes(3600)
    attempt = world.attempt("a")
    for unit in attempt.placement.units:
        alive = RunningUnit(JobUid("a"), attempt.number, unit.index, unit.accelerators)
        world.register(world.state.nodes[unit.node].node, alive)
    assert world.replayed() == world.state
    assert world.passes(119).cycle().changes_nothing
    world.passes(1).cycle()
    assert world.stage("a") is Stage.STOPPING


def test_who_has_not_trained_yet_is_asked_when_it_does() -> None:
    world = a_cluster().with_nodes(2, 1).submit(JOB)
    world.cycle()
    world.update(JOB.under(OTHER))
    assert world.cycle().changes_nothing
    assert world.all_up("a").cycle().changes_nothing
    (order,) = world.trains("a").cycle().decided.actions
    assert isinstance(order, ChangePlan)


def test_one_change_at_a_time() -> None:
    world = asked().update(JOB.under("dp2-ga2"))
    assert world.cycle().changes_nothing
    (order,) = world.takes_up("a").cycle().decided.actions
    assert isinstance(order, ChangePlan)
    assert order.reason.message == f"{OTHER} -> dp2-ga2: its spec asks for another plan"


def test_a_rank_that_fails_on_the_way_is_a_failure_like_any_other() -> None:
    world = asked().fails("a", ReasonCode.OUT_OF_MEMORY)
    assert (world.stage("a"), world.job("a").failures) == (Stage.BACKING_OFF, 1)
    world.passes(30).settle()
    assert str(world.attempt("a").placement.plan) == OTHER
    assert world.job("a").switches == ()


def test_a_restart_is_told_with_where_its_time_went() -> None:
    world = a_cluster().with_node(a_node("n1", 4), a_node("n2", 2))
    world.submit(a_job("a").wanting(1, 4).with_batch(8)).settle().trains("a", 7)
    world.drain("n1").passes(10).trains("a", 8).cycle()
    world.passes(2).trains("a", 9)
    for unit in range(4):
        world.passes(3 if unit == 0 else 1).exits("a", Outcome.STOPPED, units=[unit])
    world.cycle()
    world.passes(5).all_up("a").passes(7).trains("a", 10)
    (switch,) = world.job("a").switches
    assert (switch.kind, switch.reason) == (SwitchKind.RESTART, ReasonCode.MOVED_OFF_NODE)
    assert (str(switch.before), str(switch.after), switch.step) == ("dp4", "dp2", 9)
    assert (switch.accelerators_before, switch.accelerators_after) == (4, 2)
    assert dict(switch.phases) == {"drain": 5, "leave": 3, "wait": 0, "start": 5, "load": 7}
    assert switch.stood_still_seconds == 18
    assert world.job("a").restart is None


def test_a_restart_that_failed_before_it_trained_is_no_switch() -> None:
    world = a_cluster().with_nodes(2, 2).submit(a_job("a").wanting(1, 2).with_batch(8)).settle()
    world.drain("n1").cycle()
    world.stopped_ones_leave().cycle()
    assert world.job("a").restart is not None
    world.fails("a").passes(30).settle()
    assert (world.job("a").restart, world.job("a").switches) == (None, ())


def test_only_so_many_are_remembered() -> None:
    world = a_cluster().with_nodes(2, 1).submit(JOB).settle()
    for turn in range(20):
        world.update(JOB.under("dp2" if turn % 2 else OTHER)).cycle()
        world.takes_up("a", step=turn)
    assert [switch.step for switch in world.job("a").switches] == list(range(4, 20))


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        ("dp2", "runs as dp2 already"),
        ("dp4", "does not occupy 2 accelerators"),
        ("tp2", "tensor-parallel ranks of tp2 would be on several nodes"),
        ("dp2-ga3", "batch 8 does not divide"),
        ("dp2-ga2", "none of its plans"),
    ],
)
def test_an_order_that_cannot_be_followed_is_not_carried_out(plan: str, sentence: str) -> None:
    world = a_cluster().with_nodes(2, 1).submit(JOB.under("dp2", "dp4", "tp2", "dp2-ga3")).settle()
    order = ChangePlan(
        JobUid("a"), Attempt(1), ExecutionPlan.parse(plan), Reason(ReasonCode.PLAN_CHANGED)
    )
    found = list(violations(world.state.snapshot(world.now), (order,)))
    assert any(sentence in each.text for each in found), found


def test_no_order_to_a_command_or_to_ranks_that_cannot_answer() -> None:
    def found(world: World, name: str, attempt: int = 1) -> str:
        plan = ExecutionPlan.parse(OTHER)
        order = ChangePlan(JobUid(name), Attempt(attempt), plan, Reason(ReasonCode.PLAN_CHANGED))
        broken = violations(world.state.snapshot(world.now), (order,))
        return "; ".join(each.text for each in broken)

    world = a_cluster().with_nodes(1, 4).submit(a_job("own").wanting(2).running_a_command())
    assert "has no attempt 2" in found(world.settle(), "own", attempt=2)
    assert "runs its own command" in found(world, "own")
    world.submit(JOB).cycle()
    assert "does not train with all its ranks" in found(world, "a")
    assert "has not answered yet" in found(asked(), "a")
    world.runs("a").update(JOB.suspended()).cycle()
    assert "is being stopped" in found(world, "a")
