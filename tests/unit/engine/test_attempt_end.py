"""How attempts end: whose fault it was, what it costs, and when the job is tried again."""

import pytest

from controlplane.domain.clock import seconds
from controlplane.domain.event import AcceleratorHealthChanged, NodeLost, UnitExited
from controlplane.domain.ids import JobUid, NodeId
from controlplane.domain.lifecycle import Stage
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import Intent, Outcome, UnitExit
from tests.builders import POLICIES, World, a_cluster, a_job, started

EITHER_POLICY = pytest.mark.parametrize("policy", sorted(POLICIES))


def a_running_pair() -> World:
    return a_cluster().with_nodes(2, 1).submit(a_job().wanting(2).retrying(2, 5, 8)).settle()


def test_one_failed_rank_ends_the_gang() -> None:
    world = a_running_pair()
    world.exits("job", Outcome.FAILED, reason=ReasonCode.RANK_HUNG, units=[1])
    assert world.attempt("job").intent is Intent.END
    assert world.stage("job") is Stage.RUNNING
    world.exits("job", Outcome.LOST)
    assert world.stage("job") is Stage.BACKING_OFF
    assert world.why("job").message == "said RankHung"


def test_what_became_of_a_rank_explains_more_than_that_contact_with_it_was_lost() -> None:
    world = a_running_pair()
    world.exits("job", Outcome.FAILED, reason=ReasonCode.RANK_LOST, units=[0])
    world.exits("job", Outcome.FAILED, reason=ReasonCode.RANK_FAILED, units=[1])
    assert (world.code("job"), world.why("job").message) == (
        ReasonCode.RANK_LOST,
        "said RankFailed",
    )


def test_back_off_doubles_up_to_its_limit_and_then_the_job_fails_with_the_last_lines() -> None:
    world = a_running_pair()
    waits = []
    for _ in range(2):
        world.fails("job")
        waits.append((world.job("job").backoff_until - world.now) / seconds(1))
        assert not started(world.passes(waits[-1] - 1).cycle().decided.actions)
        world.passes(1).settle()
    assert waits == [5, 8]
    world.fails("job")
    assert world.stage("job") is Stage.FAILED
    assert world.code("job") is ReasonCode.RETRIES_EXHAUSTED
    assert "said RankFailed" in world.why("job").message
    assert world.job("job").failures == 3


NOT_ITS_FAULT = pytest.mark.parametrize(
    "code", [ReasonCode.NODE_LOST, ReasonCode.RAY_LOST, ReasonCode.FENCED]
)


@NOT_ITS_FAULT
def test_what_is_not_its_fault_costs_no_retry_but_backs_off(code: ReasonCode) -> None:
    world = a_running_pair()
    for _ in range(4):
        world.fails("job", code)
        assert world.stage("job") is Stage.BACKING_OFF
        world.passes(8).settle()
    assert world.job("job").failures == 0


def waits_of_starts_that_fail(world: World, code: ReasonCode, times: int) -> list[float]:
    """Seconds that the job backs off after each of so many attempts that never trained."""
    waits = []
    for _ in range(times):
        world.cycle()
        world.exits("job", Outcome.LOST, reason=code)
        waits.append((world.job("job").backoff_until - world.now) / seconds(1))
        assert not started(world.passes(waits[-1] - 0.001).cycle().decided.actions)
        world.passes(0.001)
    return waits


@NOT_ITS_FAULT
def test_setbacks_in_a_row_back_off_longer_and_longer_whatever_the_manifest_says(
    code: ReasonCode,
) -> None:
    world = a_cluster().with_nodes(1, 1).submit(a_job().retrying(0, 0, 0))
    waits = waits_of_starts_that_fail(world, code, 9)
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300, 300]
    assert (world.job("job").failures, world.stage("job")) == (0, Stage.BACKING_OFF)


