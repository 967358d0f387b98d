"""Synergy as a policy: first come, first served on what is asked for, CPUs by Synergy-Tune."""

from controlplane.baselines.synergy import Synergy
from controlplane.domain.lifecycle import Stage
from controlplane.domain.reason import ReasonCode
from tests.builders import World, a_cluster, a_job, a_node
from tests.step_tables import A800, KIND, a_measured_job


def servers(count: int, policy: Synergy | None = None, cores: int = 12) -> World:
    nodes = [a_node(f"n{i}", 8, KIND, cores_each=cores, host_gib_each=200) for i in range(count)]
    return a_cluster().with_node(*nodes).under(policy or Synergy(A800))


def test_who_does_not_fit_is_passed_over_and_nobody_is_preempted() -> None:
    world = servers(1).submit(a_measured_job("a", "bert", "dp4")).settle()
    world.submit(a_measured_job("b", "bert", "dp8"), a_measured_job("c", "vit", "dp2")).settle()
    assert [world.held(name) for name in "abc"] == [4, 0, 2]
    assert world.code("b") is ReasonCode.WAITING_FOR_ACCELERATORS
    assert (world.why("b").wanted, world.why("b").available) == (8, 2)
    world.exits("a").settle()
    assert world.held("b") == 0
    world.exits("c").settle()
    assert world.held("b") == 8


def test_a_job_takes_the_fullest_node_that_still_holds_it() -> None:
    world = servers(2).submit(a_job("three").wanting(3)).settle()
    world.submit(a_measured_job("a", "bert", "dp4"), a_measured_job("b", "bert", "dp8")).settle()
    assert world.nodes_of("a") == world.nodes_of("three")
    assert world.held("b") == 8


def test_a_job_on_parts_of_nodes_lies_as_it_was_measured() -> None:
    world = servers(6).submit(a_measured_job("llama", "llama30", "tp4-pp6.1f1b-ga4")).settle()
    units = world.attempt("llama").placement.units
    assert sorted(sum(u.node == node for u in units) for node in world.nodes_of("llama")) == [4] * 6


def test_a_demand_beyond_the_share_falls_back_so_that_nobody_is_left_out() -> None:
    hungry = Synergy(A800, cpus_each=24)
    world = servers(1, hungry)
    world.submit(a_measured_job("a", "bert", "dp4"), a_measured_job("b", "bert", "dp4")).settle()
    assert (world.held("a"), world.held("b")) == (4, 4)


def test_a_job_goes_where_there_are_cpus_for_it() -> None:
    for cpus, together in ((24, False), (12, True)):
        world = servers(2, Synergy(A800, cpus_each=cpus))
        world.submit(
            a_measured_job("a", "bert", "dp4"), a_measured_job("b", "bert", "dp4")
        ).settle()
        assert (world.nodes_of("a") == world.nodes_of("b")) is together


def test_ranks_are_pinned_to_the_cores_of_their_accelerators() -> None:
    world = servers(1).submit(a_measured_job("a", "bert", "dp2")).settle()
    assert [len(unit.cpu_cores) for unit in world.attempt("a").placement.units] == [12, 12]


def test_a_queues_quota_is_kept() -> None:
    world = servers(1).with_queue("q", quota=3)
    world.submit(a_measured_job("a", "bert", "dp4").in_queue("q")).settle()
    assert world.code("a") is ReasonCode.QUOTA_EXCEEDED
    world.submit(a_measured_job("b", "bert", "dp2").in_queue("q")).settle()
    assert world.stage("b") is Stage.RUNNING


def test_what_was_assumed_can_be_printed() -> None:
    assert any("nobody is preempted" in each for each in Synergy(A800).assumptions)
