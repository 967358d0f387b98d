"""What a job ran out of memory under is not offered to the next one that trains the same."""

import pytest

from controlplane.domain.codec import dump, load
from controlplane.domain.reason import ReasonCode
from controlplane.engine.state import ClusterState
from tests.builders import POLICIES, JobBuilder, World, a_cluster, a_job, a_node

TYPE = "gpt2-tiny fp32 batch 8x64"
EITHER_POLICY = pytest.mark.parametrize("policy", sorted(POLICIES))


def alike(name: str, *plans: str, kind: str = "") -> JobBuilder:
    """One of the jobs that train the same."""
    job = a_job(name).wanting(2).under(*plans).of_model("gpt2-tiny", precision="fp32").of_type(kind)
    return job.measured_as(TYPE)


def after_a_loss(policy: str = "equal-share", kind: str = "") -> World:
    """Job ``first`` ran out under dp2 and is gone."""
    world = a_cluster(policy).with_nodes(1, 2)
    world.submit(alike("first", "dp2", "dp2-z2", kind=kind)).settle()
    assert str(world.attempt("first").placement.plan) == "dp2"
    return world.fails("first", ReasonCode.OUT_OF_MEMORY).withdraw("first").settle()


def plan_of(world: World, name: str) -> str:
    return str(world.attempt(name).placement.plan)


@EITHER_POLICY
def test_the_next_job_does_not_walk_into_it(policy: str) -> None:
    world = after_a_loss(policy).submit(alike("next", "dp2", "dp2-z2")).settle()
    assert plan_of(world, "next") == "dp2-z2"


def test_it_outlives_the_job_the_log_and_the_checkpoint() -> None:
    world = after_a_loss()
    assert "first" not in world.state.jobs
    assert [loss.job for loss in world.state.memory_losses.values()] == ["default/first"]
    assert world.replayed() == world.state
    assert load(dump(world.state, ClusterState), ClusterState) == world.state


@EITHER_POLICY
def test_with_no_plan_left_the_job_waits_and_says_why(policy: str) -> None:
    world = after_a_loss(policy).submit(alike("next", "dp2")).settle()
    assert world.job("next").attempt is None
    assert world.code("next") is ReasonCode.DOES_NOT_FIT
    assert "dp2 ran out of memory in job default/first on" in world.why("next").message
    assert "ignoreMemoryEstimate" in world.why("next").message


def test_what_others_train_is_not_concerned() -> None:
    world = after_a_loss()
    world.submit(alike("other", "dp2").measured_as("gpt2-tiny fp32 batch 16x64")).settle()
    assert plan_of(world, "other") == "dp2"


def test_who_ignores_the_estimate_tries_it_once() -> None:
    world = after_a_loss().submit(alike("bold", "dp2", "dp2-z2").ignoring_the_estimate()).settle()
    assert plan_of(world, "bold") == "dp2"
    world.fails("bold", ReasonCode.OUT_OF_MEMORY).passes(8).settle()
    assert plan_of(world, "bold") == "dp2-z2"


def test_another_type_of_accelerator_may_have_room() -> None:
    world = after_a_loss()
    world.with_node(a_node("large", 2, "H200"))
    world.submit(alike("next", "dp2", "dp2-z2", kind="H200")).settle()
    assert plan_of(world, "next") == "dp2"


def test_who_runs_under_it_goes_on() -> None:
    world = a_cluster().with_nodes(2, 2)
    world.submit(alike("first", "dp2", "dp2-z2"), alike("second", "dp2", "dp2-z2")).settle()
    world.runs("first", "second").fails("first", ReasonCode.OUT_OF_MEMORY).passes(8).settle()
    assert world.attempt("second").number == 1
    assert plan_of(world, "second") == "dp2"
    assert plan_of(world, "first") == "dp2-z2"