def test_a_longer_wait_of_the_manifest_stays_and_a_run_that_trained_begins_anew() -> None:
    world = a_cluster().with_nodes(1, 1).submit(a_job().retrying(3, 30, 3600))
    assert waits_of_starts_that_fail(world, ReasonCode.RAY_LOST, 5) == [30, 30, 30, 40, 80]
    world.settle().fails("job", ReasonCode.RAY_LOST)
    assert (world.job("job").backoff_until - world.now) / seconds(1) == 30
    assert world.replayed() == world.state


@pytest.mark.parametrize(("ran_seconds", "wait_seconds"), [(299, 20), (300, 5)])
def test_a_command_that_ran_long_enough_begins_anew(ran_seconds: int, wait_seconds: int) -> None:
    world = a_cluster().with_nodes(1, 1).submit(a_job().running_a_command())
    waits_of_starts_that_fail(world, ReasonCode.RAY_LOST, 2)
    world.settle().passes(ran_seconds).fails("job", ReasonCode.RAY_LOST)
    assert (world.job("job").backoff_until - world.now) / seconds(1) == wait_seconds


def test_a_job_that_is_set_back_again_and_again_does_not_hold_up_its_equal() -> None:
    world = a_cluster().with_nodes(1, 1).submit(a_job())
    waits_of_starts_that_fail(world, ReasonCode.RAY_LOST, 2)
    world.cycle()
    world.exits("job", Outcome.LOST, reason=ReasonCode.RAY_LOST)
    world.submit(a_job("other")).settle()
    assert world.stage("other") is Stage.RUNNING


@pytest.mark.parametrize("outcome", [Outcome.SUCCEEDED, Outcome.STOPPED])
def test_the_last_step_is_known_though_no_progress_told_of_it(outcome: Outcome) -> None:
    world = a_running_pair().trains("job", 97, checkpoint_step=50)
    world.exits("job", outcome, step=100)
    progress = world.job("job").progress
    assert (progress.step, progress.checkpoint_step, progress.loss) == (100, 100, 1.0)
    if outcome is Outcome.SUCCEEDED:
        assert world.why("job").message == "finished at step 100"


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.LOST])
def test_a_step_that_was_not_saved_is_not_called_so(outcome: Outcome) -> None:
    world = a_running_pair().trains("job", 97, checkpoint_step=50)
    world.exits("job", outcome, step=100)
    progress = world.job("job").progress
    assert (progress.step, progress.checkpoint_step) == (97, 50)


def test_a_node_that_died_is_the_cause_even_if_its_neighbours_ranks_failed_first() -> None:
    world = a_running_pair()
    lost = world.attempt("job").placement.units[1].node
    world.exits("job", Outcome.FAILED, reason=ReasonCode.RANK_FAILED, units=[0])
    world.passes(15).tell(NodeLost(lost))
    assert world.code("job") is ReasonCode.NODE_LOST
    assert world.job("job").failures == 0


@pytest.mark.parametrize("code", [ReasonCode.CANNOT_BE_TRAINED, ReasonCode.CHECKPOINT_CORRUPT])
def test_what_fails_wherever_it_is_tried_fails_at_once(code: ReasonCode) -> None:
    world = a_cluster().with_nodes(2, 1).submit(a_job().wanting(2).retrying(3)).settle()
    world.exits("job", Outcome.FAILED, reason=ReasonCode.RANK_FAILED, units=[0])
    world.exits("job", Outcome.FAILED, reason=code)
    assert (world.stage("job"), world.code("job")) == (Stage.FAILED, code)
    assert world.why("job").message == f"said {code.value}"
    assert world.job("job").failures == 1
    assert world.replayed() == world.state


def test_a_start_that_no_agent_made_backs_off_instead_of_spinning() -> None:
    world = a_cluster().with_nodes(1, 1).submit(a_job())
    world.cycle()
    world.exits("job", Outcome.NEVER_STARTED)
    assert world.stage("job") is Stage.BACKING_OFF
    assert world.code("job") is ReasonCode.START_REFUSED
    assert world.job("job").failures == 1


