"""Nodes that Kubernetes keeps work off, beside what people drain by themselves."""

import pytest

from controlplane.domain.action import StopAttempt
from controlplane.domain.codec import adapter
from controlplane.domain.ids import NodeId
from controlplane.domain.lifecycle import Stage
from controlplane.domain.node import Closed
from controlplane.domain.reason import ReasonCode
from controlplane.domain.record import Outcome
from controlplane.engine.state import ClusterState
from tests.builders import POLICIES, a_cluster, a_job, a_node

EACH_POLICY = pytest.mark.parametrize("policy", sorted(POLICIES))
HOME = NodeId("n1")


@EACH_POLICY
def test_what_runs_on_a_cordoned_node_goes_on_and_nothing_new_comes(policy: str) -> None:
    world = a_cluster(policy).with_nodes(1, 2).submit(a_job("a").wanting(1)).settle()
    world.kubernetes_closes("n1").submit(a_job("b").wanting(1)).settle()
    assert (world.stage("a"), world.job("a").attempts_made) == (Stage.RUNNING, 1)
    assert world.stage("b") is Stage.QUEUED
    assert world.code("b") in (ReasonCode.NO_MATCHING_ACCELERATOR, ReasonCode.EXCEEDS_CLUSTER)
    world.kubernetes_closes().settle()
    assert world.stage("b") is Stage.RUNNING


def test_who_could_use_more_does_not_grow_on_a_cordoned_node() -> None:
    world = a_cluster("equal-share").with_nodes(1, 2).submit(a_job("a").wanting(1)).settle()
    world.submit(a_job("b").wanting(1, 2)).settle()
    world.kubernetes_closes("n1").exits("a", Outcome.SUCCEEDED).settle()
    assert (world.held("b"), world.job("b").attempts_made) == (1, 1)


@EACH_POLICY
def test_who_fails_on_a_cordoned_node_starts_again_elsewhere(policy: str) -> None:
    world = a_cluster(policy).with_nodes(1, 1).submit(a_job("a")).settle()
    world.kubernetes_closes("n1").with_node(a_node("n2", 1)).settle()
    assert world.nodes_of("a") == {"n1"}
    world.exits("a", Outcome.FAILED).passes(600).settle()
    assert world.nodes_of("a") == {"n2"}


@EACH_POLICY
def test_a_node_that_kubernetes_drains_is_left_with_a_planned_stop(policy: str) -> None:
    world = a_cluster(policy).with_nodes(2, 2).submit(a_job("a").wanting(2).on_one_node()).settle()
    (home,) = world.nodes_of("a")
    world.kubernetes_closes(home, closed=Closed.TO_ALL_WORK)
    (stop,) = world.cycle().decided.actions
    assert isinstance(stop, StopAttempt)
    assert stop.reason.code is ReasonCode.MOVED_OFF_NODE
    world.stopped_ones_leave().settle()
    assert world.nodes_of("a") == {"n1", "n2"} - {home}
    assert world.job("a").failures == 0


@EACH_POLICY
def test_a_new_spec_that_needs_a_restart_takes_it_off_a_cordoned_node(policy: str) -> None:
    world = a_cluster(policy).with_nodes(1, 1).submit(a_job("a")).settle()
    world.kubernetes_closes("n1").update(a_job("a").training(0.5).generation(2)).cycle()
    world.stopped_ones_leave().settle()
    assert (world.stage("a"), world.job("a").attempts_made) == (Stage.QUEUED, 1)
    world.with_node(a_node("n2", 1)).settle()
    assert world.nodes_of("a") == {"n2"}


@EACH_POLICY
def test_an_edit_that_needs_no_restart_leaves_a_job_on_a_cordoned_node(policy: str) -> None:
    world = a_cluster(policy).with_nodes(1, 1).submit(a_job("a")).settle()
    world.kubernetes_closes("n1").update(a_job("a").with_priority(3).generation(2)).settle()
    assert (world.stage("a"), world.job("a").attempts_made) == (Stage.RUNNING, 1)


def test_people_and_kubernetes_do_not_undo_each_other() -> None:
    world = a_cluster().with_nodes(1, 1)
    world.drain("n1").kubernetes_closes("n1")
    assert not world.state.nodes[HOME].usable
    world.kubernetes_closes()
    assert world.state.nodes[HOME].drained
    world.kubernetes_closes("n1").drain("n1", drained=False)
    assert not world.state.nodes[HOME].usable
    world.kubernetes_closes()
    assert world.state.nodes[HOME].usable


def test_what_one_operator_tells_is_not_undone_by_another() -> None:
    world = a_cluster().with_nodes(1, 1)
    world.kubernetes_closes("n1", operator="a")
    world.kubernetes_closes("n1", closed=Closed.TO_ALL_WORK, operator="b")
    assert world.state.nodes[HOME].must_be_left
    world.kubernetes_closes(operator="b")
    assert world.state.nodes[HOME].only_goes_on
    world.kubernetes_closes(operator="a")
    assert world.state.nodes[HOME].usable
    assert world.state.closed_nodes == {}


def test_a_node_that_registers_later_is_closed_from_the_first_moment() -> None:
    world = a_cluster().kubernetes_closes("n1").with_node(a_node("n1", 1)).submit(a_job("a"))
    assert world.settle().stage("a") is Stage.QUEUED


def test_what_kubernetes_closes_survives_a_checkpoint_of_the_state() -> None:
    world = a_cluster().with_nodes(1, 1).kubernetes_closes("n1", "n7")
    stored = adapter(ClusterState)
    again = stored.validate_json(stored.dump_json(world.state))
    assert again.closed_nodes == world.state.closed_nodes
    assert not again.nodes[HOME].usable
