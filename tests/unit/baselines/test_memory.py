"""Jobs of built-in models on accelerators that have no room for all of their plans."""

import pytest

from controlplane.baselines import BASELINES
from controlplane.domain.lifecycle import Stage
from controlplane.domain.offering import memory_for, misfits
from controlplane.domain.reason import ReasonCode
from tests.builders import POLICIES, JobBuilder, World, a_cluster, a_job, a_node, a_unit

EVERY_POLICY = pytest.mark.parametrize("policy", sorted(POLICIES))
OF_OUR_OWN = pytest.mark.parametrize("policy", sorted(BASELINES))
"""Those that give jobs as much as there is, and keep to an order."""

H100, A100 = "nvidia-h100-80gb-hbm3", "nvidia-a100-sxm4-40gb"


def llama(name: str = "llama") -> JobBuilder:
    """By the estimate dp1 takes 147 GiB, dp2-z3 81, dp1-z2-offload 62 and 122 of the host."""
    return a_job(name).with_batch(8).of_model("llama-2-7b", length=1024)


def gpt2(name: str = "gpt2") -> JobBuilder:
    """By the estimate dp1 takes 59 GiB, dp2 45, dp1-ga16 27."""
    return a_job(name).with_batch(16).of_model("gpt2-1.26b", length=1024)


def plan_of(world: World, name: str) -> str:
    return str(world.attempt(name).placement.plan)


def told(world: World, name: str) -> list[tuple[str, str]]:
    spec = world.job(name).job.spec
    found = misfits(spec, memory_for(world.state.snapshot(world.now), spec.accelerators))
    return [(str(each.plan), each.type) for each in found]


@EVERY_POLICY
def test_a_plan_without_room_is_passed_over_before_it_is_tried(policy: str) -> None:
    world = a_cluster(policy).with_node(a_node("n", 1, H100, gib=79.6, host_gib_each=512))
    world.submit(llama().under("dp1", "dp1-z2-offload")).settle()
    assert plan_of(world, "llama") == "dp1-z2-offload"
    assert told(world, "llama") == [("dp1", H100)]
    assert world.job("llama").attempts_made == 1


@EVERY_POLICY
def test_where_no_plan_has_room_the_job_waits_and_is_told_by_how_much(policy: str) -> None:
    world = a_cluster(policy).with_node(a_node("n", 2, H100, gib=79.6, host_gib_each=512))
    world.submit(llama().wanting(1, 2).under("dp1", "dp2-z3"), a_job("other").wanting(2)).settle()
    assert world.code("llama") is ReasonCode.DOES_NOT_FIT
    said = world.why("llama").message
    assert said.startswith(f"dp2-z3 on {H100} does not fit by 1.8 GiB: wanted 81.4 GiB")
    assert f"nor does dp1 on {H100} (by 67.5 GiB)" in said
    assert "ignoreMemoryEstimate" in said
    assert world.held("other") == 2


@EVERY_POLICY
def test_it_starts_when_a_node_with_more_memory_comes(policy: str) -> None:
    world = a_cluster(policy).with_node(a_node("n", 1, A100, gib=39.5, host_gib_each=512))
    world.submit(gpt2().under("dp1")).settle()
    assert world.code("gpt2") is ReasonCode.DOES_NOT_FIT
    world.with_node(a_node("large", 1, H100, gib=79.6, host_gib_each=512)).settle()
    assert world.nodes_of("gpt2") == {"large"}


@OF_OUR_OWN
def test_of_several_types_one_with_room_is_taken_and_the_other_is_left_to_others(
    policy: str,
) -> None:
    world = a_cluster(policy).with_node(
        a_node("small", 2, A100, gib=39.5, host_gib_each=512),
        a_node("large", 1, H100, gib=79.6, host_gib_each=512),
    )
    world.submit(gpt2("a").under("dp1"), gpt2("b").under("dp1")).settle()
    world.submit(gpt2("c").under("dp1-ga16"), gpt2("d").under("dp1")).settle()
    assert world.nodes_of("a") == {"large"}
    assert world.nodes_of("c") == {"small"}
    waits = ReasonCode.WAITING_FOR_ACCELERATORS, ReasonCode.BEHIND_EARLIER_JOB
    assert (world.code("b"), world.code("d")) == waits
    assert world.why("b").holders == ("a",)
    world.exits("a").settle()
    assert world.nodes_of("b") == {"large"}


@EVERY_POLICY
def test_a_plan_is_as_good_as_the_node_lets_it_be(policy: str) -> None:
    world = a_cluster(policy).with_node(a_node("small", 1, A100, gib=39.5, host_gib_each=512))
    world.submit(gpt2("a").under("dp1", "dp1-ga16")).settle()
    assert plan_of(world, "a") == "dp1-ga16"
    world.with_node(a_node("large", 1, H100, gib=79.6, host_gib_each=512))
    world.submit(gpt2("b").under("dp1", "dp1-ga16")).settle()
    assert plan_of(world, "b") == "dp1"