def test_a_rank_that_fails_while_it_stops_costs_no_retry_and_is_told() -> None:
    world = a_cluster().with_nodes(1, 2).submit(a_job("a").wanting(1, 2)).settle()
    world.submit(a_job("b")).cycle()
    world.exits("a", Outcome.FAILED, reason=ReasonCode.OUT_OF_MEMORY, units=[0])
    assert world.attempt("a").intent is Intent.END
    world.exits("a", Outcome.LOST)
    assert world.stage("a") is Stage.QUEUED
    assert world.code("a") is ReasonCode.SHRUNK_FOR_OTHERS
    assert "said OutOfMemory" in world.why("a").message
    assert (world.job("a").failures, world.job("a").reconfigurations) == (0, 1)


def test_ranks_that_were_stopped_by_someone_else_start_again() -> None:
    world = a_running_pair().exits("job", Outcome.STOPPED)
    assert world.stage("job") is Stage.QUEUED
    world.settle()
    assert world.stage("job") is Stage.RUNNING
    assert (world.job("job").failures, world.job("job").reconfigurations) == (0, 0)


def test_a_job_that_finishes_while_it_is_asked_to_stop_has_succeeded() -> None:
    world = a_cluster().with_nodes(1, 2).submit(a_job("a").wanting(1, 2)).settle()
    world.submit(a_job("b")).cycle()
    assert world.attempt("a").intent is Intent.STOP
    world.exits("a", Outcome.SUCCEEDED)
    assert world.stage("a") is Stage.SUCCEEDED


def test_an_unhealthy_accelerator_ends_the_attempt_and_gets_no_other() -> None:
    world = a_cluster().with_nodes(1, 2).submit(a_job()).settle()
    (slot,) = world.attempt("job").placement.units[0].accelerators
    world.tell(AcceleratorHealthChanged(NodeId("n1"), slot, "Xid 79")).cycle()
    assert world.attempt("job").intent is Intent.END
    world.exits("job", Outcome.LOST).passes(6).settle()
    assert world.attempt("job").placement.units[0].accelerators != (slot,)
    assert world.job("job").failures == 0


def test_a_stop_that_takes_too_long_becomes_an_end_and_is_no_failure() -> None:
    world = a_cluster().with_settings(stop_grace_seconds=30)
    world.with_nodes(1, 2).submit(a_job("a").wanting(1, 2)).settle()
    world.submit(a_job("b")).cycle()
    world.passes(29).cycle()
    assert world.attempt("a").intent is Intent.STOP
    world.passes(1).cycle()
    assert world.attempt("a").intent is Intent.END
    world.exits("a", Outcome.LOST)
    assert (world.stage("a"), world.job("a").failures) == (Stage.QUEUED, 0)


def test_an_attempt_that_reports_no_step_in_time_counts_as_failed() -> None:
    world = a_cluster().with_settings(start_grace_seconds=60).with_nodes(1, 1).submit(a_job())
    world.cycle()
    world.all_up("job").passes(59).cycle()
    assert world.attempt("job").intent is Intent.RUN
    world.passes(1).cycle()
    assert world.attempt("job").intent is Intent.END
    world.exits("job", Outcome.FAILED, reason=ReasonCode.RANK_FAILED)
    assert world.code("job") is ReasonCode.START_REFUSED
    assert world.job("job").failures == 1


def test_a_users_command_reports_no_steps_and_may_take_its_time() -> None:
    world = a_cluster().with_settings(start_grace_seconds=60).with_nodes(1, 2)
    world.submit(a_job().wanting(2).running_a_command()).settle()
    assert not world.passes(3600).cycle().decided.actions
    assert world.stage("job") is Stage.RUNNING


def test_units_that_outlive_the_others_of_a_finished_gang_are_ended() -> None:
    world = a_cluster().with_settings(stop_grace_seconds=30).with_nodes(2, 1)
    world.submit(a_job().wanting(2)).settle().exits("job", units=[0])
    world.passes(29).cycle()
    assert world.attempt("job").intent is Intent.RUN
    world.passes(1).cycle()
    assert world.attempt("job").intent is Intent.END
    world.exits("job", Outcome.LOST)
    assert world.code("job") is ReasonCode.RANK_LOST
    assert world.stage("job") is Stage.BACKING_OFF


