"""Sia as a policy: the program's answers on a cluster, and what it does between rounds."""

import pytest

from controlplane.baselines.sia import Sia
from controlplane.domain.lifecycle import Stage
from controlplane.domain.reason import ReasonCode
from tests.builders import JobBuilder, World, a_cluster, a_job, a_node
from tests.step_tables import A800, KIND, a_measured_job

EVERY_CYCLE = Sia(A800, round_seconds=0)
LLAMA7 = "dp2-tp4-pp2.1f1b-ga4"


def servers(count: int, policy: Sia = EVERY_CYCLE, size: int = 8) -> World:
    nodes = [a_node(f"n{i}", size, KIND) for i in range(count)]
    return a_cluster().with_node(*nodes).under(policy)


def vit_bert_t5() -> list[JobBuilder]:
    return [
        a_measured_job("vit", "vit", "dp1"),
        a_measured_job("bert", "bert", "dp8"),
        a_measured_job("t5", "t5", "dp4"),
    ]


def test_a_server_is_divided_as_the_program_says() -> None:
    world = servers(1).submit(*vit_bert_t5()).settle()
    assert [world.held(name) for name in ("vit", "bert", "t5")] == [2, 4, 2]
    assert str(world.attempt("bert").placement.plan) == "dp4"


def test_the_plan_stays_what_was_asked_for() -> None:
    world = servers(1).submit(a_measured_job("t5", "t5", "dp2")).settle()
    assert str(world.attempt("t5").placement.plan) == "dp8"
    world = servers(1).submit(a_measured_job("t5", "t5", "dp2-z2")).settle()
    assert str(world.attempt("t5").placement.plan) == "dp8-z2"


def test_a_3d_job_is_rigid_and_runs_as_requested() -> None:
    world = servers(8).submit(a_measured_job("llama", "llama7", LLAMA7)).settle()
    assert world.held("llama") == 16
    assert len(world.nodes_of("llama")) == 2


def test_a_variant_scales_the_replicas_of_a_3d_job() -> None:
    world = servers(8, Sia(A800, round_seconds=0, scale_3d=True))
    world.submit(a_measured_job("llama", "llama7", LLAMA7)).settle()
    assert str(world.attempt("llama").placement.plan) == "dp8-tp4-pp2.1f1b"
    # Its five accelerators are no configuration, and it has no larger one here.
    world.submit(a_measured_job("gpt2", "gpt2", "tp5"))
    world.exits("llama").settle()
    assert str(world.attempt("gpt2").placement.plan) == "tp5"


def test_a_variant_starts_with_one_and_doubles() -> None:
    world = servers(1, Sia(A800, round_seconds=0, bootstrap=True))
    world.submit(a_measured_job("bert", "bert", "dp8"))
    held = []
    for _ in range(8):
        world.cycle()
        world.stopped_ones_leave()
        if world.job("bert").attempt and world.stage("bert") is Stage.STARTING:
            world.runs("bert")
            held.append(world.held("bert"))
        world.passes(10_000)
    assert held == [1, 2, 4, 8]


def test_between_rounds_what_runs_stays_and_newcomers_take_what_is_free() -> None:
    world = servers(1, Sia(A800, round_seconds=60)).submit(a_measured_job("vit", "vit", "dp1"))
    world.settle()
    assert world.held("vit") == 8
    world.passes(5).submit(*vit_bert_t5()[1:]).settle()
    assert world.held("vit") == 8
    assert world.why("bert").code is ReasonCode.WAITING_FOR_ACCELERATORS
    world.passes(3600).settle()
    assert [world.held(name) for name in ("vit", "bert", "t5")] == [2, 4, 2]


def test_a_job_that_is_still_starting_keeps_what_it_was_given() -> None:
    world = servers(1).submit(a_measured_job("vit", "vit", "dp1"))
    world.cycle()
    before = world.attempt("vit").placement
    world.submit(*vit_bert_t5()[1:])
    assert world.cycle().decided.actions == ()
    assert world.attempt("vit").placement is before
    world.runs("vit").passes(3600).settle()
    assert [world.held(name) for name in ("vit", "bert", "t5")] == [2, 4, 2]


def test_a_young_job_is_not_restarted_for_little() -> None:
    world = servers(1, Sia(A800, switch_seconds=260, round_seconds=0)).submit(*vit_bert_t5())
    world.settle().passes(300)
    world.exits("t5").settle()
    assert (world.held("vit"), world.held("bert")) == (2, 4)
    world.passes(36_000).settle()
    assert (world.held("vit"), world.held("bert")) == (4, 4)