@EVERY_POLICY
def test_offload_goes_where_the_host_has_room(policy: str) -> None:
    world = a_cluster(policy).with_node(
        a_node("poor", 4, H100, gib=79.6, host_gib_each=64),
        a_node("rich", 4, H100, gib=79.6, host_gib_each=256),
    )
    world.submit(llama().under("dp1-z2-offload")).settle()
    assert world.nodes_of("llama") == {"rich"}
    assert told(world, "llama") == []
    world = a_cluster(policy).with_node(a_node("poor", 4, H100, gib=79.6, host_gib_each=64))
    world.submit(llama().under("dp1-z2-offload")).settle()
    assert "GiB of host memory: wanted" in world.why("llama").message


@EVERY_POLICY
def test_without_plans_only_sizes_with_room_are_given(policy: str) -> None:
    world = a_cluster(policy).with_node(a_node("n", 2, "gpu", gib=48, host_gib_each=64))
    world.submit(a_job("first").wanting(1), gpt2().wanting(1, 4)).settle()
    assert world.stage("gpt2") is Stage.QUEUED
    world.exits("first").settle()
    assert plan_of(world, "gpt2") == "dp2"
    world.submit(a_job("later").wanting(1)).settle()
    assert plan_of(world, "gpt2") == "dp2"
    assert world.stage("later") is Stage.QUEUED


def test_a_share_does_not_shrink_to_where_it_has_no_room() -> None:
    world = a_cluster().with_node(
        a_node("small", 2, "l40", gib=48, host_gib_each=64),
        a_node("large", 1, H100, gib=79.6, host_gib_each=64),
    )
    world.submit(a_job("first").of_type(H100)).settle()
    world.submit(gpt2().wanting(1, 2)).settle().submit(a_job("second").of_type("l40")).settle()
    assert plan_of(world, "gpt2") == "dp2"
    assert world.stage("second") is Stage.QUEUED


@EVERY_POLICY
@pytest.mark.parametrize("gib", [0.0, 8.0])
def test_what_is_not_known_is_not_held_against_a_job(policy: str, gib: float) -> None:
    world = a_cluster(policy).with_node(a_node("n", 1, "cpu", gib=gib, host_gib_each=1))
    world.submit(gpt2().under("dp1") if not gib else a_job("gpt2").under("dp1")).settle()
    assert plan_of(world, "gpt2") == "dp1"


@EVERY_POLICY
def test_what_runs_is_not_stopped_by_an_estimate(policy: str) -> None:
    world = a_cluster(policy).with_node(a_node("n", 1, H100, gib=79.6, host_gib_each=512))
    world.submit(a_job("llama").with_batch(8).under("dp1")).settle()
    world.update(llama().under("dp1").with_priority(1)).settle()
    assert (plan_of(world, "llama"), world.attempt("llama").number) == ("dp1", 1)
    world.fails("llama").passes(60).settle()
    assert world.code("llama") is ReasonCode.DOES_NOT_FIT


@OF_OUR_OWN
def test_a_new_list_of_plans_is_asked_for_room_where_the_job_runs(policy: str) -> None:
    world = a_cluster(policy).with_node(a_node("n", 1, H100, gib=79.6, host_gib_each=512))
    world.submit(llama().under("dp1-z2-offload")).settle()
    world.update(llama().under("dp1", "dp1-z3-offload", "dp1-z2-offload")).settle()
    assert plan_of(world, "llama") == "dp1-z3-offload"
    assert world.replayed() == world.state


@EVERY_POLICY
def test_what_is_said_of_one_model_is_not_said_of_another(policy: str) -> None:
    world = a_cluster(policy).with_node(a_node("n", 1, H100, gib=79.6, host_gib_each=512))
    small = a_job("small").with_batch(8).of_model("bert-336m")
    world.submit(llama().under("dp1"), small.under("dp1")).settle()
    assert world.code("llama") is ReasonCode.DOES_NOT_FIT
    assert world.held("small") == 1


def test_a_job_does_not_grow_into_a_plan_without_room_where_it_is() -> None:
    world = a_cluster().with_node(a_node("small", 1, "gpu", gib=40, host_gib_each=64))
    world.submit(gpt2().wanting(1, 2).under("dp1-ga16", "dp2")).settle()
    world.with_node(a_node("large", 2, "gpu", gib=80, host_gib_each=64)).settle()
    assert (plan_of(world, "gpt2"), world.nodes_of("gpt2")) == ("dp1-ga16", {"small"})


@EVERY_POLICY
def test_a_place_whose_memory_became_known_is_asked_for_room_at_the_next_start(policy: str) -> None:
    world = a_cluster(policy).with_node(a_node("n", 1, H100))
    world.submit(llama().under("dp1", "dp1-z2-offload")).settle()
    assert plan_of(world, "llama") == "dp1"
    known = a_node("n", 1, H100, gib=79.6, host_gib_each=512)
    world.register(known, a_unit(world, "llama")).settle()
    assert plan_of(world, "llama") == "dp1"
    world.fails("llama").passes(60).settle()
    assert plan_of(world, "llama") == "dp1-z2-offload"