@EITHER_POLICY
def test_a_job_that_always_fails_does_not_hold_up_another(policy: str) -> None:
    world = a_cluster(policy).with_nodes(1, 2).submit(a_job("bad").wanting(2)).settle()
    world.submit(a_job("good").wanting(2)).fails("bad")
    world.settle()
    assert world.stage("good") is Stage.RUNNING
    world.passes(6).settle()
    assert world.stage("good") is Stage.RUNNING
    assert world.code("bad") is ReasonCode.WAITING_FOR_ACCELERATORS
    world.exits("good").settle()
    assert world.stage("bad") is Stage.RUNNING


@pytest.mark.parametrize("slots", [3, 4, 5])
def test_a_job_that_always_fails_does_not_make_its_neighbour_shrink_and_grow(slots: int) -> None:
    world = a_cluster().with_nodes(1, slots).submit(a_job("good").wanting(1, slots)).settle()
    world.submit(a_job("bad").wanting(1, slots).retrying(5)).settle()
    attempts = world.attempt("good").number
    for _ in range(5):
        world.fails("bad").settle().passes(301).settle()
    assert world.attempt("good").number == attempts
    world.fails("bad").settle()
    assert world.stage("bad") is Stage.FAILED
    assert world.held("good") == slots
    assert world.attempt("good").number == attempts + 1


def test_time_held_counts_each_accelerator_until_its_own_release() -> None:
    world = a_running_pair()
    world.passes(10).exits("job", units=[0]).passes(5).exits("job")
    record = world.job("job")
    assert record.held_ns == seconds(15)
    assert record.held_accelerator_ns == seconds(25)


def test_a_plan_that_ran_out_of_memory_is_not_offered_again_and_costs_no_retry() -> None:
    world = a_cluster().with_nodes(1, 2)
    world.submit(a_job().wanting(2).under("dp2", "dp2-z2", "dp2-z3").retrying(1, 5, 8)).settle()
    for plan in ("dp2", "dp2-z2"):
        assert str(world.attempt("job").placement.plan) == plan
        world.fails("job", ReasonCode.OUT_OF_MEMORY)
        assert world.stage("job") is Stage.BACKING_OFF
        world.passes(8).settle()
    assert str(world.attempt("job").placement.plan) == "dp2-z3"
    assert world.job("job").failures == 0
    assert world.replayed() == world.state


def test_a_job_fails_at_once_when_memory_ran_out_under_every_plan() -> None:
    world = a_cluster().with_nodes(1, 2)
    world.submit(a_job().wanting(1, 2).with_batch(4).retrying(9, 5, 8)).settle()
    world.fails("job", ReasonCode.OUT_OF_MEMORY)
    world.passes(8).settle()
    assert str(world.attempt("job").placement.plan) == "dp1"
    world.fails("job", ReasonCode.OUT_OF_MEMORY)
    assert world.stage("job") is Stage.FAILED
    assert world.code("job") is ReasonCode.OUT_OF_MEMORY
    assert "under dp2, dp1, and no other plan is left; what helps" in world.why("job").message


def test_a_changed_spec_may_have_again_what_ran_out_of_memory() -> None:
    world = a_cluster().with_nodes(1, 2)
    job = a_job().wanting(2).under("dp2", "dp2-z2")
    world.submit(job).settle().fails("job", ReasonCode.OUT_OF_MEMORY)
    world.passes(5).update(job.with_batch(2).generation(2)).settle()
    assert str(world.attempt("job").placement.plan) == "dp2"


def test_a_program_of_the_users_own_may_run_out_of_memory_more_than_once() -> None:
    world = a_cluster().with_nodes(1, 1)
    world.submit(a_job().wanting(1).running_a_command().retrying(1, 5, 8)).settle()
    world.fails("job", ReasonCode.OUT_OF_MEMORY)
    world.passes(8).settle()
    world.fails("job", ReasonCode.OUT_OF_MEMORY)
    assert world.code("job") is ReasonCode.RETRIES_EXHAUSTED