def test_smaller_jobs_are_moved_together_for_a_larger_one() -> None:
    world = servers(3)
    for i in range(3):
        world.submit(a_job(f"filler{i}").wanting(6), _sized(f"v{i}", 2)).settle()
    for i in range(3):
        world.exits(f"filler{i}")
    world.settle()
    assert len({node for i in range(3) for node in world.nodes_of(f"v{i}")}) == 3
    world.submit(a_measured_job("llama", "llama7", "dp2-tp8")).settle()
    assert world.held("llama") == 16
    assert len({node for i in range(3) for node in world.nodes_of(f"v{i}")}) == 1
    assert [world.job(f"v{i}").reconfigurations for i in range(3)].count(0) == 1


def _sized(name: str, count: int) -> JobBuilder:
    """It can have so many accelerators and no other number."""
    return a_measured_job(name, "vit", f"dp{count}").wanting(count).under(f"dp{count}")


def test_a_job_of_which_nothing_is_known_is_rigid() -> None:
    world = servers(1).submit(a_job("own").wanting(3), *vit_bert_t5()).settle()
    assert world.held("own") == 3
    assert world.held("bert") >= 1


def test_a_job_that_was_measured_otherwise_waits_with_a_clear_reason() -> None:
    job = a_measured_job("vit", "vit", "dp2-z2")
    plans = (*map(str, job.job.spec.plans), "dp2-z2")
    world = servers(1).submit(job.under(*plans)).settle()
    assert world.code("vit") is ReasonCode.POLICY_REFUSED
    assert "not known how long a step of vit takes under dp2-z2" in world.why("vit").message


def test_a_queues_quota_limits_its_jobs() -> None:
    world = servers(1).with_queue("q", quota=3)
    world.submit(a_measured_job("a", "bert", "dp1").in_queue("q"))
    world.submit(
        a_measured_job("b", "bert", "dp1").in_queue("q"), a_measured_job("c", "vit", "dp1")
    )
    world.settle()
    assert world.held("a") + world.held("b") == 3
    assert world.held("c") == 4


def test_what_was_assumed_can_be_printed() -> None:
    told = " ".join(Sia(A800, 260).assumptions)
    assert "260 s" in told
    assert "rigid" in told
    assert "oracle tables" in told


@pytest.mark.parametrize(
    ("knob", "value"),
    [("power", 0.5), ("power", 0.0), ("switch_seconds", -1.0), ("round_seconds", -1.0)],
)
def test_a_knob_out_of_range_is_refused_before_it_decides(knob: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{knob}: wanted"):
        Sia(A800, **{knob: value})  # type: ignore[arg-type]


def test_what_there_is_no_room_for_is_given_up_and_the_program_solved_again() -> None:
    # Six are left, three on each node: four would be cheapest, but only two lie together.
    world = servers(2).submit(a_job("a").wanting(5), a_job("b").wanting(5)).settle()
    world.submit(a_measured_job("vit", "vit", "dp1")).settle()
    assert world.held("vit") == 2


def test_two_of_one_node_are_no_configuration_where_nodes_have_one() -> None:
    world = servers(2, size=1).submit(*vit_bert_t5()[:2]).settle()
    world.passes(3600).settle()
    assert (world.held("vit"), world.held("bert")) == (1, 1)
    assert [world.job(name).attempts_made for name in ("vit", "bert")] == [1, 1]


def test_a_wide_job_is_not_chosen_where_whole_nodes_leave_it_no_room() -> None:
    # 24 accelerators are left beside the first job, but on three nodes, not on six.
    world = servers(8).submit(a_measured_job("wide", "llama30", "dp4-tp2-pp5.1f1b")).settle()
    world.submit(a_measured_job("parts", "llama30", "tp4-pp6.1f1b-ga4"))
    world.submit(*(a_measured_job(f"v{i}", "vit", "dp1") for i in range(3))).settle()
    assert (world.held("wide"), world.held("parts")) == (40, 0)
    assert [world.held(f"v{i}") for i in range(3)] == [8, 8, 8]


def test_a_job_whose_spec_asks_for_another_plan_goes_over_to_it() -> None:
    world = servers(1).submit(a_measured_job("t5", "t5", "dp8")).settle()
    world.update(a_measured_job("t5", "t5", "dp8-z2")).settle()
    assert str(world.attempt("t5").placement.plan) == "dp8-z2"
    kept = world.attempt("t5").placement
    world.update(a_measured_job("t5", "t5", "dp8-z2").with_priority(1)).settle()
    assert world.attempt("t5").placement is kept