def test_a_loss_that_is_not_finite_is_tried_once_more_unless_training_gets_beyond_it() -> None:
    world = a_running_pair()
    for step in (10, 25):
        world.trains("job", step=step)
        world.exits("job", Outcome.FAILED, reason=ReasonCode.LOSS_NOT_FINITE, step=step)
        assert world.stage("job") is Stage.BACKING_OFF
        world.passes(8).settle()
    world.exits("job", Outcome.FAILED, reason=ReasonCode.LOSS_NOT_FINITE, step=25)
    assert world.stage("job") is Stage.FAILED
    assert world.code("job") is ReasonCode.LOSS_NOT_FINITE
    assert "again at the same step" in world.why("job").message


KEY_ERROR = "step: wanted the loss of each sample, got KeyError: 27 (train.py, line 9, in step)"


def raises(
    world: World, sentence: str, *, step: int, code: ReasonCode = ReasonCode.RANK_FAILED
) -> World:
    """Unit 1 ends the job's attempt so; unit 0 first says that it lost it."""
    attempt = world.attempt("job")
    for index, why in (
        (0, Reason(ReasonCode.RANK_LOST, "connection closed")),
        (1, Reason(code, f"{sentence}\nIts last lines:\nattempt {attempt.number}")),
    ):
        end = UnitExit(index, Outcome.FAILED, step if index else 0, why)
        world.tell(UnitExited(JobUid("job"), attempt.number, end, attempt.units[index].node))
    return world


def test_what_raises_the_same_at_the_same_step_twice_is_not_tried_again() -> None:
    world = a_running_pair()
    raises(world, KEY_ERROR, step=27)
    assert world.stage("job") is Stage.BACKING_OFF
    raises(world.passes(8).settle(), KEY_ERROR, step=27)
    assert world.stage("job") is Stage.FAILED
    assert world.why("job") == Reason(
        ReasonCode.RANK_FAILED,
        f"the same at step 27 in attempts 1 and 2; it is not tried again: {KEY_ERROR}",
    )
    assert world.job("job").failures == 2
    assert world.replayed() == world.state


@pytest.mark.parametrize(
    ("sentence", "step", "code"),
    [
        (KEY_ERROR, 28, ReasonCode.RANK_FAILED),
        (KEY_ERROR.replace("27", "28"), 27, ReasonCode.RANK_FAILED),
        (KEY_ERROR, 27, ReasonCode.COMMUNICATION_FAILED),
    ],
)
def test_what_ends_otherwise_the_second_time_is_tried_again(
    sentence: str, step: int, code: ReasonCode
) -> None:
    world = raises(a_running_pair(), KEY_ERROR, step=27).passes(8).settle()
    raises(world, sentence, step=step, code=code)
    assert world.stage("job") is Stage.BACKING_OFF


@pytest.mark.parametrize(
    ("sentence", "step"),
    [
        ("train.py, line 3: ConnectionError: no answer", 0),
        ("unit 1 was killed by SIGKILL without saying why", 27),
    ],
    ids=["before-the-first-step", "killed"],
)
def test_what_may_be_better_the_next_time_is_tried_again(sentence: str, step: int) -> None:
    world = raises(a_running_pair(), sentence, step=step).passes(8).settle()
    assert world.attempt("job").number == 2
    raises(world, sentence, step=step)
    assert world.stage("job") is Stage.BACKING_OFF


def test_a_lost_node_in_between_or_a_changed_spec_begins_anew() -> None:
    job = a_job().wanting(2).retrying(4, 5, 8)
    world = a_cluster().with_nodes(3, 1).submit(job).settle()
    raises(world, KEY_ERROR, step=27).passes(8).settle()
    raises(world.update(job.training(0.5).generation(2)), KEY_ERROR, step=27)
    assert world.stage("job") is not Stage.FAILED
    raises(world.passes(8).settle(), KEY_ERROR, step=27)
    assert world.stage("job") is Stage.BACKING_OFF
    world.passes(8).settle().fails("job", ReasonCode.NODE_LOST)
    raises(world.passes(8).settle(), KEY_ERROR, step=27)
    assert world.stage("job") is Stage.BACKING_OFF
